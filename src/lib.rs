//! Dump a crashed Xen guest while its replacement already boots on the memory
//! that the dump gives back.
#![deny(unsafe_code)]
// What the library itself must not call, for which tests have no other way.
#![cfg_attr(not(test), warn(clippy::disallowed_methods))]

pub mod addr;
mod capi;
mod control;
pub mod drain;
pub mod dump;
#[cfg(test)]
mod endings;
pub mod error;
mod guard_thread;
mod guarding;
pub mod guest;
pub mod host;
pub mod job;
pub mod limits;
pub mod live;
pub mod options;
mod os;
pub mod pacing;
pub mod recover;
pub mod standby;
pub mod told;
mod understand;
pub mod units;
