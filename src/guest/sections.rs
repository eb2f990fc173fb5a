// SPDX-License-Identifier: LGPL-2.1-or-later
//! Where the page descriptors of each part of memory are: `mem_section`.
//!
//! `include/linux/mmzone.h`: memory is divided into sections; an array of roots,
//! each a page of `struct mem_section`, tells where a section's descriptors are.
//! With a virtual memory map (`vmemmap`) these addresses all lie in one region,
//! without it anywhere; the difference does not matter here.

use crate::addr::{Gfn, GfnRange, GuestVirt, PAGE_SHIFT, PAGE_SIZE};

use super::kernel::Kernel;
use super::memory::GuestMemory;
use super::paging::WalkError;

/// Flags in `section_mem_map` (`SECTION_MARKED_PRESENT`, `SECTION_HAS_MEM_MAP`).
const PRESENT: u64 = 1;
const HAS_MEM_MAP: u64 = 2;
/// All its flags: the address of a map of descriptors is a multiple of this.
const FLAG_BITS: u64 = 0x1f;

/// A section with descriptors.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MemorySection {
    /// The pages it is about.
    pub pages: GfnRange,
    /// Descriptor of the first of them.
    pub descriptors: GuestVirt,
}

/// Why the sections are not known.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SectionsError {
    /// The description lacks something, or a value is out of range.
    #[error("{0} is missing or out of range")]
    Value(&'static str),
    /// The array of roots cannot be read.
    #[error("the memory sections cannot be read: {0}")]
    Unreadable(#[from] WalkError),
    /// Two sections have the same descriptors.
    #[error("the pages from {0} and from {1} share descriptors")]
    Shared(Gfn, Gfn),
}

/// The sections below the end of memory, ascending. A section that cannot be
/// read is left out; the pages in it stay unknown.
pub fn sections(
    mem: &dyn GuestMemory,
    kernel: &Kernel,
    descriptor_bytes: usize,
) -> Result<Vec<MemorySection>, SectionsError> {
    let info = &kernel.info;
    let value = |value: Option<u64>, from: u64, to: u64, name| {
        value
            .filter(|value| (from..=to).contains(value))
            .ok_or(SectionsError::Value(name))
    };
    let bits = info.number("SECTION_SIZE_BITS").map(|bits| bits as u64);
    let bits = value(bits, 24, 34, "NUMBER(SECTION_SIZE_BITS)")?;
    let entry = value(info.size("mem_section"), 8, 4096, "SIZE(mem_section)")?;
    let offset = info.offset("mem_section.section_mem_map");
    let offset = value(offset, 0, entry - 8, "OFFSET(mem_section.section_mem_map)")?;
    let array = info
        .symbol("mem_section")
        .ok_or(SectionsError::Value("SYMBOL(mem_section)"))?;

    let pages = 1u64 << (bits - u64::from(PAGE_SHIFT));
    let count = mem.end().0.div_ceil(pages);
    let per_root = PAGE_SIZE as u64 / entry;
    let mut found = Vec::new();
    for first in (0..count).step_by(per_root as usize) {
        let at = GuestVirt(array.0.wrapping_add(first / per_root * 8));
        let root = GuestVirt(kernel.tables.read_u64(mem, at)?);
        if root.0 == 0 {
            continue;
        }
        let number = per_root.min(count - first);
        let mut entries = vec![0; (number * entry) as usize];
        if kernel.tables.read(mem, root, &mut entries).is_err() {
            continue;
        }
        for (index, entry) in entries.chunks_exact(entry as usize).enumerate() {
            let word = &entry[offset as usize..offset as usize + 8];
            let map = u64::from_le_bytes(word.try_into().unwrap_or_default());
            if map & PRESENT == 0 || map & HAS_MEM_MAP == 0 {
                continue;
            }
            // Kept as the address less that of descriptor 0, so that pfn can
            // be added: it may wrap on the way.
            let start = (first + index as u64) * pages;
            let base = (map & !FLAG_BITS).wrapping_add(start.wrapping_mul(descriptor_bytes as u64));
            let end = base.checked_add(pages * descriptor_bytes as u64);
            if base >= kernel.tables.upper_half().0 && end.is_some() {
                found.push(MemorySection {
                    pages: GfnRange::new(Gfn(start), Gfn(start + pages)),
                    descriptors: GuestVirt(base),
                });
            }
        }
    }
    check_apart(&found, pages * descriptor_bytes as u64)?;
    Ok(found)
}

/// A descriptor belongs to one page.
fn check_apart(found: &[MemorySection], bytes: u64) -> Result<(), SectionsError> {
    let mut by_address: Vec<_> = found.iter().collect();
    by_address.sort_by_key(|section| section.descriptors);
    for pair in by_address.windows(2) {
        if pair[1].descriptors.0 - pair[0].descriptors.0 < bytes {
            return Err(SectionsError::Shared(
                pair[0].pages.start,
                pair[1].pages.start,
            ));
        }
    }
    Ok(())
}
