// SPDX-License-Identifier: LGPL-2.1-or-later
//! A job as its caller sees it: where it is, how it ended, and how to stop it.
#![forbid(unsafe_code)]

pub mod back_off;
mod count;
// On the in-memory host no guest crashes twice.
mod record_place;
#[cfg(feature = "xen")]
pub(crate) mod recrash;
mod running;
mod standby_slot;
mod state;

pub use count::{Clock, Count, Counted};
pub(crate) use record_place::RecordPlace;
pub use running::Job;
pub use standby_slot::Slot;
pub use state::{Counters, JobState, Milestones, Outcome, Phase, Snapshot};
