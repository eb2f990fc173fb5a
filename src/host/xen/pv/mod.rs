// SPDX-License-Identifier: LGPL-2.1-or-later
//! PV guests: what Xen does not do for them, since they know machine frames.
//!
//! Xen names their pages by machine frame, their page tables hold machine frames, and every
//! table in force holds the pages that it leads to. Nothing of that leaves this folder:
//! [`PvMemory`] has such a guest look like any other.

mod memory;
mod p2m;
mod references;
mod shared_info;
mod tables;

pub(super) use memory::PvMemory;

#[cfg(test)]
mod tests;
