// SPDX-License-Identifier: LGPL-2.1-or-later
//! What happens at a crash, in order. A reader starts with `recover`.
//!
//! `begin` starts a job when its turn has come; `recover` is the whole story; `live` dumps a domain that goes on running;
//! `standby` keeps a recovery domain ready beforehand; `memory_guard` sees to it
//! that a thinly backed one does not run out of memory meanwhile.
#![forbid(unsafe_code)]

// Only C callers begin jobs on domains, and those are Xen's.
#[cfg(feature = "xen")]
pub(crate) mod begin;
mod guard_thread;
pub mod live;
mod memory_guard;
pub mod recover;
pub mod standby;

#[cfg(test)]
mod tests;
