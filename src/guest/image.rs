// SPDX-License-Identifier: LGPL-2.1-or-later
//! The kernel's image, and what of it is in use once the system is up.

use std::ops::Range;

use crate::addr::{Gfn, GfnRange, GuestVirt, PAGE_SHIFT};

use super::arch::x86_64::KERNEL_MAP;
use super::kallsyms::{lookup, KallsymsError};
use super::kernel::Kernel;
use super::memory::GuestMemory;
use super::page_map::PageMap;
use super::verdict::{DumpLevel, Verdict};

/// Which parts of the image are in use.
pub struct ImageParts {
    released: Result<Vec<Range<u64>>, KallsymsError>,
}

impl ImageParts {
    /// Asks the kernel's symbols.
    pub fn find(mem: &dyn GuestMemory, kernel: &Kernel) -> Self {
        Self {
            released: released(mem, kernel),
        }
    }

    /// Whether the kernel tells which parts it gave back.
    pub fn is_told(&self) -> bool {
        self.released.is_ok()
    }

    /// Why the kernel does not tell which parts it gave back.
    pub fn why_not_told(&self) -> Option<&KallsymsError> {
        self.released.as_ref().err()
    }

    /// The parts of a mapping that the kernel did not give back, as far as it
    /// tells: offset and length of each.
    pub fn in_use(&self, at: GuestVirt, bytes: u64) -> Vec<(u64, u64)> {
        outside(at, bytes, self.released.as_deref().unwrap_or_default())
    }
}

/// Parts of the image that the kernel gives to its allocator after boot, and
/// leaves mapped: what only boot needed and gaps that alignment left
/// (`free_kernel_image_pages`, `arch/x86/mm/init.c`), room for decrypted data
/// (`mem_encrypt_free_decrypted_mem`), and early allocations that were not made
/// (`reserve_brk`).
fn released(mem: &dyn GuestMemory, kernel: &Kernel) -> Result<Vec<Range<u64>>, KallsymsError> {
    let names = [
        "__init_begin",
        "__init_end",
        "_etext",
        "__start_rodata",
        "__end_rodata",
        "_sdata",
        "__start_bss_decrypted_unused",
        "__end_bss_decrypted",
        "_brk_end",
        "__brk_limit",
    ];
    let mut found = lookup(mem, kernel, names)?;
    // A variable: how far early allocations went.
    found[8] = found[8]
        .and_then(|at| kernel.tables.read_u64(mem, at).ok())
        .map(GuestVirt);
    let page = 1 << PAGE_SHIFT;
    let ranges = found.chunks_exact(2).filter_map(|ends| {
        let start = ends[0]?.0.checked_next_multiple_of(page)?;
        let end = ends[1]?.0 & !(page - 1);
        (start >= KERNEL_MAP && start < end).then_some(start..end)
    });
    Ok(ranges.collect())
}

/// The parts of a mapping that are in no range. No range is empty, or begins at 0.
fn outside(at: GuestVirt, bytes: u64, released: &[Range<u64>]) -> Vec<(u64, u64)> {
    let mut parts = vec![(at.0, at.0 + (bytes - 1))];
    for range in released {
        parts = parts
            .into_iter()
            .flat_map(|(first, last)| {
                let before = (first, last.min(range.start - 1));
                let after = (first.max(range.end), last);
                [before, after]
            })
            .filter(|(first, last)| first <= last)
            .collect();
    }
    let part = |(first, last): (u64, u64)| (first - at.0, last - first + 1);
    parts.into_iter().map(part).collect()
}

/// Pages in a stretch of the image that is judged as a whole.
const STRETCH: u64 = 64;

