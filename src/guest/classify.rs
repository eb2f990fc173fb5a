// SPDX-License-Identifier: LGPL-2.1-or-later
//! From page descriptors to verdicts.
//!
//! The order of tests is makedumpfile's, so that a dump level means the same.
//! Where makedumpfile believes a block's first descriptor, the others are asked
//! here too: a block whose pages do not look like it is kept.

use crate::addr::{Gfn, PAGE_SIZE};

use super::layout::{Compound, PageLayout};
use super::page_map::Draft;
use super::verdict::Verdict;

/// Largest compound page that is believed: 1 GiB (`PUD_SIZE`).
const MAX_COMPOUND_ORDER: u64 = 18;

/// `FOLIO_MAPPING_ANON`, before Linux 6.17 `PAGE_MAPPING_ANON`: bit 0 of
/// `mapping` (`include/linux/page-flags.h`).
const ANONYMOUS: u64 = 1;

/// Bytes of a descriptor on x86-64 (`_struct_page_alignment`), and the most that
/// [`PageLayout`] lets through; powers of two.
const USUAL_SIZE: usize = 64;
const LARGEST_SIZE: usize = 256;

/// Counts of a free page within a block: nobody refers to it, nobody maps it.
const FREE_REFCOUNT: u32 = 0;
const UNMAPPED: u32 = u32::MAX;

/// Values of `_mapcount` below this are page types (`PAGE_MAPCOUNT_RESERVE`).
const LOWEST_COUNT: i32 = -128;

/// Descriptors that contradict themselves or their neighbours.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Oddities {
    /// Free blocks with an impossible order or place.
    pub bad_free_blocks: u64,
    /// Blocks with a page in them that does not look like one of the block.
    pub broken_blocks: u64,
    /// Compound pages with an impossible order or place.
    pub bad_compounds: u64,
}

/// A block of which the first descriptor said what all its pages are.
#[derive(Clone, Copy)]
struct Block {
    start: u64,
    end: u64,
    verdict: Verdict,
    inside: Inside,
}

/// What the descriptors after the first must look like.
#[derive(Clone, Copy)]
enum Inside {
    Free,
    Unaccepted,
    /// Tails with this word in common.
    Tails(u64),
    /// Tails whose descriptors the kernel shares between pages; every page of
    /// descriptors may begin like the first one (`page_fixed_fake_head`,
    /// Linux 5.18, commit e7d324850bfc), whose flags these are.
    SharedTails(u64),
}

/// Goes through descriptors in ascending order of pages.
pub struct Classifier {
    layout: PageLayout,
    block: Option<Block>,
    /// Pages to be made unknown again in sections that are finished already.
    retracted: Vec<(Gfn, Gfn)>,
    /// Pages in free blocks.
    pub free_pages: u64,
    /// What did not fit together.
    pub oddities: Oddities,
}

impl Classifier {
    /// A classifier before the first page.
    pub fn new(layout: PageLayout) -> Self {
        Self {
            layout,
            block: None,
            retracted: Vec::new(),
            free_pages: 0,
            oddities: Oddities::default(),
        }
    }

    /// Bytes of one descriptor.
    pub fn descriptor_bytes(&self) -> usize {
        self.layout.size
    }

    /// Number of orders of free blocks.
    pub fn orders(&self) -> u32 {
        self.layout.orders
    }

    /// Runs of pages, first and one past the last, that got a verdict in an
    /// earlier draft and must become unknown.
    pub fn take_retracted(&mut self) -> Vec<(Gfn, Gfn)> {
        std::mem::take(&mut self.retracted)
    }

    /// Classifies the pages from `first` on, one for each descriptor, into the
    /// draft of the section that holds them. `section` is that section's first
    /// page. `first` must be even unless the block before goes on.
    pub fn classify(&mut self, section: Gfn, first: Gfn, descriptors: &[u8], draft: &mut Draft) {
        // Where a descriptor has the usual size, the compiler knows that every
        // offset is within; others are given room.
        if self.layout.size == USUAL_SIZE {
            self.walk::<USUAL_SIZE>(section, first, descriptors, draft);
        } else {
            let mut roomy = Vec::new();
            for descriptor in descriptors.chunks_exact(self.layout.size) {
                roomy.extend(descriptor);
                roomy.resize(roomy.len().next_multiple_of(LARGEST_SIZE), 0);
            }
            self.walk::<LARGEST_SIZE>(section, first, &roomy, draft);
        }
    }

