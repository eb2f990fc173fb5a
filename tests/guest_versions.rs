// SPDX-License-Identifier: LGPL-2.1-or-later
//! Kernels between those of which there are images: the same guest made by hand,
//! described as each of them would.

mod guests;

use guests::synthetic::{self as made, Guest, Page, KERNEL_PAGE};
use guests::{assert_whole, plan_of};
use vicover::addr::Gfn;
use vicover::guest::verdict::Verdict;

const FRAMES: u64 = 1 << 15;
const HUGE: u64 = 0x3200;

/// A guest with a compound page of order 9 whose head and first tail are given
/// last words by `finish`.
fn verdict_on_huge(describe: impl FnOnce(&mut Guest), finish: impl FnOnce(&mut Guest)) -> Verdict {
    let mut guest = Guest::new(FRAMES);
    describe(&mut guest);
    guest.set_compound(HUGE, 9, KERNEL_PAGE);
    finish(&mut guest);
    guest.write_description();
    let plan = plan_of(&guest);
    assert_eq!(plan.doubts(), []);
    assert_whole(&guest, &plan);
    let verdict = plan.verdict(Gfn(HUGE));
    if verdict != Verdict::Kernel {
        assert_eq!(plan.count_of(verdict), 512);
    }
    verdict
}

#[test]
fn hugetlb_by_destructor_until_6_5() {
    let describe = |guest: &mut Guest| {
        guest.forget("NUMBER(PAGE_HUGETLB_MAPCOUNT_VALUE)");
        guest.line("NUMBER(HUGETLB_PAGE_DTOR)", 2);
        guest.line("OFFSET(page.compound_dtor)", 16);
        guest.line("OFFSET(page.compound_order)", 17);
    };
    let tail = |destructor: u8| {
        move |guest: &mut Guest| {
            let at = guest.descriptor(HUGE + 1);
            guest.write(at + 16, &[destructor, 9]);
        }
    };
    assert_eq!(verdict_on_huge(describe, tail(2)), Verdict::Hugetlb);
    assert_eq!(verdict_on_huge(describe, tail(1)), Verdict::Kernel);
}

#[test]
fn hugetlb_by_destructor_of_the_folio_in_6_3() {
    let describe = |guest: &mut Guest| {
        guest.forget("NUMBER(PAGE_HUGETLB_MAPCOUNT_VALUE)");
        guest.line("NUMBER(HUGETLB_PAGE_DTOR)", 2);
        guest.line("OFFSET(folio._folio_dtor)", 64 + 16);
        guest.line("OFFSET(folio._folio_order)", 64 + 17);
    };
    let tail = |guest: &mut Guest| {
        let at = guest.descriptor(HUGE + 1);
        guest.write(at + 16, &[2, 9]);
    };
    assert_eq!(verdict_on_huge(describe, tail), Verdict::Hugetlb);
}

#[test]
fn hugetlb_by_flag_in_6_6() {
    let describe = |guest: &mut Guest| {
        guest.forget("NUMBER(PAGE_HUGETLB_MAPCOUNT_VALUE)");
        guest.line("NUMBER(PG_hugetlb)", 8);
    };
    let tail = |flags: u64| {
        move |guest: &mut Guest| {
            let at = guest.descriptor(HUGE + 1);
            guest.write_u64(at, flags);
        }
    };
    assert_eq!(
        verdict_on_huge(describe, tail(1 << 8 | 9)),
        Verdict::Hugetlb
    );
    assert_eq!(verdict_on_huge(describe, tail(9)), Verdict::Kernel);
}

#[test]
fn tails_by_another_name_and_with_a_mask_from_7_1() {
    let describe = |guest: &mut Guest| {
        guest.forget("OFFSET(page.compound_head)");
        guest.line("OFFSET(page.compound_info)", 8);
    };
    let finish = |guest: &mut Guest| {
        let anonymous = Page {
            mapping: made::DIRECT_MAP | 1,
            flags: made::HEAD | made::LRU,
            mapcount: 0,
            ..KERNEL_PAGE
        };
        guest.set(HUGE, anonymous);
        for page in HUGE + 1..HUGE + 512 {
            let at = guest.descriptor(page);
            guest.write_u64(at + 8, !0 << 15 | 1);
        }
    };
    assert_eq!(verdict_on_huge(describe, finish), Verdict::User);
}

#[test]
fn page_types_by_single_bits_until_6_11() {
    let mut guest = Guest::new(FRAMES);
    // PAGE_BUDDY_MAPCOUNT_VALUE and PAGE_OFFLINE_MAPCOUNT_VALUE of Linux 6.1.
    guest.line("NUMBER(PAGE_BUDDY_MAPCOUNT_VALUE)", -129);
    guest.line("NUMBER(PAGE_OFFLINE_MAPCOUNT_VALUE)", -257);
    guest.set_free(0x3000, 8);
    let first = guest.descriptor(0x3000);
    guest.write(first + 48, &(-129i32).to_le_bytes());
    let offline = guest.descriptor(0x3100);
    guest.write(offline + 48, &(-257i32).to_le_bytes());
    // Both bits: neither.
    let both = guest.descriptor(0x3101);
    guest.write(both + 48, &(-385i32).to_le_bytes());
    guest.write_description();
    let plan = plan_of(&guest);
    assert_eq!(plan.doubts(), []);
    assert_eq!(plan.count_of(Verdict::Free), 256);
    assert_eq!(plan.verdict(Gfn(0x3100)), Verdict::Offline);
    assert_eq!(plan.verdict(Gfn(0x3101)), Verdict::Kernel);
}

#[test]
fn slab_by_flag_may_look_anonymous_until_6_9() {
    let mut guest = Guest::new(FRAMES);
    guest.forget("NUMBER(PAGE_SLAB_MAPCOUNT_VALUE)");
    guest.line("NUMBER(PG_slab)", 9);
    let slab = Page {
        flags: 1 << 9,
        mapping: made::DIRECT_MAP | 1,
        ..KERNEL_PAGE
    };
    guest.set(0x3000, slab);
    guest.set_compound(0x3008, 3, slab);
    let anonymous = Page { flags: 0, ..slab };
    guest.set(0x3001, anonymous);
    guest.write_description();
    let plan = plan_of(&guest);
    assert_eq!(plan.verdict(Gfn(0x3000)), Verdict::Kernel);
    assert_eq!(plan.verdict(Gfn(0x3008)), Verdict::Kernel);
    assert_eq!(plan.verdict(Gfn(0x3001)), Verdict::User);
}

#[test]
fn unaccepted_memory_from_6_16() {
    let mut guest = Guest::new(FRAMES);
    guest.line(
        "NUMBER(PAGE_UNACCEPTED_MAPCOUNT_VALUE)",
        0xf700_0000u32 as i32,
    );
    let unaccepted = Page {
        mapcount: 0xf700_0000,
        ..KERNEL_PAGE
    };
    guest.set(0x3000, unaccepted);
    // Not where a block of the largest order can begin.
    guest.set(0x3403, unaccepted);
    guest.write_description();
    let plan = plan_of(&guest);
    assert_eq!(plan.count_of(Verdict::Unaccepted), 1024);
    assert_eq!(plan.verdict(Gfn(0x3403)), Verdict::Unknown);
}
