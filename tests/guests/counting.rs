// SPDX-License-Identifier: LGPL-2.1-or-later
//! How much of a guest's memory is read.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use vicover::addr::{Gfn, GfnRange, GuestPhys};
use vicover::guest::memory::{GuestMemory, ReadFault};

use super::synthetic::Guest;

/// A guest's memory that counts how often it is read.
pub struct Counting<'a>(pub &'a Guest, pub AtomicU64);

impl GuestMemory for Counting<'_> {
    fn end(&self) -> Gfn {
        self.0.end()
    }

    fn read(&self, at: GuestPhys, into: &mut [u8]) -> Result<(), ReadFault> {
        self.1.fetch_add(1, Relaxed);
        self.0.read(at, into)
    }

    fn ram(&self) -> &[GfnRange] {
        self.0.ram()
    }
}
