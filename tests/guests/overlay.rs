// SPDX-License-Identifier: LGPL-2.1-or-later
//! A guest with some words of its memory changed, at little cost each time.

use std::collections::BTreeMap;

use vicover::addr::{Gfn, GfnRange, GuestPhys};
use vicover::guest::memory::{GuestMemory, ReadFault};

pub struct Overlay<'a> {
    base: &'a dyn GuestMemory,
    /// Bytes by address.
    changed: BTreeMap<u64, u8>,
}

impl<'a> Overlay<'a> {
    pub fn new(base: &'a dyn GuestMemory) -> Self {
        Self {
            base,
            changed: BTreeMap::new(),
        }
    }

    pub fn write(&mut self, at: u64, bytes: &[u8]) {
        for (offset, &byte) in bytes.iter().enumerate() {
            self.changed.insert(at + offset as u64, byte);
        }
    }

    pub fn write_u64(&mut self, at: u64, word: u64) {
        self.write(at, &word.to_le_bytes());
    }
}

impl GuestMemory for Overlay<'_> {
    fn end(&self) -> Gfn {
        self.base.end()
    }

    fn read(&self, at: GuestPhys, into: &mut [u8]) -> Result<(), ReadFault> {
        self.base.read(at, into)?;
        for (&place, &byte) in self.changed.range(at.0..at.0 + into.len() as u64) {
            into[(place - at.0) as usize] = byte;
        }
        Ok(())
    }

    fn ram(&self) -> &[GfnRange] {
        self.base.ram()
    }
}
