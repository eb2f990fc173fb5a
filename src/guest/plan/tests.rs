// SPDX-License-Identifier: LGPL-2.1-or-later
//! What comes first and what is left out of plans for guests made by hand.

use super::*;
use crate::guest::guests::memory::MemoryImage;
use crate::guest::guests::synthetic::{self as made, Guest, Page, KERNEL_PAGE};
use crate::guest::guests::{assert_whole, plan_of, plan_through};
use crate::guest::locate::locate;
use crate::guest::page_map::Draft;

const FRAMES: u64 = 1 << 15;

fn range(start: u64, end: u64) -> GfnRange {
    GfnRange::new(Gfn(start), Gfn(end))
}

fn pages(range: &GfnRange) -> u64 {
    range.len()
}

#[test]
fn what_is_dumped_first_is_in_parts() {
    let mut guest = Guest::new(FRAMES);
    guest.add_log(&["one"]);
    guest.write_description();
    guest.map(made::VMALLOC, 0x310_0000, 1);
    let processor = Processor {
        rsp: GuestVirt(made::VMALLOC + 0x123),
        ..guest.processors()[0]
    };
    let plan = plan_through(&guest, &[processor]);
    assert_eq!((plan.doubts(), plan.pages()), (&[][..], FRAMES));
    let missing = KallsymsError::Value("kallsyms_num_syms");
    assert_eq!(plan.noticed(), [Noticed::Image(missing)]);
    let [text, note] = [guest.text_at.gfn().0, guest.note_at.gfn().0];
    assert_eq!(note, text + 1);
    // The tables of the kernel's stack come after those that all guests have.
    let vmalloc = guest.read_u64(guest.root() + (made::VMALLOC >> 39 & 511) * 8) >> 12;
    let root = guest.root() >> 12;
    let parts = [
        (Part::Notes, vec![range(text, note + 2)]),
        (Part::Log, vec![range(0x1106, 0x1107)]),
        (Part::Stacks, vec![range(0x3100, 0x3101)]),
        (
            Part::PageTables,
            vec![
                range(0x100, 0x105),
                range(vmalloc, vmalloc + 3),
                range(root, root + 1),
            ],
        ),
        (Part::Descriptors, vec![range(0x2000, 0x2200)]),
    ];
    assert_eq!(plan.first_parts(), parts);
    let first = plan.first_parts().iter().flat_map(|(_, ranges)| ranges);
    let first: Vec<GfnRange> = first.copied().collect();
    let kept: Vec<GfnRange> = plan.kept().collect();
    assert_eq!(kept[..first.len()], first);
    assert_eq!(kept.iter().map(pages).sum::<u64>(), FRAMES);
    assert_whole(&guest, &plan);
    let useful: Vec<GfnRange> = plan.by_usefulness().collect();
    assert_eq!(useful, kept);
}

#[test]
fn a_log_in_pages_of_any_size_comes_first_as_far_as_it_is_there() {
    let log = |map: &dyn Fn(&mut Guest)| {
        let mut guest = Guest::new(FRAMES);
        guest.add_log(&["one"]);
        // 8 KiB of texts, 2 KiB of them at the end of a small page.
        let texts = made::VMALLOC + 0x1f_f800;
        let at = guest.log_at() + 0x30;
        guest.write_u64(at, 13);
        guest.write_u64(at + 8, texts);
        map(&mut guest);
        guest.write_description();
        let plan = plan_of(&guest);
        let parts = plan.first_parts().to_vec();
        assert_eq!(parts[1].0, Part::Log);
        parts[1].1.clone()
    };
    let rest = range(0x1106, 0x1107);
    assert_eq!(log(&|_| ()), [rest]);
    let small = |guest: &mut Guest| guest.map(made::VMALLOC + 0x1f_f000, 0x310_0000, 1);
    assert_eq!(log(&small), [rest, range(0x3100, 0x3101)]);
    let large = |guest: &mut Guest| {
        small(guest);
        guest.map(made::VMALLOC + 0x20_0000, 0x60_0000, 2);
    };
    let both = [range(0x600, 0x602), rest, range(0x3100, 0x3101)];
    assert_eq!(log(&large), both);
}

