// SPDX-License-Identifier: LGPL-2.1-or-later
//! Dump a crashed Xen guest while its replacement already boots on the memory
//! that the dump gives back.
#![deny(unsafe_code)]
// What the library itself must not call, for which tests have no other way.
#![cfg_attr(not(test), warn(clippy::disallowed_methods))]

// Guests that tests make have the crate's name from outside: in tests/guests.
#[cfg(test)]
extern crate self as vicover;

pub mod addr;
mod capi;
mod control;
pub mod drain;
pub mod dump;
pub mod error;
pub mod guest;
pub mod host;
pub mod incident;
pub mod job;
pub mod journal;
pub mod limits;
pub mod options;
mod os;
pub mod pacing;
pub mod story;
pub mod told;
pub mod tool;
mod understand;
pub mod units;
