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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::GuestPhys;
    use crate::guest::guests::synthetic::{self as made, Guest};
    use crate::guest::limits::Limits;
    use crate::guest::locate::locate;

    /// Bytes of the descriptors of a section.
    const BYTES: u64 = made::SECTION_PAGES * 64;
    /// The flags that sections have.
    const FLAGS: u64 = PRESENT | HAS_MEM_MAP;

    fn find(guest: &mut Guest) -> Result<Vec<MemorySection>, SectionsError> {
        guest.write_description();
        let processors = guest.processors();
        let located = locate(guest, &processors, &Limits::default()).expect("a kernel");
        sections(guest, &located.kernel, 64)
    }

    /// Numbers of the sections that are found.
    fn numbers(guest: &mut Guest) -> Vec<u64> {
        let found = find(guest).expect("sections");
        let number = |section: &MemorySection| section.pages.start.0 / made::SECTION_PAGES;
        found.iter().map(number).collect()
    }

    /// The section of a number, whose descriptors begin at an address.
    fn section(number: u64, descriptors: u64) -> MemorySection {
        let (start, end) = (number, number + 1);
        MemorySection {
            pages: GfnRange::new(
                Gfn(start * made::SECTION_PAGES),
                Gfn(end * made::SECTION_PAGES),
            ),
            descriptors: GuestVirt(descriptors),
        }
    }

    /// Where the entries of a root are in memory.
    fn entries(guest: &Guest, root: u64) -> u64 {
        guest.read_u64(guest.sections_at() + root * 8) - made::DIRECT_MAP
    }

    /// Has a section of the first root say that its descriptors are at an address.
    fn set(guest: &mut Guest, number: u64, descriptors: u64, flags: u64) {
        let entry = entries(guest, 0) + number * 32;
        let map = descriptors.wrapping_sub(number * BYTES);
        guest.write_u64(entry, map | flags);
    }

    #[test]
    fn each_section_has_descriptors_of_its_own() {
        let mut guest = Guest::new(3 * made::SECTION_PAGES + 1);
        let all = [0, 1, 2, 3].map(|number| section(number, made::VMEMMAP + number * BYTES));
        assert_eq!(find(&mut guest), Ok(all.to_vec()));
        // Anywhere, in any order, and as near to each other as can be.
        let first = made::VMEMMAP + 0x1000_0000;
        let others = [first + BYTES, first, first - 2 * BYTES, first + 2 * BYTES];
        for (number, descriptors) in (0..).zip(others) {
            set(&mut guest, number, descriptors, 0x1f);
        }
        let all = [0, 1, 2, 3].map(|number| section(number, others[number as usize]));
        assert_eq!(find(&mut guest), Ok(all.to_vec()));
        for apart in [0, 0x20, BYTES / 2, BYTES - 0x20] {
            set(&mut guest, 3, first + BYTES + apart, FLAGS);
            let shared = SectionsError::Shared(all[0].pages.start, all[3].pages.start);
            assert_eq!(find(&mut guest), Err(shared), "{apart:#x} apart");
        }
    }

    #[test]
    fn a_section_counts_when_it_is_present_and_its_descriptors_are_the_kernels() {
        let mut guest = Guest::new(4 * made::SECTION_PAGES);
        set(&mut guest, 0, made::VMEMMAP, PRESENT);
        set(&mut guest, 1, made::VMEMMAP + BYTES, HAS_MEM_MAP);
        set(&mut guest, 2, made::VMEMMAP + 2 * BYTES, 0x1c);
        assert_eq!(numbers(&mut guest), [3]);
        // In a program's half, at the border, and at the end of all addresses.
        let upper = 0xffff_8000_0000_0000;
        for (descriptors, counts) in [
            (0x7000_0000_0000, false),
            (upper - 0x20, false),
            (upper, true),
            (0u64.wrapping_sub(BYTES + 0x20), true),
            (0u64.wrapping_sub(BYTES), false),
            (0u64.wrapping_sub(BYTES / 2), false),
        ] {
            set(&mut guest, 0, descriptors, FLAGS);
            let numbers = numbers(&mut guest);
            assert_eq!(numbers.contains(&0), counts, "{descriptors:#x}");
        }
    }

    #[test]
    fn roots_are_pages_of_sections_anywhere() {
        let mut guest = Guest::with_blocks(131 * made::SECTION_PAGES, 1);
        assert_eq!(numbers(&mut guest), (0..131).collect::<Vec<_>>());
        let array = guest.sections_at();
        let moved = guest.new_frame();
        let mut page = [0; PAGE_SIZE];
        let old = GuestPhys(entries(&guest, 1));
        guest.read(old, &mut page).expect("RAM");
        guest.write(moved, &page);
        guest.write(old.0, &[0; PAGE_SIZE]);
        guest.write_u64(array + 8, made::DIRECT_MAP + moved);
        // One is missing in each root; behind the end of memory there are others.
        guest.write_u64(moved + 32, 0);
        let first = entries(&guest, 0);
        guest.write_u64(first + 127 * 32, 0);
        let map = guest.read_u64(first);
        guest.write_u64(moved + 3 * 32, map);
        let missing = |number: &u64| ![127, 129].contains(number);
        let expected: Vec<u64> = (0..131).filter(missing).collect();
        assert_eq!(numbers(&mut guest), expected);
        // A root that leads nowhere, and none.
        guest.write_u64(array, made::VMALLOC);
        assert_eq!(numbers(&mut guest), [128, 130]);
        guest.write_u64(array, 0);
        assert_eq!(numbers(&mut guest), [128, 130]);
    }

    #[test]
    fn a_section_may_keep_its_descriptors_at_its_end_and_no_further() {
        let name = "OFFSET(mem_section.section_mem_map)";
        let mut guest = Guest::new(2 * made::SECTION_PAGES);
        let first = entries(&guest, 0);
        for number in 0..2 {
            let map = guest.read_u64(first + number * 32);
            guest.write(first + number * 32, &[0; 32]);
            guest.write_u64(first + number * 32 + 24, map);
        }
        assert!(numbers(&mut guest).is_empty());
        guest.line(name, 24);
        assert_eq!(numbers(&mut guest), [0, 1]);
        for beyond in [25, 32, 40] {
            guest.line(name, beyond);
            assert_eq!(find(&mut guest), Err(SectionsError::Value(name)));
        }
    }

    #[test]
    fn sections_may_be_of_another_size() {
        let mut guest = Guest::new(2 * made::SECTION_PAGES);
        guest.line("NUMBER(SECTION_SIZE_BITS)", 28);
        let pages = GfnRange::new(Gfn(0), Gfn(2 * made::SECTION_PAGES));
        let descriptors = GuestVirt(made::VMEMMAP);
        let large = MemorySection { pages, descriptors };
        assert_eq!(find(&mut guest), Ok(vec![large]));
        let name = "NUMBER(SECTION_SIZE_BITS)";
        for bits in [23, 35] {
            guest.line(name, bits);
            assert_eq!(find(&mut guest), Err(SectionsError::Value(name)));
        }
    }
}
