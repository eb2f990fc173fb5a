// SPDX-License-Identifier: LGPL-2.1-or-later
//! Threads whose steps the scheduler orders. One that panics has ended with that, as
//! joining it says.

use std::cell::Cell;
use std::io;
use std::panic::{catch_unwind, resume_unwind, AssertUnwindSafe};
use std::time::Duration;

pub(crate) use shuttle::thread::Scope;
use std::thread::Result;

thread_local! {
    /// All threads of an execution are one of the system's. Its next choice is none.
    static STAYS: Cell<bool> = const { Cell::new(false) };
}

/// Others may take steps here.
pub(crate) fn step() {
    shuttle::thread::sleep(Duration::ZERO);
}

/// Does something that the others see no sooner than the thread's next step.
pub(super) fn staying<T>(work: impl FnOnce() -> T) -> T {
    STAYS.set(true);
    let done = work();
    STAYS.set(false);
    done
}

/// Whether the thread that runs goes on, this time.
pub(super) fn stays() -> bool {
    STAYS.take()
}

/// Runs `work`, and waits for the threads that it started in the scope.
pub(crate) fn scope<'env, T>(work: impl for<'scope> FnOnce(&'scope Scope<'scope, 'env>) -> T) -> T {
    let done = shuttle::thread::scope(|scope| catch_unwind(AssertUnwindSafe(|| work(scope))));
    done.unwrap_or_else(|panic| resume_unwind(panic))
}

/// A thread that somebody can wait for.
pub(crate) struct JoinHandle<T> {
    inner: shuttle::thread::JoinHandle<Result<T>>,
}

impl<T> JoinHandle<T> {
    /// Waits until it has ended; what it came to.
    pub(crate) fn join(self) -> Result<T> {
        self.inner.join()?
    }
}

/// A thread that ends within a scope.
pub(crate) struct ScopedJoinHandle<'scope, T> {
    inner: shuttle::thread::ScopedJoinHandle<'scope, Result<T>>,
}

impl<T> ScopedJoinHandle<'_, T> {
    /// Waits until it has ended; what it came to.
    pub(crate) fn join(self) -> Result<T> {
        self.inner.join()?
    }
}

/// Starts threads; see [`std::thread::Builder`].
pub(crate) struct Builder;

impl Builder {
    /// Starts threads.
    pub(crate) fn new() -> Self {
        Self
    }

    /// Names are for people who look on.
    pub(crate) fn name(self, _: String) -> Self {
        self
    }

    /// Starts a thread.
    pub(crate) fn spawn<T: Send + 'static>(
        self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<JoinHandle<T>> {
        let inner = shuttle::thread::spawn(caught(work));
        Ok(JoinHandle { inner })
    }

    /// Starts a thread that ends within `scope`.
    pub(crate) fn spawn_scoped<'scope, T: Send + 'scope>(
        self,
        scope: &'scope Scope<'scope, '_>,
        work: impl FnOnce() -> T + Send + 'scope,
    ) -> io::Result<ScopedJoinHandle<'scope, T>> {
        let inner = scope.spawn(caught(work));
        Ok(ScopedJoinHandle { inner })
    }
}

fn caught<T>(work: impl FnOnce() -> T + Send) -> impl FnOnce() -> Result<T> + Send {
    move || catch_unwind(AssertUnwindSafe(work))
}
