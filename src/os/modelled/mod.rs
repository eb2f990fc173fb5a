// SPDX-License-Identifier: LGPL-2.1-or-later
//! Locks, channels, threads and time as the standard library has them, whose steps are
//! taken in an order that a scheduler of shuttle's chooses.
//!
//! What differs from shuttle's own: a wait with a deadline can end by it, and a thread that
//! panics is what joining it says, and not the end of the test.

pub(crate) mod atomic;
pub(crate) mod every_order;
mod lock;
pub(crate) mod mpsc;
mod once;
pub(crate) mod scheduler;
pub(crate) mod thread;
mod time;

pub(crate) use lock::{Condvar, Mutex, MutexGuard};
pub(crate) use once::OnceLock;
pub(crate) use time::{never_time_out, Instant};
