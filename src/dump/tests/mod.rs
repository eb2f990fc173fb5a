// SPDX-License-Identifier: LGPL-2.1-or-later
//! Tests of the engine as a whole, against sinks that record and fail.

#[cfg(not(shuttle))]
mod buffers;
mod changes;
mod cut;
#[cfg(not(shuttle))]
mod elf;
#[cfg(not(shuttle))]
mod failures;
mod flaws;
#[cfg(not(shuttle))]
mod gated;
pub(super) mod guest;
mod header;
mod integrity;
#[cfg(not(shuttle))]
mod notices;
#[cfg(not(shuttle))]
mod order;
mod power_cut;
pub(super) mod recorder;
#[cfg(shuttle)]
mod schedules;
mod unfinished;
