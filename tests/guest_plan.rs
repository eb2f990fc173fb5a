// SPDX-License-Identifier: LGPL-2.1-or-later
//! The plan for guests made by hand: what each kind of page becomes.

mod guests;

use guests::synthetic::{self as made, Guest, Page, KERNEL_PAGE};
use guests::{assert_whole, verdicts};
use vicover::addr::{Gfn, GfnRange};
use vicover::guest::candidate::Form;
use vicover::guest::doubt::Doubt;
use vicover::guest::limits::Limits;
use vicover::guest::locate::locate;
use vicover::guest::plan::{build, Plan};
use vicover::guest::verdict::{DumpLevel, Verdict};

/// 256 MiB: two sections.
const FRAMES: u64 = 1 << 16;

fn plan_at(guest: &Guest, level: u8) -> Plan {
    let processors = guest.processors();
    let located = locate(guest, &processors, &Limits::default()).expect("a kernel");
    let level = DumpLevel::new(level).expect("a level");
    build(guest, &located, &processors, level, &Limits::default())
}

fn plan(guest: &Guest) -> Plan {
    plan_at(guest, 31)
}

#[test]
fn both_copies_are_found_after_few_pages() {
    let guest = Guest::new(FRAMES);
    let located = locate(&guest, &guest.processors(), &Limits::default()).unwrap();
    let forms: Vec<Form> = located.copies.iter().map(|copy| copy.form).collect();
    assert!(
        forms.contains(&Form::Text) && forms.contains(&Form::Note),
        "{forms:?}"
    );
    assert_eq!(
        located.kernel.direct_map.map(|at| at.0),
        Some(made::DIRECT_MAP)
    );
    assert_eq!(located.kernel.name.nodename, "host");
    assert_eq!(located.kernel.info.text(), guest.text());
}

#[test]
fn descriptors_in_the_direct_mapping_are_kept_and_nothing_else_of_it() {
    let mut guest = Guest::without_vmemmap(FRAMES);
    guest.set_free(0x4000, 10);
    // Half of the descriptors are said to be free, and so is what comes behind.
    let (first, behind) = (made::DESCRIPTORS >> 12, (made::DESCRIPTORS >> 12) + 2 * 512);
    guest.set_free(behind - 512, 9);
    guest.set_free(behind, 10);
    let plan = plan(&guest);
    assert_eq!(plan.doubts(), []);
    assert_eq!(verdicts(&plan, 0x4000..0x4400), [(0x400, Verdict::Free)]);
    let kept = verdicts(&plan, first..behind);
    assert_eq!(kept, [(512, Verdict::Kernel), (512, Verdict::NeverExclude)]);
    let free = verdicts(&plan, behind..behind + 0x400);
    assert_eq!(free, [(0x400, Verdict::Free)]);
}

/// A guest that has a page of each kind, and groups of some.
fn guest_with_each_kind_of_page() -> Guest {
    let mut guest = Guest::new(FRAMES);
    guest.set_free(0x4000, 10);
    guest.set_free(0x4402, 1);
    guest.set_cache(0x5000);
    let private = Page {
        flags: made::LRU | made::PG_PRIVATE,
        ..KERNEL_PAGE
    };
    guest.set(0x5001, private);
    let anonymous = Page {
        flags: made::LRU | made::SWAPBACKED,
        mapping: 0xffff_8880_1234_0001,
        mapcount: 0,
        ..KERNEL_PAGE
    };
    guest.set(0x5002, anonymous);
    let slab = Page {
        mapcount: made::SLAB,
        mapping: 1,
        ..KERNEL_PAGE
    };
    guest.set(0x5003, slab);
    let offline = Page {
        mapcount: made::OFFLINE,
        ..KERNEL_PAGE
    };
    guest.set(0x5004, offline);
    let poisoned = Page {
        flags: made::POISON,
        ..KERNEL_PAGE
    };
    guest.set(0x5005, poisoned);
    guest.set_compound(0x5200, 9, anonymous);
    let hugetlb = Page {
        mapcount: made::HUGETLB,
        ..KERNEL_PAGE
    };
    guest.set_compound(0x5400, 9, hugetlb);
    guest.set_compound(0x5600, 3, slab);
    guest.write_description();
    guest
}

