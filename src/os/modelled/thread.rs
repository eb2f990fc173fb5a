// SPDX-License-Identifier: LGPL-2.1-or-later
//! Threads whose steps the scheduler orders. One that panics has ended with that, as
//! joining it says.

use std::io;
use std::panic::{catch_unwind, resume_unwind, AssertUnwindSafe};
use std::sync::Arc;
use std::time::Duration;

pub(crate) use shuttle::thread::Scope;
use std::thread::Result;

use super::trace::{self, Met};

/// Others may take steps here.
pub(crate) fn step() {
    shuttle::thread::sleep(Duration::ZERO);
}

/// Runs `work`, and waits for the threads that it started in the scope.
pub(crate) fn scope<'env, T>(work: impl for<'scope> FnOnce(&'scope Scope<'scope, 'env>) -> T) -> T {
    let done = shuttle::thread::scope(|scope| catch_unwind(AssertUnwindSafe(|| work(scope))));
    done.unwrap_or_else(|panic| resume_unwind(panic))
}

/// A thread that somebody can wait for.
pub(crate) struct JoinHandle<T> {
    inner: shuttle::thread::JoinHandle<Result<T>>,
    ended: Arc<Met>,
}

impl<T> JoinHandle<T> {
    /// Waits until it has ended; what it came to.
    pub(crate) fn join(self) -> Result<T> {
        let result = self.inner.join();
        self.ended.touch();
        result?
    }
}

/// A thread that ends within a scope.
pub(crate) struct ScopedJoinHandle<'scope, T> {
    inner: shuttle::thread::ScopedJoinHandle<'scope, Result<T>>,
    ended: Arc<Met>,
}

impl<T> ScopedJoinHandle<'_, T> {
    /// Waits until it has ended; what it came to.
    pub(crate) fn join(self) -> Result<T> {
        let result = self.inner.join();
        self.ended.touch();
        result?
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
        let ended = Arc::new(Met::new());
        let inner = shuttle::thread::spawn(traced(ended.clone(), work));
        Ok(JoinHandle { inner, ended })
    }

    /// Starts a thread that ends within `scope`.
    pub(crate) fn spawn_scoped<'scope, T: Send + 'scope>(
        self,
        scope: &'scope Scope<'scope, '_>,
        work: impl FnOnce() -> T + Send + 'scope,
    ) -> io::Result<ScopedJoinHandle<'scope, T>> {
        let ended = Arc::new(Met::new());
        let inner = scope.spawn(traced(ended.clone(), work));
        Ok(ScopedJoinHandle { inner, ended })
    }
}

fn traced<T>(
    ended: Arc<Met>,
    work: impl FnOnce() -> T + Send,
) -> impl FnOnce() -> Result<T> + Send {
    let with = trace::start();
    move || {
        trace::started(with);
        let done = catch_unwind(AssertUnwindSafe(work));
        ended.touch();
        done
    }
}
