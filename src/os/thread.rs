// SPDX-License-Identifier: LGPL-2.1-or-later
//! Threads: the one place where the library starts any. A thread that the system
//! does not grant (a limit of processes, a cgroup's `pids.max`) is an error like any
//! other, never a panic.

use std::io;

use super::signal::block_all_in_this_thread;
use super::sync::thread::{Builder, JoinHandle, Scope, ScopedJoinHandle};

/// Who gets the signals that could go to a thread.
#[derive(Clone, Copy)]
pub(crate) enum Signals {
    /// Other threads: they are for the program that loaded the library.
    ToOthers,
    /// The thread as well. The children that libxl forks in it inherit what it
    /// blocks.
    AsTheProgram,
}

/// Starts a thread.
#[allow(clippy::disallowed_methods)] // here is the place
pub(crate) fn start<T: Send + 'static>(
    name: &str,
    signals: Signals,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    let work = prepared(signals, work)?;
    Builder::new().name(name.into()).spawn(work)
}

/// Starts a thread that ends within `scope`.
#[allow(clippy::disallowed_methods)] // here is the place
pub(crate) fn start_in<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    name: &str,
    signals: Signals,
    work: impl FnOnce() -> T + Send + 'scope,
) -> io::Result<ScopedJoinHandle<'scope, T>> {
    let work = prepared(signals, work)?;
    Builder::new().name(name.into()).spawn_scoped(scope, work)
}

/// What the new thread does.
#[cfg_attr(not(test), allow(clippy::unnecessary_wraps))]
fn prepared<T>(
    signals: Signals,
    work: impl FnOnce() -> T + Send,
) -> io::Result<impl FnOnce() -> T + Send> {
    #[cfg(test)]
    let inherited = refusal::count()?;
    Ok(move || {
        #[cfg(test)]
        refusal::inherit(inherited);
        if let Signals::ToOthers = signals {
            block_all_in_this_thread();
        }
        work()
    })
}

/// Threads that tests have refused.
#[cfg(test)]
pub(crate) mod refusal {
    use std::cell::RefCell;
    use std::io;
    use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
    use std::sync::Arc;

    /// Starts until one is refused, counted over a thread and all that come of it.
    pub(crate) type Left = Arc<AtomicU64>;

    thread_local! {
        static LEFT: RefCell<Option<Left>> = const { RefCell::new(None) };
    }

    /// Refuses start number `number` of those by this thread and by threads that it
    /// starts from now on. What comes back is zero once that has happened.
    pub(crate) fn of_number(number: u64) -> Left {
        let left = Arc::new(AtomicU64::new(number));
        inherit(Some(left.clone()));
        left
    }

    pub(super) fn inherit(left: Option<Left>) {
        LEFT.with(|own| *own.borrow_mut() = left);
    }

    pub(super) fn count() -> io::Result<Option<Left>> {
        let left = LEFT.with(|own| own.borrow().clone());
        let before = left.as_ref().map(|left| {
            let less = |count: u64| count.checked_sub(1);
            left.fetch_update(SeqCst, SeqCst, less).unwrap_or(0)
        });
        match before {
            Some(1) => Err(io::Error::from_raw_os_error(libc::EAGAIN)),
            _ => Ok(left),
        }
    }
}