#[test]
fn bytes_touch_pages() {
    let touched = |phys, bytes| pages_of(GuestPhys(phys), bytes);
    assert_eq!(touched(0x1000, 0x1000), range(1, 2));
    assert_eq!(touched(0x1fff, 1), range(1, 2));
    assert_eq!(touched(0x1fff, 2), range(1, 3));
    assert_eq!(touched(0x2001, 0x1fff), range(2, 4));
    assert_eq!(touched(0x2001, 0x2000), range(2, 5));
}

#[test]
fn descriptors_of_a_section_are_as_many_as_its_pages() {
    let guest = Guest::new(FRAMES);
    let located = locate(&guest, &guest.processors(), &Limits::default()).unwrap();
    let mut layout = PageLayout::new(&located.kernel.info).unwrap();
    layout.size = 56;
    let section = |descriptors| MemorySection {
        pages: range(0x8000, 0x8003),
        descriptors: GuestVirt(descriptors),
    };
    let sections = [section(0x1000), section(u64::MAX - 100)];
    let addresses = [(0x1000, 0x1000 + 168), (u64::MAX - 100, u64::MAX)];
    let addresses = addresses.map(|(start, end)| GuestVirt(start)..GuestVirt(end));
    assert_eq!(descriptor_addresses(&sections, &layout), addresses);
}

#[test]
fn a_part_is_what_is_kept_of_it_and_is_in_no_other() {
    let mut memory = MemoryImage::new();
    assert!(memory.add_ram(range(0, 0x40)) && memory.add_ram(range(0x50, 0x60)));
    let mut map = PageMap::new(Gfn(0x60));
    let mut draft = Draft::new();
    draft.begin(Gfn(0));
    draft.fill(0x20..0x22, Verdict::Free);
    map.finish(&mut draft);
    let mut plan = Plan::new(&memory, DumpLevel::DEFAULT, map);
    let stacks = [(40, 41), (10, 20), (15, 25), (25, 30), (12, 13)];
    plan.place(Part::Stacks, &stacks.map(|(start, end)| range(start, end)));
    let tables = [(0, 12), (28, 36), (0x3e, 0x52), (0x5f, 0x70), (90, 90)];
    plan.place(
        Part::PageTables,
        &tables.map(|(start, end)| range(start, end)),
    );
    plan.place(Part::Descriptors, &[range(11, 29), range(0x20, 0x22)]);
    let parts = [
        (Part::Stacks, vec![range(10, 30), range(40, 41)]),
        (
            Part::PageTables,
            vec![
                range(0, 10),
                range(30, 32),
                range(34, 36),
                range(0x3e, 0x40),
                range(0x50, 0x52),
                range(0x5f, 0x60),
            ],
        ),
        (Part::Descriptors, vec![]),
    ];
    assert_eq!(plan.first_parts(), parts);
    let rest: Vec<GfnRange> = plan.kept().skip(8).collect();
    let expected = [(36, 40), (41, 0x3e), (0x52, 0x5f)];
    assert_eq!(rest, expected.map(|(start, end)| range(start, end)));
    plan.count();
    assert_eq!((plan.excluded_pages(), plan.pages()), (2, 0x50));
}

#[test]
fn room_is_taken_by_the_map_and_twice_by_what_is_placed() {
    let mut memory = MemoryImage::new();
    assert!(memory.add_ram(range(0, 8)));
    let map = PageMap::new(Gfn(8));
    let of_the_map = map.bytes();
    assert!(of_the_map > 0);
    let mut plan = Plan::new(&memory, DumpLevel::DEFAULT, map);
    assert_eq!(plan.bytes(), of_the_map);
    plan.placed.reserve_exact(100);
    let ranges = 2 * plan.placed.capacity();
    assert_eq!(plan.bytes() - of_the_map, ranges * 16);
}