/// The stretches of an image in which less than a quarter of the pages could be
/// left out. Kernels before 6.0 do not tell what they gave back after boot; it is
/// one piece of 2 MiB and more, used for anything by now. Where a descriptor or
/// two are wrong instead, the rest of the stretch still is the kernel's.
pub fn seems_in_use(map: &PageMap, image: GfnRange) -> Vec<GfnRange> {
    let could_go = |verdict: Verdict| DumpLevel::DEFAULT.excludes(verdict);
    let mut in_use = Vec::new();
    let mut next = image.start;
    while next < image.end {
        let end = Gfn((next.0 / STRETCH + 1) * STRETCH).min(image.end);
        let stretch = GfnRange::new(next, end);
        let runs = map.runs(stretch).filter(|&(_, verdict)| could_go(verdict));
        let pages: u64 = runs.map(|(run, _)| run.len()).sum();
        if pages < STRETCH / 4 {
            in_use.push(stretch);
        }
        next = end;
    }
    in_use
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::guests::symbols::{Kept, BASE_ADDRESS};
    use crate::guest::guests::synthetic::Guest;
    use crate::guest::limits::Limits;
    use crate::guest::locate::locate;
    use crate::guest::page_map::Draft;

    fn parts(guest: &mut Guest) -> ImageParts {
        guest.write_description();
        let processors = guest.processors();
        let located = locate(guest, &processors, &Limits::default()).expect("a kernel");
        ImageParts::find(guest, &located.kernel)
    }

    #[test]
    fn what_the_kernel_gave_back_of_its_image_is_not_in_use() {
        let base = BASE_ADDRESS;
        let mut guest = Guest::new(1 << 14);
        let symbols = [
            ("_stext", base),
            // Whole pages between the two.
            ("__init_begin", base + 0x1801),
            ("__init_end", base + 0x3fff),
            ("_etext", base + 0x5000),
            ("__start_rodata", base + 0x6000),
            // Nothing, and the wrong way round.
            ("__end_rodata", base + 0x7000),
            ("_sdata", base + 0x7000),
            ("__start_bss_decrypted_unused", base + 0x9000),
            ("__end_bss_decrypted", base + 0x8000),
            // The first of these is a variable.
            ("_brk_end", base + 0x1f_0000),
            ("__brk_limit", base + 0xc000),
        ];
        guest.add_symbols(Kept::Base, &symbols);
        guest.write_image(base + 0x1f_0000, &(base + 0x9001).to_le_bytes());
        let found = parts(&mut guest);
        assert!(found.is_told());
        assert_eq!(found.why_not_told(), None);
        assert_eq!(
            found.in_use(GuestVirt(base), 0x1_0000),
            [
                (0, 0x2000),
                (0x3000, 0x2000),
                (0x6000, 0x4000),
                (0xc000, 0x4000)
            ]
        );
    }

    #[test]
    fn what_is_not_of_the_image_was_not_given_back() {
        let base = BASE_ADDRESS;
        let mut guest = Guest::new(1 << 14);
        let symbols = [
            ("_stext", base),
            ("__init_begin", 0x1000),
            ("__init_end", base + 0x3000),
            ("_etext", base + 0x5000),
        ];
        guest.add_symbols(Kept::BaseOrAbsolute, &symbols);
        let found = parts(&mut guest);
        assert!(found.is_told());
        assert_eq!(found.in_use(GuestVirt(base), 0x8000), [(0, 0x8000)]);

        let mut guest = Guest::new(1 << 14);
        let found = parts(&mut guest);
        assert!(!found.is_told());
        let missing = KallsymsError::Value("kallsyms_num_syms");
        assert_eq!(found.why_not_told(), Some(&missing));
        assert_eq!(found.in_use(GuestVirt(base), 0x8000), [(0, 0x8000)]);
    }

    #[test]
    fn parts_of_a_mapping_are_those_in_no_range() {
        let at = 0x10_0000;
        let parts = |released: &[Range<u64>]| outside(GuestVirt(at), 0x1000, released);
        assert_eq!(parts(&[]), [(0, 0x1000)]);
        let around = [at - 0x100..at, at + 0x1000..at + 0x2000];
        assert_eq!(parts(&around), [(0, 0x1000)]);
        let ends = [at - 0x100..at + 1, at + 0xfff..at + 0x2000];
        assert_eq!(parts(&ends), [(1, 0xffe)]);
        // In any order, and over each other.
        let middle = [at + 0x800..at + 0x900, at + 0x100..at + 0x101];
        let rest = [(0, 0x100), (0x101, 0x6ff), (0x900, 0x700)];
        assert_eq!(parts(&middle), rest);
        let over = [at + 0x100..at + 0x900, at + 0x800..at + 0xa00];
        assert_eq!(parts(&over), [(0, 0x100), (0xa00, 0x600)]);
        let all = [at - 1..at + 0x800, at + 0x800..at + 0x1001];
        assert_eq!(parts(&all), []);
    }

    #[test]
    fn a_stretch_is_in_use_when_less_than_a_quarter_of_it_could_go() {
        let range = |start, end| GfnRange::new(Gfn(start), Gfn(end));
        let mut map = PageMap::new(Gfn(0x1000));
        let mut draft = Draft::new();
        draft.begin(Gfn(0));
        draft.fill(10..25, Verdict::Free);
        draft.fill(64..80, Verdict::Free);
        draft.fill(130..138, Verdict::Cache);
        draft.fill(160..168, Verdict::User);
        draft.fill(192..200, Verdict::Free);
        map.finish(&mut draft);
        let found = seems_in_use(&map, range(10, 200));
        assert_eq!(found, [range(10, 64), range(192, 200)]);
        assert_eq!(seems_in_use(&map, range(64, 192)), []);
        let found = seems_in_use(&map, range(200, 300));
        assert_eq!(found, [range(200, 256), range(256, 300)]);
    }
}