    fn walk<const ROOM: usize>(
        &mut self,
        section: Gfn,
        first: Gfn,
        descriptors: &[u8],
        draft: &mut Draft,
    ) {
        let number = descriptors.len() / ROOM;
        let place = (first.0 - section.0) as usize;
        if self.block.is_some_and(|block| block.end <= first.0) {
            self.block = None;
        }
        let mut index = 0;
        while index < number {
            let Some(block) = self.block else {
                let layout = self.layout;
                let singles = pages::<ROOM>(&descriptors[index * ROOM..]);
                let singles = singles.map_while(|page| single(&layout, page));
                index += draft.set_each(place + index, singles);
                if index < number {
                    let rest = &descriptors[index * ROOM..];
                    let verdict = self.head::<ROOM>(first.0 + index as u64, rest);
                    draft.set(place + index, verdict);
                    index += 1;
                }
                continue;
            };
            let stop = number.min((block.end - first.0) as usize);
            let inside = &descriptors[index * ROOM..stop * ROOM];
            let same = self.count_alike::<ROOM>(&block, first.0 + index as u64, inside);
            draft.fill(place + index..place + index + same, block.verdict);
            index += same;
            if index < stop {
                self.oddities.broken_blocks += 1;
                self.retract(&block, section, first.0 + index as u64, draft);
                self.block = None;
            } else if block.end <= first.0 + index as u64 {
                self.block = None;
            }
        }
    }

    /// Ends the block in progress: the next descriptors cannot be read.
    pub fn interrupt(&mut self, section: Gfn, at: Gfn, draft: &mut Draft) {
        if let Some(block) = self.block.take() {
            if block.end > at.0 {
                self.retract(&block, section, at.0, draft);
            }
        }
    }

    /// Makes what is done of a block unknown.
    fn retract(&mut self, block: &Block, section: Gfn, until: u64, draft: &mut Draft) {
        if block.verdict == Verdict::Free {
            self.free_pages -= block.end - block.start;
        }
        let here = block.start.max(section.0);
        let places = (here - section.0) as usize..(until - section.0) as usize;
        draft.replace(places, Verdict::Unknown);
        if block.start < section.0 {
            self.retracted.push((Gfn(block.start), section));
        }
    }

    /// How many of the descriptors from page `pfn` on look like the inside of
    /// `block`.
    fn count_alike<const ROOM: usize>(&self, block: &Block, pfn: u64, inside: &[u8]) -> usize {
        let layout = &self.layout;
        let pages = pages::<ROOM>(inside);
        match block.inside {
            Inside::Free => pages
                .take_while(|page| {
                    u32_at(page, layout.refcount) == FREE_REFCOUNT
                        && u32_at(page, layout.mapcount) == UNMAPPED
                })
                .count(),
            Inside::Unaccepted => pages
                .take_while(|page| u64_at(page, layout.tail) & 1 == 0)
                .count(),
            Inside::Tails(word) => pages
                .take_while(|page| u64_at(page, layout.tail) == word)
                .count(),
            Inside::SharedTails(head_flags) => {
                let from_head = (pfn - block.start) as usize;
                let per_page = (PAGE_SIZE / layout.size).max(1);
                pages
                    .enumerate()
                    .take_while(|(nth, page)| {
                        u64_at(page, layout.tail) & 1 != 0
                            || ((from_head + nth) % per_page == 0
                                && u64_at(page, layout.flags) == head_flags)
                    })
                    .count()
            }
        }
    }

    /// The verdict on a page on which [`single`] has none; may begin a block.
    fn head<const ROOM: usize>(&mut self, pfn: u64, rest: &[u8]) -> Verdict {
        let layout = &self.layout;
        let Some(page) = pages::<ROOM>(rest).next() else {
            return Verdict::Unknown;
        };
        let flags = u64_at(page, layout.flags);
        let mapcount = u32_at(page, layout.mapcount);
        if (mapcount as i32) < LOWEST_COUNT {
            return self.typed::<ROOM>(pfn, rest, flags, mapcount);
        }
        if flags & layout.bits.slab != 0 {
            return Verdict::Kernel;
        }
        if flags & layout.bits.head != 0 {
            let alone = untyped(layout, page, flags);
            return self.compound::<ROOM>(pfn, rest, flags, mapcount, alone);
        }
        Verdict::Poisoned
    }

    #[cold]
    fn refuse_block(count: &mut u64) -> Verdict {
        *count += 1;
        Verdict::Unknown
    }

    /// A page with a type in place of a map count.
    fn typed<const ROOM: usize>(
        &mut self,
        pfn: u64,
        rest: &[u8],
        flags: u64,
        mapcount: u32,
    ) -> Verdict {
        let layout = &self.layout;
        let Some(page) = pages::<ROOM>(rest).next() else {
            return Verdict::Unknown;
        };
        if layout.buddy.matches(mapcount) {
            let order = u64_at(page, layout.private);
            let fits = order < u64::from(layout.orders) && pfn % (1 << order) == 0;
            if !fits || u32_at(page, layout.refcount) != FREE_REFCOUNT {
                return Self::refuse_block(&mut self.oddities.bad_free_blocks);
            }
            self.free_pages += 1 << order;
            return self.begin(pfn, order, Verdict::Free, Inside::Free);
        }
        let is = |kind: Option<super::layout::PageType>| kind.is_some_and(|k| k.matches(mapcount));
        if is(layout.unaccepted) {
            // Only blocks of the largest order are kept back (add to
            // `zone.unaccepted_pages`, mm/page_alloc.c).
            let order = u64::from(layout.orders - 1);
            if pfn % (1 << order) != 0 {
                return Self::refuse_block(&mut self.oddities.bad_free_blocks);
            }
            return self.begin(pfn, order, Verdict::Unaccepted, Inside::Unaccepted);
        }
        if is(layout.offline) {
            return Verdict::Offline;
        }
        if flags & layout.bits.head != 0 {
            return self.compound::<ROOM>(pfn, rest, flags, mapcount, Verdict::Kernel);
        }
        if flags & layout.bits.poison != 0 {
            return Verdict::Poisoned;
        }
        Verdict::Kernel
    }

