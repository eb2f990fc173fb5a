// SPDX-License-Identifier: LGPL-2.1-or-later
//! Bounds on what somebody else states; waiting for others, and the end of every wait.
#![forbid(unsafe_code)]

pub mod bounded;
pub mod cancel;
pub(crate) mod monitor;
