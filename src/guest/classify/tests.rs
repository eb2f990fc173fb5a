// SPDX-License-Identifier: LGPL-2.1-or-later
//! What pages are by their descriptors alone, in whatever pieces these come.

mod blocks;

use std::ops::Range;

use super::*;
use crate::addr::{GfnRange, GuestPhys};
use crate::guest::guests::synthetic::{self as made, Guest, Page, KERNEL_PAGE};
use crate::guest::memory::GuestMemory;
use crate::guest::page_map::{PageMap, SECTION_PAGES};
use crate::guest::vmcoreinfo::VmcoreInfo;

const SECTION: u64 = SECTION_PAGES as u64;
const SWAPCACHE: u64 = 1 << 10;
const UNACCEPTED: u32 = 0xf700_0000;

const ANONYMOUS_PAGE: Page = Page {
    flags: made::LRU | made::SWAPBACKED,
    mapping: made::DIRECT_MAP | 1,
    mapcount: 0,
    ..KERNEL_PAGE
};
const HUGETLB_PAGE: Page = Page {
    mapcount: made::HUGETLB,
    ..KERNEL_PAGE
};
const BUDDY_PAGE: Page = Page {
    mapcount: made::BUDDY,
    refcount: 0,
    ..KERNEL_PAGE
};

/// Descriptors of one section of a guest, on their way through a classifier.
struct Reading<'a> {
    guest: &'a Guest,
    classifier: Classifier,
    draft: Draft,
    section: u64,
}

impl<'a> Reading<'a> {
    fn new(guest: &'a Guest, section: u64) -> Self {
        let info = VmcoreInfo::parse(&guest.text()).expect("a description");
        let layout = PageLayout::new(&info).expect("a layout");
        let mut reading = Self {
            guest,
            classifier: Classifier::new(layout),
            draft: Draft::new(),
            section,
        };
        reading.begin(section);
        reading
    }

    fn begin(&mut self, section: u64) {
        self.section = section;
        self.draft.begin(Gfn(section));
    }

    /// Classifies pages, so many at a time.
    fn pages(&mut self, pages: Range<u64>, at_a_time: usize) {
        let size = self.classifier.descriptor_bytes();
        for first in pages.clone().step_by(at_a_time) {
            let mut bytes = Vec::new();
            for pfn in first..pages.end.min(first + at_a_time as u64) {
                let mut descriptor = [0; LARGEST_SIZE];
                let at = GuestPhys(self.guest.descriptor(pfn));
                self.guest.read(at, &mut descriptor[..64]).expect("RAM");
                bytes.extend(&descriptor[..size]);
            }
            let (section, first) = (Gfn(self.section), Gfn(first));
            let draft = &mut self.draft;
            self.classifier.classify(section, first, &bytes, draft);
        }
    }

    fn interrupt(&mut self, at: u64) {
        let (section, draft) = (Gfn(self.section), &mut self.draft);
        self.classifier.interrupt(section, Gfn(at), draft);
    }

    /// The section's verdicts: how many pages in a row have each.
    fn verdicts(&mut self, pages: Range<u64>) -> Vec<(u64, Verdict)> {
        let mut map = PageMap::new(Gfn(self.section + SECTION));
        map.finish(&mut self.draft);
        let runs = map.runs(GfnRange::new(Gfn(pages.start), Gfn(pages.end)));
        runs.map(|(run, verdict)| (run.len(), verdict)).collect()
    }
}

/// Something of each kind from page `base` on, and what it is.
fn set_mixture(guest: &mut Guest, base: u64) -> Vec<(u64, Verdict)> {
    use Verdict::*;
    guest.set_cache(base);
    guest.set_free(base + 2, 1);
    guest.set_free(base + 4, 0);
    guest.set_free(base + 5, 0);
    guest.set_free(base + 8, 3);
    guest.set_compound(base + 16, 3, ANONYMOUS_PAGE);
    guest.set_compound(base + 24, 3, HUGETLB_PAGE);
    guest.set(base + 32, ANONYMOUS_PAGE);
    guest.set(base + 33, ANONYMOUS_PAGE);
    let slab = Page {
        mapcount: made::SLAB,
        mapping: 1,
        ..KERNEL_PAGE
    };
    guest.set_compound(base + 34, 1, slab);
    let offline = Page {
        mapcount: made::OFFLINE,
        ..KERNEL_PAGE
    };
    guest.set(base + 36, offline);
    let poisoned = Page {
        flags: made::POISON | made::LRU,
        ..KERNEL_PAGE
    };
    guest.set(base + 37, poisoned);
    let buffers = Page {
        flags: made::LRU | made::PG_PRIVATE,
        ..KERNEL_PAGE
    };
    guest.set_compound(base + 40, 2, buffers);
    guest.set_free(base + 64, 5);
    guest.set_compound(base + 96, 5, HUGETLB_PAGE);
    vec![
        (1, Cache),
        (1, Kernel),
        (4, Free),
        (2, Kernel),
        (8, Free),
        (8, User),
        (8, Hugetlb),
        (2, User),
        (2, Kernel),
        (1, Offline),
        (1, Poisoned),
        (2, Kernel),
        (4, PrivateCache),
        (20, Kernel),
        (32, Free),
        (32, Hugetlb),
    ]
}

#[test]
fn pieces_make_no_difference() {
    let mut guest = Guest::new(2 * SECTION);
    for base in [0, 0x4000, SECTION, SECTION + 0x200] {
        let expected = set_mixture(&mut guest, base);
        for at_a_time in [2, 4, 6, 10, 64, 128] {
            let mut reading = Reading::new(&guest, base / SECTION * SECTION);
            reading.pages(base..base + 128, at_a_time);
            let found = reading.verdicts(base..base + 128);
            assert_eq!(found, expected, "{at_a_time} pages from {base:#x} on");
            assert_eq!(reading.classifier.free_pages, 44);
            assert_eq!(reading.classifier.oddities, Oddities::default());
        }
    }
}

