// SPDX-License-Identifier: LGPL-2.1-or-later
//! Guest memory held in ordinary memory, for guests made by tests.

use vicover::addr::{Gfn, GfnRange, GuestPhys, PAGE_SIZE};
use vicover::guest::memory::{FaultCause, GuestMemory, ReadFault};

/// Guest memory held in ordinary memory: for callers that have an image.
#[derive(Clone, Debug, Default)]
pub struct MemoryImage {
    /// Runs of RAM, each with its bytes.
    runs: Vec<(GfnRange, Vec<u8>)>,
    ranges: Vec<GfnRange>,
    /// RAM in the host's opinion, when that is more than has content.
    claimed: Option<GfnRange>,
}

impl MemoryImage {
    /// An image without any RAM.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds zeroed RAM; false, and nothing is added, when the run touches RAM
    /// that is already there or does not fit this process.
    pub fn add_ram(&mut self, range: GfnRange) -> bool {
        let taken = |have: &GfnRange| have.start < range.end && range.start < have.end;
        let bytes = usize::try_from(range.len())
            .ok()
            .and_then(|frames| frames.checked_mul(PAGE_SIZE));
        let Some(bytes) = bytes else { return false };
        if range.is_empty() || self.ranges.iter().any(taken) {
            return false;
        }
        let place = self.ranges.partition_point(|have| have.start < range.start);
        self.ranges.insert(place, range);
        self.runs.insert(place, (range, vec![0; bytes]));
        true
    }

    /// Makes everything up to `end` RAM, most of it without content.
    pub fn claim(&mut self, end: Gfn) {
        self.claimed = Some(GfnRange::new(Gfn(0), end));
    }

    /// Writes `bytes` at `at`, which must be within one run of RAM.
    pub fn write(&mut self, at: GuestPhys, bytes: &[u8]) -> Result<(), ReadFault> {
        let (run, offset) = self.find(at, bytes.len())?;
        self.runs[run].1[offset..offset + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    /// All words of some memory added up: what only reading it takes.
    pub fn sum(&self, at: u64, bytes: u64) -> u64 {
        let (run, offset) = self.find(GuestPhys(at), bytes as usize).expect("RAM");
        let words = self.runs[run].1[offset..offset + bytes as usize].chunks_exact(8);
        words.fold(0, |sum, word| {
            sum.wrapping_add(u64::from_le_bytes(word.try_into().unwrap()))
        })
    }

    /// Index of the run that holds `len` bytes from `at` on, and where in it.
    fn find(&self, at: GuestPhys, len: usize) -> Result<(usize, usize), ReadFault> {
        let fault = |gfn| ReadFault {
            gfn,
            cause: FaultCause::NotRam,
        };
        let after = self.ranges.partition_point(|have| have.start <= at.gfn());
        let run = after.checked_sub(1).ok_or(fault(at.gfn()))?;
        let (range, bytes) = &self.runs[run];
        if !range.contains(at.gfn()) {
            return Err(fault(at.gfn()));
        }
        let offset = (at.0 - range.start.0 * PAGE_SIZE as u64) as usize;
        if len > bytes.len() - offset {
            return Err(fault(range.end));
        }
        Ok((run, offset))
    }
}

impl GuestMemory for MemoryImage {
    fn end(&self) -> Gfn {
        self.ram().last().map_or(Gfn(0), |range| range.end)
    }

    fn read(&self, at: GuestPhys, into: &mut [u8]) -> Result<(), ReadFault> {
        let (run, offset) = self.find(at, into.len())?;
        into.copy_from_slice(&self.runs[run].1[offset..offset + into.len()]);
        Ok(())
    }

    fn ram(&self) -> &[GfnRange] {
        match &self.claimed {
            Some(claimed) => std::slice::from_ref(claimed),
            None => &self.ranges,
        }
    }
}