#[test]
fn each_kind_of_page_gets_its_verdict() {
    let guest = guest_with_each_kind_of_page();
    let plan = plan(&guest);
    use Verdict::*;
    assert_eq!(
        verdicts(&plan, 0x4000..0x4406),
        [(1024, Free), (2, Kernel), (2, Free), (2, Kernel)]
    );
    assert_eq!(
        verdicts(&plan, 0x5000..0x5007),
        [
            (1, Cache),
            (1, PrivateCache),
            (1, User),
            (1, Kernel),
            (1, Offline),
            (1, Poisoned),
            (1, Kernel)
        ]
    );
    assert_eq!(verdicts(&plan, 0x5200..0x5401), [(512, User), (1, Hugetlb)]);
    assert_eq!(
        verdicts(&plan, 0x5400..0x5608),
        [(512, Hugetlb), (8, Kernel)]
    );
    assert_eq!(plan.doubts(), []);
    assert_eq!(plan.guest_free_pages(), Some(1026));
    assert_eq!(plan.count_of(Free), 1026);
    assert_whole(&guest, &plan);
}

#[test]
fn a_level_leaves_out_its_kinds_only() {
    let mut guest = Guest::new(FRAMES);
    guest.set_free(0x4000, 10);
    guest.set_cache(0x5000);
    guest.write_description();
    let excluded = |level| plan_at(&guest, level).excluded_pages();
    assert_eq!(
        [0, 1, 2, 16, 17, 18].map(excluded),
        [0, 0, 1, 1024, 1024, 1025]
    );
}

#[test]
fn a_huge_page_may_span_sections() {
    let mut guest = Guest::new(1 << 19);
    let hugetlb = Page {
        mapcount: made::HUGETLB,
        ..KERNEL_PAGE
    };
    guest.set_compound(1 << 18, 18, hugetlb);
    let whole = plan(&guest);
    assert_eq!(
        verdicts(&whole, 1 << 18..1 << 19),
        [(1 << 18, Verdict::Hugetlb)]
    );

    // One page near the end that is none of its tails: all of it is kept, also
    // what was decided sections ago.
    guest.set((1 << 19) - 3, KERNEL_PAGE);
    let broken = plan(&guest);
    assert_eq!(broken.oddities().broken_blocks, 1);
    assert_eq!(broken.count_of(Verdict::Hugetlb), 0);
    assert_eq!(broken.verdict(Gfn(1 << 18)), Verdict::Unknown);
    assert_whole(&guest, &broken);
}

#[test]
fn the_most_useful_pages_come_first() {
    let mut guest = Guest::new(FRAMES);
    guest.set_free(0x4000, 10);
    guest.write_description();
    let stack = guest.new_frame();
    guest.map(made::VMALLOC, stack, 1);
    let mut processors = guest.processors();
    processors[0].rsp.0 = made::VMALLOC + 0x800;
    let located = locate(&guest, &processors, &Limits::default()).unwrap();
    let plan = build(
        &guest,
        &located,
        &processors,
        DumpLevel::DEFAULT,
        &Limits::default(),
    );
    let first: Vec<GfnRange> = plan.kept().take(3).collect();
    let (text, note) = (guest.text_at.gfn(), guest.note_at.gfn());
    assert!(
        first[0].contains(text) && first[0].contains(note),
        "{first:?}"
    );
    assert_eq!(
        first[1],
        GfnRange::new(Gfn(stack >> 12), Gfn((stack >> 12) + 1))
    );
    assert!(first[2].start < Gfn(0x1000), "page tables next: {first:?}");
    assert_whole(&guest, &plan);
}

#[test]
fn a_caller_out_of_time_gets_everything() {
    let guest = Guest::new(FRAMES);
    let processors = guest.processors();
    let located = locate(&guest, &processors, &Limits::default()).unwrap();
    let limits = Limits {
        give_up: &|| true,
        ..Limits::default()
    };
    let plan = build(&guest, &located, &processors, DumpLevel::DEFAULT, &limits);
    assert_eq!(plan.doubts(), [Doubt::GaveUp]);
    assert_eq!(plan.level().get(), 1);
    assert_eq!(plan.excluded_pages(), 0);
    assert_whole(&guest, &plan);
}
