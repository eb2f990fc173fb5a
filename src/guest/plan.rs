// SPDX-License-Identifier: LGPL-2.1-or-later
//! What to dump, in which order, and what can be given back at once.

use crate::addr::{Gfn, GfnRange, GuestPhys, GuestVirt, PAGE_SHIFT};

use super::arch::x86_64::Processor;
use super::classify::{Classifier, Oddities};
use super::doubt::Doubt;
use super::image::seems_in_use;
use super::kallsyms::KallsymsError;
use super::kernel::Kernel;
use super::kernel_pages::{kernel_pages, KernelPages};
use super::layout::PageLayout;
use super::limits::Limits;
use super::locate::Located;
use super::log::{Log, LogError};
use super::memory::GuestMemory;
use super::page_map::PageMap;
use super::sections::{sections, MemorySection};
use super::verdict::{DumpLevel, Verdict};
use super::walk::classify_all;
use super::zones::free_pages;

/// A part of the dump that is written before the rest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Part {
    /// VMCOREINFO.
    Notes,
    /// The kernel's log buffer.
    Log,
    /// Stacks that processors were on.
    Stacks,
    /// Page tables.
    PageTables,
    /// Page descriptors.
    Descriptors,
}

/// What was missed while a plan was made, and changes little.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Noticed {
    /// The log buffer was not found.
    #[error("the kernel's log is not dumped first: {0}")]
    Log(LogError),
    /// What the kernel gave back of its image is not told.
    #[error("all of the kernel's image that seems in use is dumped: {0}")]
    Image(KallsymsError),
}

/// The plan for one guest.
pub struct Plan {
    map: PageMap,
    ram: Vec<GfnRange>,
    asked: DumpLevel,
    level: DumpLevel,
    doubts: Vec<Doubt>,
    noticed: Vec<Noticed>,
    first: Vec<(Part, Vec<GfnRange>)>,
    /// All ranges of `first`, ascending.
    placed: Vec<GfnRange>,
    counts: [u64; Verdict::ALL.len()],
    oddities: Oddities,
    guest_free_pages: Option<u64>,
}

impl Plan {
    /// A plan that keeps every page, for a guest of which nothing is known.
    pub fn everything(mem: &dyn GuestMemory, asked: DumpLevel, doubt: Doubt) -> Self {
        let mut plan = Self::new(mem, asked, PageMap::new(Gfn(0)));
        plan.doubt(doubt);
        plan.count();
        plan
    }

    fn new(mem: &dyn GuestMemory, asked: DumpLevel, map: PageMap) -> Self {
        Self {
            map,
            ram: mem.ram().to_vec(),
            asked,
            level: asked,
            doubts: Vec::new(),
            noticed: Vec::new(),
            first: Vec::new(),
            placed: Vec::new(),
            counts: [0; Verdict::ALL.len()],
            oddities: Oddities::default(),
            guest_free_pages: None,
        }
    }

    /// The level that was asked for.
    pub fn asked(&self) -> DumpLevel {
        self.asked
    }

    /// The level that is used: the one asked for, or a safer one because of
    /// [`Plan::doubts`].
    pub fn level(&self) -> DumpLevel {
        self.level
    }

    /// Why the guest's word is not fully believed.
    pub fn doubts(&self) -> &[Doubt] {
        &self.doubts
    }

    /// What was missed and changes little.
    pub fn noticed(&self) -> &[Noticed] {
        &self.noticed
    }

    /// Descriptors that did not fit together; their pages are kept.
    pub fn oddities(&self) -> Oddities {
        self.oddities
    }

    /// Free pages by the guest's own count.
    pub fn guest_free_pages(&self) -> Option<u64> {
        self.guest_free_pages
    }

    /// The verdict on one page.
    pub fn verdict(&self, gfn: Gfn) -> Verdict {
        self.map.get(gfn)
    }

    /// Whether the dump leaves out a page whatever its bytes are. Pages of
    /// zeroes are a matter of their bytes and of [`DumpLevel::excludes_zero`].
    pub fn is_excluded(&self, gfn: Gfn) -> bool {
        self.level.excludes(self.map.get(gfn))
    }

    /// Number of pages of RAM with this verdict.
    pub fn count_of(&self, verdict: Verdict) -> u64 {
        self.counts[verdict as usize]
    }

    /// Pages of RAM.
    pub fn pages(&self) -> u64 {
        self.ram.iter().map(GfnRange::len).sum()
    }

    /// Pages of RAM that the dump leaves out whatever their bytes are.
    pub fn excluded_pages(&self) -> u64 {
        let excluded = |verdict: &&Verdict| self.level.excludes(**verdict);
        let left_out = Verdict::ALL.iter().filter(excluded);
        left_out.map(|&verdict| self.count_of(verdict)).sum()
    }

