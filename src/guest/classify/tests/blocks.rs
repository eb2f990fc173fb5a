// SPDX-License-Identifier: LGPL-2.1-or-later
//! Blocks of pages: what breaks them, and what is taken back of those that are broken.

use super::*;

/// A block of eight pages, of which the sixth is changed to `other`; checks that
/// pages before that are unknown, that it is `own`, and those behind are `rest`.
fn assert_broken(set: impl Fn(&mut Guest, u64), other: Page, own: Verdict, rest: Verdict) {
    use Verdict::{Free, Kernel, Unknown};
    let mut guest = Guest::new(2 * SECTION);
    guest.line("LENGTH(zone.free_area)", 4);
    let unaccepted = "NUMBER(PAGE_UNACCEPTED_MAPCOUNT_VALUE)";
    guest.line(unaccepted, UNACCEPTED as i32);
    for base in [0, 0x100, SECTION, SECTION + 0x100] {
        guest.set_free(base + 4, 2);
        set(&mut guest, base + 8);
        guest.set(base + 13, other);
        for at_a_time in [2, 6, 16] {
            let mut reading = Reading::new(&guest, base / SECTION * SECTION);
            reading.pages(base + 4..base + 20, at_a_time);
            let mut expected: Vec<(u64, Verdict)> = vec![(4, Free), (5, Unknown)];
            for (pages, verdict) in [(1, own), (2, rest), (4, Kernel)] {
                match expected.last_mut() {
                    Some((number, same)) if *same == verdict => *number += pages,
                    _ => expected.push((pages, verdict)),
                }
            }
            assert_eq!(reading.verdicts(base + 4..base + 20), expected);
            let free = 4 + u64::from(own == Free);
            assert_eq!(reading.classifier.free_pages, free);
            let broken = Oddities {
                broken_blocks: 1,
                ..Oddities::default()
            };
            assert_eq!(reading.classifier.oddities, broken);
            assert_eq!(reading.classifier.take_retracted(), []);
        }
    }
}

#[test]
fn a_block_with_a_page_of_another_kind_in_it_is_unknown_until_there() {
    use Verdict::*;
    let free = |guest: &mut Guest, at| guest.set_free(at, 3);
    let in_use = Page {
        mapcount: made::NO_TYPE,
        refcount: 1,
        ..KERNEL_PAGE
    };
    assert_broken(free, in_use, Kernel, Kernel);
    let mapped = Page {
        mapcount: 0,
        refcount: 0,
        ..ANONYMOUS_PAGE
    };
    assert_broken(free, mapped, User, Kernel);
    assert_broken(free, BUDDY_PAGE, Free, Kernel);
    let user = |guest: &mut Guest, at| guest.set_compound(at, 3, ANONYMOUS_PAGE);
    let tail_of_another = Page {
        tail: made::VMEMMAP + 1,
        ..KERNEL_PAGE
    };
    assert_broken(user, tail_of_another, Kernel, Kernel);
    let hugetlb = |guest: &mut Guest, at| guest.set_compound(at, 3, HUGETLB_PAGE);
    assert_broken(hugetlb, ANONYMOUS_PAGE, User, Kernel);
    let unaccepted = |guest: &mut Guest, at| {
        let first = Page {
            mapcount: UNACCEPTED,
            ..KERNEL_PAGE
        };
        guest.set(at, first);
    };
    assert_broken(unaccepted, tail_of_another, Kernel, Kernel);
}

