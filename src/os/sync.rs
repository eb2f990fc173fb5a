// SPDX-License-Identifier: LGPL-2.1-or-later
//! What threads meet at: the standard library's locks, channels and threads. Where every
//! order of their steps is to be tried (tests/schedules), others of the same names that
//! leave the order to the test.

#[cfg(all(test, shuttle))]
pub(crate) use super::modelled::{
    atomic, mpsc, thread, Condvar, Instant, Mutex, MutexGuard, OnceLock,
};
#[cfg(not(all(test, shuttle)))]
pub(crate) use std::{
    sync::{atomic, mpsc, Condvar, Mutex, MutexGuard, OnceLock},
    thread,
    time::Instant,
};
