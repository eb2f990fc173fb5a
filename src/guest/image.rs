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

/// The parts of a mapping that are in no range.
fn outside(at: GuestVirt, bytes: u64, released: &[Range<u64>]) -> Vec<(u64, u64)> {
    let mut parts = vec![(at.0, at.0 + (bytes - 1))];
    for range in released {
        parts = parts
            .into_iter()
            .flat_map(|(first, last)| {
                let before = (first, last.min(range.start.wrapping_sub(1)));
                let after = (first.max(range.end), last);
                if last < range.start || first >= range.end {
                    [Some((first, last)), None]
                } else {
                    [Some(before), Some(after)]
                }
            })
            .flatten()
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