/// Four pages of each kind that a level leaves out, and what its verdict is.
fn set_each_kind(guest: &mut Guest) -> [(u64, Verdict); 4] {
    let anonymous = Page {
        mapping: made::DIRECT_MAP | 1,
        flags: made::LRU,
        ..KERNEL_PAGE
    };
    let buffers = Page {
        flags: made::LRU | made::PG_PRIVATE,
        ..KERNEL_PAGE
    };
    guest.set_free(0x3000, 2);
    for place in 0..4 {
        guest.set_cache(0x3010 + place);
        guest.set(0x3020 + place, buffers);
        guest.set(0x3030 + place, anonymous);
    }
    let offline = Page {
        mapcount: made::OFFLINE,
        ..KERNEL_PAGE
    };
    guest.set(0x3040, offline);
    guest.write_description();
    [
        (0x3030, Verdict::User),
        (0x3020, Verdict::PrivateCache),
        (0x3010, Verdict::Cache),
        (0x3000, Verdict::Free),
    ]
}

#[test]
fn the_most_useful_pages_come_first_and_free_ones_last() {
    let mut guest = Guest::new(FRAMES);
    let kinds = set_each_kind(&mut guest);
    let processors = guest.processors();
    let located = locate(&guest, &processors, &Limits::default()).unwrap();
    for level in [0, DumpLevel::CACHE, 31] {
        let level = DumpLevel::new(level).unwrap();
        let plan = build(&guest, &located, &processors, level, &Limits::default());
        let useful: Vec<GfnRange> = plan.by_usefulness().collect();
        let kept = kinds
            .iter()
            .filter(|(_, verdict)| !level.excludes(*verdict));
        let kept: Vec<GfnRange> = kept.map(|(gfn, _)| range(*gfn, gfn + 4)).collect();
        let (others, last) = useful.split_at(useful.len() - kept.len());
        assert_eq!(last, kept);
        let mut in_use = others.iter().flat_map(GfnRange::iter);
        assert!(in_use.all(|gfn| plan.verdict(gfn) == Verdict::Kernel));
        let left = FRAMES - plan.excluded_pages() - 4 * kept.len() as u64;
        assert_eq!(others.iter().map(pages).sum::<u64>(), left);
        // What cannot be read is left out at every level.
        let kinds_excluded = 4 * (kinds.len() - kept.len()) as u64;
        assert_eq!(plan.excluded_pages(), kinds_excluded + 1);
        assert_eq!(plan.count_of(Verdict::Offline), 1);
        assert!(plan.is_excluded(Gfn(0x3040)) && !plan.is_excluded(Gfn(0x3041)));
    }
}

#[test]
fn the_guests_count_of_free_pages_may_be_off_by_blocks_that_are_moved() {
    assert_eq!(tolerance(11), 4096);
    let mut guest = Guest::new(FRAMES);
    for block in 0..4 {
        guest.set_free(0x4000 + block * 0x400, 10);
    }
    let believed = plan_of(&guest);
    assert_eq!((believed.doubts(), believed.level().get()), (&[][..], 31));
    assert_eq!(believed.guest_free_pages(), Some(0));
    guest.set_free(0x3000, 0);
    let doubted = plan_of(&guest);
    let doubt = Doubt::FreePages {
        found: 4097,
        counted: 0,
    };
    assert_eq!(
        (doubted.doubts(), doubted.level().get()),
        (&[doubt][..], 15)
    );
}

#[test]
fn a_poisoned_page_of_the_kernels_stays_left_out() {
    let mut guest = Guest::new(FRAMES);
    let poisoned = Page {
        flags: made::POISON,
        ..KERNEL_PAGE
    };
    guest.set(0x101, poisoned);
    guest.set_cache(0x102);
    let plan = plan_of(&guest);
    assert_eq!(plan.verdict(Gfn(0x101)), Verdict::Poisoned);
    assert_eq!(plan.verdict(Gfn(0x102)), Verdict::NeverExclude);
    // Others of the kernel's are what they were.
    assert_eq!(plan.count_of(Verdict::NeverExclude), 1);
    assert_eq!(plan.count_of(Verdict::Kernel), FRAMES - 2);
    let tables = &plan.first_parts()[2];
    let rest = [range(0x100, 0x101), range(0x102, 0x105)];
    assert_eq!((tables.0, &tables.1[..2]), (Part::PageTables, &rest[..]));
}
