// SPDX-License-Identifier: LGPL-2.1-or-later
//! Pages that the kernel's own page tables show to be the kernel's.
//!
//! Whatever the kernel maps outside its direct mapping of all memory (its image,
//! modules, stacks, per-CPU areas, page descriptors) is in use, and so are the
//! tables themselves. A descriptor that says otherwise is wrong.

use std::ops::Range;

use crate::addr::{Gfn, GfnRange, GuestPhys, GuestVirt, PAGE_SHIFT, PAGE_SIZE};

use super::arch::x86_64::{
    Processor, IMAGE_END, KERNEL_MAP, PER_CPU_BYTES, PMD_BYTES, PUD_BYTES, STACK_BYTES,
};
use super::image::ImageParts;
use super::kallsyms::KallsymsError;
use super::kernel::Kernel;
use super::memory::GuestMemory;
use super::paging::{Descend, PageTables, Visit};

/// Entries of tables that are looked at, at most: 64 TiB by 2 MiB pages, and
/// 64 GiB by small ones.
const MAX_ENTRIES: u64 = 1 << 26;

/// Runs of pages that are kept in mind, at most (16 bytes each).
const MAX_RUNS: usize = 1 << 20;

/// The kernel's pages by kind; each ascending only as the kernel maps it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct KernelPages {
    /// Pages that hold page tables.
    pub tables: Vec<GfnRange>,
    /// Pages that hold page descriptors.
    pub descriptors: Vec<GfnRange>,
    /// The kernel's image, as far as it is surely in use.
    pub image: Vec<GfnRange>,
    /// Writable parts of the image, when the kernel does not tell which of them
    /// it gave back after boot.
    pub image_or_released: Vec<GfnRange>,
    /// Why the kernel does not tell, if so.
    pub image_not_told: Option<KallsymsError>,
    /// Everything else that is mapped: modules, stacks, per-CPU areas.
    pub mapped: Vec<GfnRange>,
    /// Stacks in use on the processors.
    pub stacks: Vec<GfnRange>,
    /// False when a cap was met, so that pages may be missing.
    pub complete: bool,
}

impl KernelPages {
    /// All that are surely in use.
    pub fn in_use(&self) -> impl Iterator<Item = GfnRange> + '_ {
        [
            &self.tables,
            &self.descriptors,
            &self.image,
            &self.mapped,
            &self.stacks,
        ]
        .into_iter()
        .flatten()
        .copied()
    }
}

/// Collects the kernel's pages. `descriptors` are the addresses of each memory
/// section's page descriptors.
pub fn kernel_pages(
    mem: &dyn GuestMemory,
    kernel: &Kernel,
    processors: &[Processor],
    descriptors: &[Range<GuestVirt>],
) -> KernelPages {
    let mut collector = Collector {
        mem,
        kernel,
        end: mem.end(),
        direct: direct_map(kernel, mem.end()),
        runs_left: MAX_RUNS,
        entries_left: MAX_ENTRIES,
        pages: KernelPages::default(),
    };
    let complete = collector.collect(processors, descriptors);
    KernelPages {
        complete,
        ..collector.pages
    }
}

/// The kernel's pages so far, and how much more may be looked at and noted.
struct Collector<'a> {
    mem: &'a dyn GuestMemory,
    kernel: &'a Kernel,
    /// One past the highest frame.
    end: Gfn,
    /// Addresses of the direct mapping.
    direct: Range<GuestVirt>,
    runs_left: usize,
    entries_left: u64,
    pages: KernelPages,
}

