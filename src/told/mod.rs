// SPDX-License-Identifier: LGPL-2.1-or-later
//! What is told of a job: events as values, as lines for people, and as records for
//! programs.
#![forbid(unsafe_code)]

pub mod event;
pub mod kept;
pub mod log;
pub mod record;
pub(crate) mod report;
mod socket;

pub(crate) use socket::EventSocket;
