// SPDX-License-Identifier: LGPL-2.1-or-later
//! What is told of a job: its log, and what is said when a crash is over.

pub mod log;
pub(crate) mod report;