#[test]
fn descriptors_may_have_other_sizes() {
    let mut guest = Guest::new(SECTION);
    let expected = set_mixture(&mut guest, 0x100);
    for size in [56, 64, 72, 256] {
        guest.line("SIZE(page)", size);
        let mut reading = Reading::new(&guest, 0);
        reading.pages(0x100..0x180, 64);
        assert_eq!(reading.verdicts(0x100..0x180), expected, "{size} bytes");
    }
}

const fn flags(flags: u64) -> Page {
    Page {
        flags,
        ..KERNEL_PAGE
    }
}

const fn typed(mapcount: u32, flags: u64) -> Page {
    Page {
        flags,
        mapcount,
        ..ANONYMOUS_PAGE
    }
}

#[rustfmt::skip]
const SINGLE: [(Page, Verdict); 24] = [
    (KERNEL_PAGE, Verdict::Kernel),
    (flags(made::LRU), Verdict::Cache),
    (flags(made::LRU | made::PG_PRIVATE), Verdict::PrivateCache),
    (flags(made::PG_PRIVATE), Verdict::Kernel),
    (flags(SWAPCACHE), Verdict::Kernel),
    (flags(made::SWAPBACKED), Verdict::Kernel),
    (flags(SWAPCACHE | made::SWAPBACKED), Verdict::Cache),
    (flags(made::LRU | made::SWAPBACKED), Verdict::Cache),
    (flags(made::LRU | made::POISON), Verdict::Poisoned),
    (flags(made::POISON), Verdict::Poisoned),
    // A tail, and addresses that are none of a tail or of anonymous memory.
    (Page { tail: 1, ..flags(made::LRU) }, Verdict::Kernel),
    (Page { tail: 0x18, ..flags(made::LRU) }, Verdict::Cache),
    (Page { mapping: 0x18, ..flags(made::LRU) }, Verdict::Cache),
    (ANONYMOUS_PAGE, Verdict::User),
    (Page { flags: 0, ..ANONYMOUS_PAGE }, Verdict::User),
    // The lowest count, and the highest value that is a type.
    (typed(-128i32 as u32, 0), Verdict::User),
    (typed(-129i32 as u32, 0), Verdict::Kernel),
    (typed(made::SLAB, 0), Verdict::Kernel),
    (typed(made::SLAB, made::LRU), Verdict::Kernel),
    (typed(made::SLAB, made::POISON), Verdict::Poisoned),
    (typed(made::OFFLINE, 0), Verdict::Offline),
    (typed(made::OFFLINE, made::POISON), Verdict::Offline),
    // First of no compound page, whatever the next one says.
    (typed(made::HUGETLB, 0), Verdict::Kernel),
    (Page { tail: 1, ..flags(1) }, Verdict::Kernel),
];

#[test]
fn single_pages_are_what_their_flags_and_types_say() {
    let mut guest = Guest::new(SECTION);
    for (pfn, (page, _)) in (0..).zip(SINGLE) {
        guest.set(pfn, page);
    }
    let mut reading = Reading::new(&guest, 0);
    reading.pages(0..SINGLE.len() as u64, SINGLE.len());
    assert_eq!(reading.classifier.oddities, Oddities::default());
    for (pfn, (_, verdict)) in (0..).zip(SINGLE) {
        let found = reading.verdicts(pfn..pfn + 1);
        assert_eq!(found, [(1, verdict)], "case {pfn}");
    }
}

#[test]
fn a_type_needs_no_page_behind_it() {
    let mut guest = Guest::new(SECTION);
    let slab = Page {
        mapcount: made::SLAB,
        ..KERNEL_PAGE
    };
    guest.set(0x101, slab);
    let mut reading = Reading::new(&guest, 0);
    reading.pages(0x100..0x102, 2);
    assert_eq!(reading.classifier.oddities, Oddities::default());
    assert_eq!(reading.verdicts(0x100..0x102), [(2, Verdict::Kernel)]);
}

#[test]
fn flags_that_are_one_bit_by_the_description_are_each_believed() {
    use Verdict::*;
    let verdict = |guest: &Guest, pfn| {
        let mut reading = Reading::new(guest, 0);
        reading.pages(pfn..pfn + 2, 2);
        reading.verdicts(pfn..pfn + 1)[0].1
    };
    let mut guest = Guest::new(SECTION);
    guest.set(2, flags(made::SWAPBACKED));
    guest.set(4, flags(made::HEAD | made::LRU));
    guest.line("NUMBER(PG_swapcache)", 17);
    assert_eq!([0, 2].map(|pfn| verdict(&guest, pfn)), [Kernel, Cache]);
    // Not first of a compound page: the next one is no tail.
    assert_eq!(verdict(&guest, 4), Unknown);
    guest.line("NUMBER(PG_hwpoison)", 6);
    assert_eq!(verdict(&guest, 4), Unknown);
    guest.line("NUMBER(PG_hwpoison)", 20);
    guest.forget("NUMBER(PAGE_SLAB_MAPCOUNT_VALUE)");
    guest.line("NUMBER(PG_slab)", 6);
    assert_eq!(verdict(&guest, 4), Kernel);
    guest.line("NUMBER(PG_slab)", 20);
    guest.set(6, flags(made::POISON | made::LRU));
    assert_eq!(verdict(&guest, 6), Kernel);
}
