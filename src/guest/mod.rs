// SPDX-License-Identifier: LGPL-2.1-or-later
//! What the memory of a dead Linux guest says about itself.
//!
//! Nothing here knows Xen, files or threads, and nothing the guest holds is
//! believed: every value is checked before it is used as an address, an offset
//! or a count, and every walk has a cap.
//!
//! In the order of use: [`locate`] finds the kernel's self-description
//! ([`candidate`], [`vmcoreinfo`]) from what processors say, and checks it against
//! memory ([`kernel`]); [`plan`] finds the
//! page descriptors ([`sections`], [`layout`]), gives every page a [`verdict`]
//! ([`classify`], [`page_map`]), sets that against what else the guest holds
//! ([`kernel_pages`], [`image`], [`kallsyms`], [`zones`]) and against any [`doubt`], and orders the dump.
//! [`log`] reads the kernel's messages, and [`oops`] what of them says why it died. What is so on x86-64 only is in
//! [`arch::x86_64`], as facts: nothing here is generic over architectures.
#![forbid(unsafe_code)]

pub mod arch;
pub mod candidate;
pub mod classify;
pub mod doubt;
#[cfg(test)]
#[path = "../../tests/guests/mod.rs"]
mod guests;
pub mod identity;
pub mod image;
pub mod kallsyms;
pub mod kernel;
pub mod kernel_pages;
pub mod layout;
pub mod limits;
pub mod locate;
pub mod log;
mod looked;
pub mod memory;
pub mod oops;
pub mod page_map;
pub mod paging;
pub mod paravirtual;
pub mod plan;
mod pointers;
mod search;
pub mod sections;
pub mod verdict;
pub mod vmcoreinfo;
mod walk;
pub mod zones;
