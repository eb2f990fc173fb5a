// SPDX-License-Identifier: LGPL-2.1-or-later
//! The writer's limits at work: the pace that it keeps to, and who sets it.
#![forbid(unsafe_code)]

pub(crate) mod io_control;
pub(crate) mod write_pace;