#[test]
fn huge_pages_may_share_the_descriptors_of_their_tails() {
    use Verdict::*;
    let head = 0x200;
    let fake_head = Page {
        flags: made::HEAD,
        tail: 0x10,
        ..HUGETLB_PAGE
    };
    let found = |size: u64, places: &[u64], page: Page| {
        let mut guest = Guest::new(SECTION);
        guest.line("SIZE(page)", size);
        guest.set_compound(head, 8, HUGETLB_PAGE);
        for place in places {
            guest.set(head + place, page);
        }
        [2, 128, 256].map(|at_a_time| {
            let mut reading = Reading::new(&guest, 0);
            reading.pages(head..head + 256, at_a_time);
            let broken = reading.classifier.oddities.broken_blocks;
            (reading.verdicts(head..head + 1)[0], broken)
        })
    };
    // Each page of descriptors may begin like the first one.
    let whole = ((1, Hugetlb), 0);
    assert_eq!(found(64, &[64, 128, 192], fake_head), [whole; 3]);
    assert_eq!(found(56, &[73, 146, 219], fake_head), [whole; 3]);
    let broken = ((1, Unknown), 1);
    for place in [2, 32, 63, 65, 136] {
        assert_eq!(found(64, &[place], fake_head), [broken; 3], "{place}");
    }
    let other_flags = Page {
        flags: made::HEAD | made::LRU,
        ..fake_head
    };
    assert_eq!(found(64, &[64], other_flags), [broken; 3]);
    // Tails of others are not shared.
    let other_tail = Page {
        tail: 0x10,
        ..ANONYMOUS_PAGE
    };
    assert_eq!(found(64, &[64], other_tail), [broken; 3]);
}

/// The verdict on a page and the one behind it, how many pages are free, and how many
/// free blocks and compound pages are refused.
fn refused(set: impl Fn(&mut Guest), pfn: u64) -> (Verdict, u64, u64, u64) {
    let mut guest = Guest::new(SECTION);
    let unaccepted = "NUMBER(PAGE_UNACCEPTED_MAPCOUNT_VALUE)";
    guest.line(unaccepted, UNACCEPTED as i32);
    set(&mut guest);
    let mut reading = Reading::new(&guest, 0);
    reading.pages(pfn..pfn + 2, 2);
    let oddities = reading.classifier.oddities;
    assert_eq!(oddities.broken_blocks, 0);
    let free = reading.classifier.free_pages;
    let verdict = reading.verdicts(pfn..pfn + 1)[0].1;
    (
        verdict,
        free,
        oddities.bad_free_blocks,
        oddities.bad_compounds,
    )
}

#[test]
fn free_blocks_that_cannot_be_are_unknown() {
    use Verdict::*;
    let free = |pfn, order| {
        let first = Page {
            private: order,
            ..BUDDY_PAGE
        };
        let set = |guest: &mut Guest| {
            guest.set_free(pfn, 1);
            guest.set(pfn, first);
        };
        refused(set, pfn)
    };
    assert_eq!(free(0x400, 10), (Free, 1024, 0, 0));
    assert_eq!(free(0x800, 11), (Unknown, 0, 1, 0));
    assert_eq!(free(0x404, 2), (Free, 4, 0, 0));
    assert_eq!(free(0x404, 3), (Unknown, 0, 1, 0));
    let in_use = Page {
        refcount: 1,
        ..BUDDY_PAGE
    };
    let found = refused(|guest| guest.set(0x404, in_use), 0x404);
    assert_eq!(found, (Unknown, 0, 1, 0));
    let unaccepted = |pfn| {
        let page = Page {
            mapcount: UNACCEPTED,
            ..KERNEL_PAGE
        };
        refused(|guest| guest.set(pfn, page), pfn)
    };
    assert_eq!(unaccepted(0x400), (Unaccepted, 0, 0, 0));
    assert_eq!(unaccepted(0x600), (Unknown, 0, 1, 0));
}

