// SPDX-License-Identifier: LGPL-2.1-or-later
//! What happens at a crash, in order. A reader starts with `recover`.
//!
//! `begin` starts a job when its turn has come; `recover` is the whole story, of which
//! `bring_up` brings up the successor and `hand_over` passes the memory on; `resume`
//! goes on with a story whose process was killed; `repeated` does less about a guest that
//! has crashed before; `live` dumps a domain that goes on
//! running; `standby` keeps a recovery domain ready beforehand; `memory_guard` sees to
//! it that a thinly backed one does not run out of memory meanwhile, and `noted` that
//! its stops are written down.
#![forbid(unsafe_code)]

// Only C callers begin jobs on domains, and those are Xen's.
#[cfg(feature = "xen")]
pub(crate) mod begin;
mod bring_up;
mod guard_thread;
mod hand_over;
pub mod live;
mod memory_guard;
mod noted;
pub mod recover;
pub mod repeated;
pub mod resume;
pub mod standby;

#[cfg(test)]
mod tests;
