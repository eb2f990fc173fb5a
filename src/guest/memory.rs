// SPDX-License-Identifier: LGPL-2.1-or-later
//! The guest's memory, as seen by everything that reads it.

use crate::addr::{Gfn, GfnRange, GuestPhys};

/// Why bytes of the guest could not be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("guest frame {gfn} cannot be read: {cause}")]
pub struct ReadFault {
    /// First frame that could not be read.
    pub gfn: Gfn,
    /// What is wrong with it.
    pub cause: FaultCause,
}

/// What is wrong with a frame that cannot be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FaultCause {
    /// Not RAM, or beyond the guest's end.
    #[error("not RAM")]
    NotRam,
    /// The guest gave it back (balloon), or it was never populated.
    #[error("not populated")]
    NotPopulated,
    /// The host could not map or copy it; `errno` of the failing call.
    #[error("host error {0}")]
    Host(i32),
}

/// Memory of a guest that no longer runs.
///
/// An implementation may map windows of the guest on demand, so a call has a
/// cost: readers go in ascending order and take as much as they can use at a
/// time. Guest memory is only ever copied out, never lent.
pub trait GuestMemory: Sync {
    /// One past the highest frame that may exist.
    fn end(&self) -> Gfn;

    /// Fills `into` with the bytes from `at` on; all or nothing. Addresses may
    /// be anything, including such that `at` plus the length overflows.
    fn read(&self, at: GuestPhys, into: &mut [u8]) -> Result<(), ReadFault>;

    /// Runs of frames that are RAM in the host's opinion, ascending and
    /// disjoint. A frame in them may still fail to be read.
    fn ram(&self) -> &[GfnRange];
}

/// One little-endian 64-bit word at `at`.
pub fn read_u64(mem: &dyn GuestMemory, at: GuestPhys) -> Result<u64, ReadFault> {
    let mut word = [0; 8];
    mem.read(at, &mut word)?;
    Ok(u64::from_le_bytes(word))
}

/// Whether the host says that `gfn` is RAM.
pub fn is_ram(ram: &[GfnRange], gfn: Gfn) -> bool {
    let after = ram.partition_point(|range| range.start <= gfn);
    after > 0 && ram[after - 1].contains(gfn)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ram_is_found_by_range() {
        let ram = [
            GfnRange::new(Gfn(0), Gfn(2)),
            GfnRange::new(Gfn(8), Gfn(10)),
        ];
        let frames: Vec<u64> = (0..12).filter(|&gfn| is_ram(&ram, Gfn(gfn))).collect();
        assert_eq!(frames, [0, 1, 8, 9]);
        assert!(!is_ram(&[], Gfn(0)));
    }
}
