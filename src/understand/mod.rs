// SPDX-License-Identifier: LGPL-2.1-or-later
//! Understanding a crashed guest from its registers and memory, without changing
//! anything: what it says about itself, and which pages to dump.
//!
//! `look` reads memory (through `mapped`) and decides; `known` is what comes of
//! it, with the `facts` that a dump has beside memory and the `chunks` in their
//! order. `remembered` is the same from what an earlier process has left. `panicked` only
//! asks whether the guest has crashed at all.
#![forbid(unsafe_code)]

mod chunks;
mod facts;
mod known;
mod look;
mod mapped;
#[cfg(feature = "xen")]
mod panicked;
mod remembered;

pub(crate) use known::Understanding;
pub(crate) use look::{look, read_registers, understand, understand_beside, Awaited};
#[cfg(feature = "xen")]
pub(crate) use panicked::panic_line;
pub(crate) use remembered::{nothing_wanted, remembered};