    /// The first page of a compound page, which is `alone` but for hugetlb.
    fn compound<const ROOM: usize>(
        &mut self,
        pfn: u64,
        rest: &[u8],
        flags: u64,
        mapcount: u32,
        alone: Verdict,
    ) -> Verdict {
        let layout = &self.layout;
        let Some(tail) = pages::<ROOM>(rest).nth(1) else {
            return Self::refuse_block(&mut self.oddities.bad_compounds);
        };
        let tail_flags = u64_at(tail, layout.flags);
        let (order, hugetlb) = match layout.compound {
            Compound::Tail {
                order,
                destructor,
                hugetlb,
            } => (u64::from(tail[order]), tail[destructor] == hugetlb),
            Compound::Flags { hugetlb } => (tail_flags & 0xff, tail_flags & hugetlb != 0),
            Compound::Type { hugetlb } => (tail_flags & 0xff, hugetlb.matches(mapcount)),
        };
        let verdict = if hugetlb { Verdict::Hugetlb } else { alone };
        if verdict == Verdict::Kernel {
            // Its tails are kept as they come.
            return verdict;
        }
        let word = u64_at(tail, layout.tail);
        let fits = (1..=MAX_COMPOUND_ORDER).contains(&order) && pfn % (1 << order) == 0;
        if !fits || word & 1 == 0 {
            return Self::refuse_block(&mut self.oddities.bad_compounds);
        }
        let inside = if hugetlb {
            Inside::SharedTails(flags)
        } else {
            Inside::Tails(word)
        };
        self.begin(pfn, order, verdict, inside)
    }

    fn begin(&mut self, pfn: u64, order: u64, verdict: Verdict, inside: Inside) -> Verdict {
        if order > 0 {
            self.block = Some(Block {
                start: pfn,
                end: pfn + (1 << order),
                verdict,
                inside,
            });
        }
        verdict
    }
}

/// The verdict on a page that is nothing special: neither free nor of a type, nor
/// first of a compound page, nor broken. These are most, so this is quick.
#[inline]
fn single<const ROOM: usize>(layout: &PageLayout, page: &[u8; ROOM]) -> Option<Verdict> {
    if u64_at(page, layout.tail) & 1 != 0 {
        // Of a compound page that is kept.
        return Some(Verdict::Kernel);
    }
    let flags = u64_at(page, layout.flags);
    let special = layout.bits.slab | layout.bits.head | layout.bits.poison;
    let is_typed = (u32_at(page, layout.mapcount) as i32) < LOWEST_COUNT;
    if is_typed || flags & special != 0 {
        return None;
    }
    Some(untyped(layout, page, flags))
}

/// Page cache, process memory, or the kernel's.
#[inline]
fn untyped<const ROOM: usize>(layout: &PageLayout, page: &[u8; ROOM], flags: u64) -> Verdict {
    let bits = &layout.bits;
    if u64_at(page, layout.mapping) & ANONYMOUS != 0 {
        return Verdict::User;
    }
    let in_swap_cache = bits.swapbacked | bits.swapcache;
    if flags & bits.lru == 0 && flags & in_swap_cache != in_swap_cache {
        return Verdict::Kernel;
    }
    if flags & bits.private != 0 {
        return Verdict::PrivateCache;
    }
    Verdict::Cache
}

fn pages<const ROOM: usize>(descriptors: &[u8]) -> impl Iterator<Item = &[u8; ROOM]> {
    descriptors
        .chunks_exact(ROOM)
        .filter_map(|page| page.try_into().ok())
}

/// The word at `offset`, which was checked to be within a descriptor, and a
/// multiple of 8. Says so once more, in a way that takes no time.
#[inline]
fn u64_at<const ROOM: usize>(page: &[u8; ROOM], offset: usize) -> u64 {
    let offset = offset & (ROOM - 8);
    page[offset..offset + 8]
        .try_into()
        .map_or(0, u64::from_le_bytes)
}

#[inline]
fn u32_at<const ROOM: usize>(page: &[u8; ROOM], offset: usize) -> u32 {
    let offset = offset & (ROOM - 4);
    page[offset..offset + 4]
        .try_into()
        .map_or(0, u32::from_le_bytes)
}

#[cfg(test)]
mod tests;