#[test]
fn compound_pages_that_cannot_be_are_unknown() {
    use Verdict::*;
    let compound = |pfn, order, first: Page| {
        let set = |guest: &mut Guest| {
            guest.set_compound(pfn, 1, first);
            let tail = guest.descriptor(pfn + 1);
            guest.write_u64(tail, order);
        };
        refused(set, pfn)
    };
    assert_eq!(compound(0, 18, HUGETLB_PAGE), (Hugetlb, 0, 0, 0));
    assert_eq!(compound(0, 19, HUGETLB_PAGE), (Unknown, 0, 0, 1));
    assert_eq!(compound(0x40, 6, ANONYMOUS_PAGE), (User, 0, 0, 0));
    assert_eq!(compound(0x40, 7, ANONYMOUS_PAGE), (Unknown, 0, 0, 1));
    assert_eq!(compound(0x40, 0, ANONYMOUS_PAGE), (Unknown, 0, 0, 1));
    // The lowest count is no type, which would be the kernel's.
    let counted = Page {
        mapcount: -128i32 as u32,
        ..ANONYMOUS_PAGE
    };
    assert_eq!(compound(0x40, 6, counted), (User, 0, 0, 0));
    // Whatever order the kernel's own have.
    assert_eq!(compound(0x40, 7, KERNEL_PAGE), (Kernel, 0, 0, 0));
    let without_tail = |guest: &mut Guest| {
        guest.set_compound(0x40, 1, ANONYMOUS_PAGE);
        let tail = Page {
            flags: 1,
            tail: made::VMEMMAP,
            ..KERNEL_PAGE
        };
        guest.set(0x41, tail);
    };
    assert_eq!(refused(without_tail, 0x40), (Unknown, 0, 0, 1));
}

#[test]
fn a_block_whose_rest_cannot_be_read_is_unknown() {
    use Verdict::*;
    let mut guest = Guest::new(2 * SECTION);
    guest.set_free(0, 1);
    guest.set_free(8, 3);
    guest.set_free(SECTION + 8, 3);
    for section in [0, SECTION] {
        let at = section + 8;
        let mut reading = Reading::new(&guest, section);
        reading.pages(at..at + 4, 4);
        assert_eq!(reading.classifier.free_pages, 8);
        reading.interrupt(at + 4);
        assert_eq!(reading.classifier.free_pages, 0);
        assert_eq!(reading.verdicts(at..at + 4), [(4, Unknown)]);
        assert_eq!(reading.classifier.take_retracted(), []);
    }
    // One that has ended by then, or without any of its descriptors missed.
    for (pages, at) in [(8..16, 16), (8..12, 16), (8..12, 20)] {
        let mut reading = Reading::new(&guest, 0);
        reading.pages(0..2, 2);
        reading.pages(pages, 4);
        reading.interrupt(at);
        assert_eq!(reading.classifier.free_pages, 10);
        assert_eq!(reading.verdicts(8..12), [(4, Free)]);
        reading.pages(at..at + 2, 2);
        assert_eq!(reading.verdicts(at..at + 2), [(2, Kernel)]);
        assert_eq!(reading.classifier.oddities, Oddities::default());
    }
}

#[test]
fn a_block_from_an_earlier_section_is_taken_back_there_too() {
    use Verdict::*;
    let mut guest = Guest::new(2 * SECTION);
    guest.set_compound(0, 16, HUGETLB_PAGE);
    guest.set(2 * SECTION - 2, KERNEL_PAGE);
    let until = |reading: &mut Reading<'_>, end| {
        reading.pages(0..SECTION, 4096);
        assert_eq!(reading.verdicts(0..SECTION), [(SECTION, Hugetlb)]);
        assert_eq!(reading.classifier.take_retracted(), []);
        reading.begin(SECTION);
        reading.pages(SECTION..end, 4096);
    };
    let earlier = [(Gfn(0), Gfn(SECTION))];
    for unread in [SECTION, SECTION + 0x100] {
        let mut reading = Reading::new(&guest, 0);
        until(&mut reading, unread);
        reading.interrupt(unread);
        assert_eq!(reading.classifier.take_retracted(), earlier);
        let found = reading.verdicts(SECTION..2 * SECTION);
        assert_eq!(found, [(SECTION, Unknown)]);
    }
    // Or one of its last pages is none of its.
    let mut reading = Reading::new(&guest, 0);
    until(&mut reading, 2 * SECTION);
    assert_eq!(reading.classifier.take_retracted(), earlier);
    assert_eq!(
        reading.verdicts(SECTION..2 * SECTION),
        [(SECTION - 2, Unknown), (2, Kernel)]
    );
    // A block that begins where a section does has nothing earlier.
    guest.set_free(SECTION, 3);
    let mut reading = Reading::new(&guest, SECTION);
    reading.pages(SECTION..SECTION + 4, 4);
    reading.interrupt(SECTION + 4);
    assert_eq!(reading.classifier.take_retracted(), []);
}
