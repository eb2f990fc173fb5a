// SPDX-License-Identifier: LGPL-2.1-or-later
//! Draining the crashed domain: chunk by chunk into the dump, and back to the
//! hypervisor, which passes the memory on to the recovery domain.
//!
//! In the order of use: `preflight` looks at the place of the dump before anything
//! crashes; `run` drains a domain, `start_dump` into the dump that a [`Target`]
//! asks for, which `budget` makes fit; `handover` keeps the account of what has
//! been given back; `progress` says how far it is.
#![forbid(unsafe_code)]

mod budget;
pub(crate) mod handover;
pub(crate) mod preflight;
mod progress;
mod run;
mod start_dump;
mod target;

pub(crate) use run::{release_all, run, Work};
pub(crate) use start_dump::{go_on, start_dump};
pub use target::Target;