    /// Runs of RAM that are left out, ascending: what can be given back before
    /// anything is written.
    pub fn excluded(&self) -> impl Iterator<Item = GfnRange> + '_ {
        self.ram_runs(|level, verdict| level.excludes(verdict))
    }

    /// Runs of RAM with this verdict, ascending.
    pub fn runs_of(&self, verdict: Verdict) -> impl Iterator<Item = GfnRange> + '_ {
        self.ram_runs(move |_, of| of == verdict)
    }

    /// Runs of RAM that are dumped, each page once, in the order in which they are.
    pub fn kept(&self) -> impl Iterator<Item = GfnRange> + '_ {
        let first = self.first.iter().flat_map(|(_, ranges)| ranges).copied();
        let rest = self
            .ram_runs(|level, verdict| !level.excludes(verdict))
            .flat_map(|range| self.not_placed(range));
        first.chain(rest)
    }

    /// Runs of RAM that are dumped, each page once, most useful first: what is dumped
    /// first, then what no level leaves out, then what programs had, page cache, and
    /// free pages.
    pub fn by_usefulness(&self) -> impl Iterator<Item = GfnRange> + '_ {
        const PARTS: [Option<u8>; 5] = [
            None,
            Some(DumpLevel::USER),
            Some(DumpLevel::PRIVATE_CACHE),
            Some(DumpLevel::CACHE),
            Some(DumpLevel::FREE),
        ];
        let first = self.first.iter().flat_map(|(_, ranges)| ranges).copied();
        let of_part = |part: Option<u8>| {
            self.ram_runs(move |level, verdict| !level.excludes(verdict) && verdict.part() == part)
        };
        let rest = PARTS.into_iter().flat_map(of_part);
        first.chain(rest.flat_map(|range| self.not_placed(range)))
    }

    /// The parts that are dumped first, in their order.
    pub fn first_parts(&self) -> &[(Part, Vec<GfnRange>)] {
        &self.first
    }

    /// Bytes of memory that the plan takes.
    pub fn bytes(&self) -> usize {
        let ranges = self.placed.capacity() * 2;
        self.map.bytes() + ranges * size_of::<GfnRange>()
    }

    fn ram_runs(
        &self,
        which: impl Fn(DumpLevel, Verdict) -> bool + Copy + 'static,
    ) -> impl Iterator<Item = GfnRange> + '_ {
        let level = self.level;
        let mut runs = self
            .ram
            .iter()
            .flat_map(|&range| self.map.runs(range))
            .filter(move |&(_, verdict)| which(level, verdict))
            .map(|(range, _)| range)
            .peekable();
        std::iter::from_fn(move || {
            let mut run = runs.next()?;
            while let Some(next) = runs.next_if(|next| next.start == run.end) {
                run.end = next.end;
            }
            Some(run)
        })
    }

    /// What is left of a run without the parts that come first.
    fn not_placed(&self, run: GfnRange) -> Vec<GfnRange> {
        let from = self.placed.partition_point(|range| range.end <= run.start);
        let mut rest = Vec::new();
        let mut next = run.start;
        for placed in &self.placed[from..] {
            if placed.start >= run.end {
                break;
            }
            rest.push(GfnRange::new(next, placed.start));
            next = placed.end;
        }
        rest.push(GfnRange::new(next, run.end));
        rest.retain(|range| !range.is_empty());
        rest
    }

    fn doubt(&mut self, doubt: Doubt) {
        self.level = self.level.without(doubt.distrusted());
        self.doubts.push(doubt);
    }

    fn count(&mut self) {
        self.counts = [0; Verdict::ALL.len()];
        for &range in &self.ram {
            for (run, verdict) in self.map.runs(range) {
                self.counts[verdict as usize] += run.len();
            }
        }
    }

    /// Puts a part before the rest: those of its pages that are RAM, are kept,
    /// and are in no part yet.
    fn place(&mut self, part: Part, ranges: &[GfnRange]) {
        let mut sorted = ranges.to_vec();
        sorted.sort_by_key(|range| range.start);
        let mut fresh: Vec<GfnRange> = Vec::new();
        for range in sorted {
            let from = fresh
                .last()
                .map_or(range.start, |last| last.end.max(range.start));
            let ram = std::mem::take(&mut self.ram);
            for ram in &ram {
                let common = GfnRange::new(from.max(ram.start), range.end.min(ram.end));
                for (run, verdict) in self.map.runs(common) {
                    if !self.level.excludes(verdict) {
                        fresh.extend(self.not_placed(run));
                    }
                }
            }
            self.ram = ram;
        }
        fresh.dedup_by(|next, last| {
            let joins = last.end == next.start;
            if joins {
                last.end = next.end;
            }
            joins
        });
        self.placed.extend(&fresh);
        self.placed.sort_by_key(|range| range.start);
        self.first.push((part, fresh));
    }
}

