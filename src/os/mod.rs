// SPDX-License-Identifier: LGPL-2.1-or-later
//! Calls of the operating system that the standard library does not offer,
//! each as one safe function.

pub(crate) mod clock;
pub(crate) mod fd;
pub(crate) mod file;
#[cfg(feature = "xen")]
pub(crate) mod fork;
pub(crate) mod map;
mod mmap;
#[cfg(all(test, shuttle))]
pub(crate) mod modelled;
pub(crate) mod page_buffer;
pub(crate) mod priority;
pub(crate) mod process;
pub(crate) mod processor;
mod signal;
pub(crate) mod sync;
pub(crate) mod thread;
pub(crate) mod wait;