impl Collector<'_> {
    /// Everything there is of all kinds. False: cap met.
    fn collect(&mut self, processors: &[Processor], descriptors: &[Range<GuestVirt>]) -> bool {
        let mut complete = self.kernel_half(&hull(descriptors));
        self.allocated_descriptors(descriptors);
        for processor in processors {
            complete &= self.tables_of(processor);
            self.stack_of(processor);
        }
        complete && self.runs_left > 0
    }

    /// Everything that the kernel maps in its half of the addresses. What is mapped
    /// `around` the virtual memory map are descriptors. False: cap met.
    fn kernel_half(&mut self, around: &Range<GuestVirt>) -> bool {
        let image = ImageParts::find(self.mem, self.kernel);
        self.pages.image_not_told = image.why_not_told().cloned();
        let (mem, tables) = (self.mem, self.kernel.tables);
        let mut entries_left = self.entries_left;
        let mut visitor = |visit| self.visit(visit, &image, around);
        let (first, last) = (tables.upper_half(), GuestVirt(u64::MAX));
        let visited = tables.visit(mem, first, last, &mut entries_left, &mut visitor);
        self.entries_left = entries_left;
        visited.complete
    }

    fn visit(&mut self, visit: Visit, image: &ImageParts, around: &Range<GuestVirt>) -> Descend {
        match visit {
            Visit::Table { phys, from, bytes } => {
                self.table(phys);
                // The direct mapping's smallest pages tell nothing new.
                if bytes == PMD_BYTES && self.direct.contains(&from) {
                    return Descend::Skip;
                }
            }
            Visit::Leaf {
                at,
                phys,
                bytes,
                writable,
            } => {
                let (left, end) = (&mut self.runs_left, self.end);
                if (KERNEL_MAP..IMAGE_END).contains(&at.0) {
                    let list = match image.is_told() || !writable {
                        true => &mut self.pages.image,
                        false => &mut self.pages.image_or_released,
                    };
                    for (offset, bytes) in image.in_use(at, bytes) {
                        push(list, left, GuestPhys(phys.0 + offset), bytes, end);
                    }
                } else if self.direct.contains(&at) {
                    // Everything is mapped there, in use or not.
                } else if around.contains(&at) {
                    push(&mut self.pages.descriptors, left, phys, bytes, end);
                } else {
                    push(&mut self.pages.mapped, left, phys, bytes, end);
                }
            }
        }
        Descend::Into
    }

    fn table(&mut self, phys: GuestPhys) {
        let list = &mut self.pages.tables;
        push(list, &mut self.runs_left, phys, 1 << PAGE_SHIFT, self.end);
    }

    /// Without a virtual memory map, descriptors are where they were allocated.
    fn allocated_descriptors(&mut self, descriptors: &[Range<GuestVirt>]) {
        for range in descriptors {
            if !self.direct.contains(&range.start) {
                continue;
            }
            let (start, bytes) = whole_pages(range);
            let phys = GuestPhys(start - self.direct.start.0);
            let list = &mut self.pages.descriptors;
            push(list, &mut self.runs_left, phys, bytes, self.end);
        }
    }

    /// Tables of the process that a processor was in. False: cap met.
    fn tables_of(&mut self, processor: &Processor) -> bool {
        let own = self.kernel.tables.with_root(processor.cr3);
        let mut entries_left = self.entries_left;
        let complete = user_tables(self.mem, &own, &mut entries_left, &mut |phys| {
            self.table(phys);
        });
        self.entries_left = entries_left;
        complete
    }

    /// The stack that a processor was on, and its per-CPU area.
    fn stack_of(&mut self, processor: &Processor) {
        let upper = self.kernel.tables.upper_half();
        let stack = GuestVirt(processor.rsp.0 & !(STACK_BYTES - 1));
        for (list, start, bytes) in [
            (&mut self.pages.stacks, stack, STACK_BYTES),
            (&mut self.pages.mapped, processor.gs_base, PER_CPU_BYTES),
        ] {
            for offset in (0..bytes).step_by(1 << PAGE_SHIFT) {
                let at = GuestVirt(start.0.wrapping_add(offset));
                if at < upper {
                    continue;
                }
                if let Ok(found) = self.kernel.tables.translate(self.mem, at) {
                    let left = &mut self.runs_left;
                    push(list, left, found.phys, 1 << PAGE_SHIFT, self.end);
                }
            }
        }
    }
}

/// From the lowest address in any of the ranges to the highest.
fn hull(ranges: &[Range<GuestVirt>]) -> Range<GuestVirt> {
    let start = ranges.iter().map(|range| range.start).min();
    let end = ranges.iter().map(|range| range.end).max();
    start.unwrap_or(GuestVirt(0))..end.unwrap_or(GuestVirt(0))
}

/// The pages that a range touches: the first one's address, and how many bytes
/// they have.
fn whole_pages(range: &Range<GuestVirt>) -> (u64, u64) {
    let start = range.start.0 & !(PAGE_SIZE as u64 - 1);
    let bytes = range.end.0.saturating_sub(start);
    (start, bytes.div_ceil(PAGE_SIZE as u64) << PAGE_SHIFT)
}

/// Addresses of the direct mapping; empty when it is not known, so that what it
/// maps counts as in use: then nothing can be left out, which is safe.
fn direct_map(kernel: &Kernel, end: Gfn) -> Range<GuestVirt> {
    let bytes = (end.0 << PAGE_SHIFT).next_multiple_of(PUD_BYTES);
    let range = |start: GuestVirt| Some(start..start.checked_add(bytes)?);
    let none = GuestVirt(0)..GuestVirt(0);
    kernel.direct_map.and_then(range).unwrap_or(none)
}

/// Tables of a process's half, without what they map. False: cap met.
fn user_tables(
    mem: &dyn GuestMemory,
    tables: &PageTables,
    entries_left: &mut u64,
    each: &mut dyn FnMut(GuestPhys),
) -> bool {
    let last = GuestVirt(!tables.upper_half().0);
    let mut visitor = |visit| {
        if let Visit::Table { phys, bytes, .. } = visit {
            each(phys);
            if bytes == PMD_BYTES {
                return Descend::Skip;
            }
        }
        Descend::Into
    };
    tables
        .visit(mem, GuestVirt(0), last, entries_left, &mut visitor)
        .complete
}

/// Notes the pages of `bytes` from `phys` on, as far as memory goes.
fn push(runs: &mut Vec<GfnRange>, left: &mut usize, phys: GuestPhys, bytes: u64, end: Gfn) {
    let start = phys.gfn();
    let stop = Gfn((start.0 + (bytes >> PAGE_SHIFT)).min(end.0));
    if stop <= start {
        return;
    }
    match runs.last_mut() {
        Some(last) if last.end == start => last.end = stop,
        _ if *left == 0 => {}
        _ => {
            *left -= 1;
            runs.push(GfnRange::new(start, stop));
        }
    }
}

#[cfg(test)]
mod tests;