/// Makes the plan for a guest whose kernel was found.
pub fn build(
    mem: &dyn GuestMemory,
    located: &Located,
    processors: &[Processor],
    asked: DumpLevel,
    limits: &Limits<'_>,
) -> Plan {
    let kernel = &located.kernel;
    let layout = match PageLayout::new(&kernel.info) {
        Ok(layout) => layout,
        Err(error) => return Plan::everything(mem, asked, Doubt::Layout(error)),
    };
    let sections = match sections(mem, kernel, layout.size) {
        Ok(sections) => sections,
        Err(error) => return Plan::everything(mem, asked, Doubt::Sections(error)),
    };
    let mut classifier = Classifier::new(layout);
    let mut map = PageMap::new(mem.end());
    if !classify_all(mem, kernel, &sections, &mut classifier, &mut map, limits) {
        return Plan::everything(mem, asked, Doubt::GaveUp);
    }
    let mut plan = Plan::new(mem, asked, map);
    plan.oddities = classifier.oddities;

    let pages = kernel_pages(
        mem,
        kernel,
        processors,
        &descriptor_addresses(&sections, &layout),
    );
    plan.noticed
        .extend(pages.image_not_told.clone().map(Noticed::Image));
    protect(&mut plan, &pages);
    check_totals(mem, kernel, &classifier, &mut plan);
    plan.count();
    set_order(mem, located, &pages, &mut plan);
    plan
}

/// Where each section's descriptors are.
fn descriptor_addresses(
    sections: &[MemorySection],
    layout: &PageLayout,
) -> Vec<std::ops::Range<GuestVirt>> {
    let bytes = |section: &MemorySection| section.pages.len() * layout.size as u64;
    sections
        .iter()
        .map(|section| {
            let start = section.descriptors;
            start..GuestVirt(start.0.saturating_add(bytes(section)))
        })
        .collect()
}

/// Overrides descriptors with what the kernel's page tables say. A page that is
/// said to be poisoned stays left out: to read one can bring the host down.
fn protect(plan: &mut Plan, pages: &KernelPages) {
    if !pages.complete {
        plan.doubt(Doubt::PageTables);
    }
    let every_level = DumpLevel::DEFAULT;
    let image = pages.image_or_released.iter();
    let image: Vec<_> = image
        .flat_map(|&range| seems_in_use(&plan.map, range))
        .collect();
    for range in pages.in_use().chain(image) {
        plan.map.change(range, Verdict::NeverExclude, |verdict| {
            verdict != Verdict::Poisoned && every_level.excludes(verdict)
        });
    }
    if plan.map.overflowed() {
        plan.doubt(Doubt::TooFragmented);
    }
}

/// A processor that stopped while it moved blocks can leave the count this far
/// from the truth: one block of each order, twice.
fn tolerance(orders: u32) -> u64 {
    2 << orders
}

fn check_totals(mem: &dyn GuestMemory, kernel: &Kernel, classifier: &Classifier, plan: &mut Plan) {
    let found = classifier.free_pages;
    match free_pages(mem, kernel) {
        Err(error) => plan.doubt(Doubt::Zones(error)),
        Ok(counted) => {
            plan.guest_free_pages = Some(counted);
            if found.abs_diff(counted) > tolerance(classifier.orders()) {
                plan.doubt(Doubt::FreePages { found, counted });
            }
        }
    }
}

fn set_order(mem: &dyn GuestMemory, located: &Located, pages: &KernelPages, plan: &mut Plan) {
    let two = |gfn: Gfn| GfnRange::new(gfn, Gfn(gfn.0 + 2));
    let notes: Vec<_> = located.copies.iter().map(|copy| two(copy.gfn)).collect();
    plan.place(Part::Notes, &notes);
    let kernel = &located.kernel;
    match Log::find(mem, kernel) {
        Ok(log) => plan.place(Part::Log, &log_pages(mem, kernel, &log)),
        Err(error) => plan.noticed.push(Noticed::Log(error)),
    }
    plan.place(Part::Stacks, &pages.stacks);
    plan.place(Part::PageTables, &pages.tables);
    plan.place(Part::Descriptors, &pages.descriptors);
}

fn log_pages(mem: &dyn GuestMemory, kernel: &Kernel, log: &Log<'_>) -> Vec<GfnRange> {
    let mut pages = Vec::new();
    for (start, bytes) in log.parts() {
        let mut done = 0;
        while done < bytes {
            let at = GuestVirt(start.0.wrapping_add(done));
            let Ok(found) = kernel.tables.translate(mem, at) else {
                break;
            };
            let part = found.mapped.min(bytes - done);
            pages.push(pages_of(found.phys, part));
            done += part;
        }
    }
    pages
}

/// Pages that `bytes` bytes from `phys` on touch.
fn pages_of(phys: GuestPhys, bytes: u64) -> GfnRange {
    let last = GuestPhys(phys.0 + bytes - 1).gfn();
    debug_assert!(bytes <= 1 << (PAGE_SHIFT + 18));
    GfnRange::new(phys.gfn(), Gfn(last.0 + 1))
}

#[cfg(test)]
mod tests;
