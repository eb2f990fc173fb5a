// SPDX-License-Identifier: LGPL-2.1-or-later
//! The kernel's pages by kind, of a guest whose page tables are made by hand.

use super::*;
use crate::guest::guests::symbols::{Kept, BASE_ADDRESS};
use crate::guest::guests::synthetic::{self as made, Guest};
use crate::guest::limits::Limits;
use crate::guest::locate::locate;

const FRAMES: u64 = 1 << 14;
/// Where the kernel's half of the addresses begins.
const UPPER: u64 = 0xffff_8000_0000_0000;
const IMAGE: u64 = made::IMAGE >> 12;
const TABLE: u64 = 0x63;

fn kernel(guest: &Guest) -> Kernel {
    let located = locate(guest, &guest.processors(), &Limits::default());
    located.expect("a kernel").kernel
}

/// Addresses of the descriptors of a guest.
fn descriptors(guest: &Guest) -> [Range<GuestVirt>; 1] {
    let bytes = guest.frames().next_multiple_of(made::SECTION_PAGES) * 64;
    [GuestVirt(made::VMEMMAP)..GuestVirt(made::VMEMMAP + bytes)]
}

fn collected(guest: &Guest, processors: &[Processor]) -> KernelPages {
    kernel_pages(guest, &kernel(guest), processors, &descriptors(guest))
}

fn pages(start: u64, end: u64) -> GfnRange {
    GfnRange::new(Gfn(start), Gfn(end))
}

fn page(phys: u64) -> GfnRange {
    pages(phys >> 12, (phys >> 12) + 1)
}

/// Tables of a guest made by hand, in the order of the addresses that they are for.
fn own_tables(guest: &Guest) -> Vec<GfnRange> {
    let [direct, image, descriptors] = [(0x100, 0x101), (0x101, 0x103), (0x103, 0x105)];
    let tables = [direct, descriptors, image].map(|(start, end)| pages(start, end));
    [vec![page(guest.root())], tables.to_vec()].concat()
}

#[test]
fn each_page_is_of_the_kind_that_it_is_mapped_as() {
    let mut guest = Guest::new(FRAMES);
    let mapped = [0x300_0000, 0x300_1000, 0x310_0000];
    for (nth, phys) in (0..).zip(mapped) {
        guest.map(made::VMALLOC + (nth << 12), phys, 1);
    }
    // Not of the guest's memory, or only in part.
    guest.map(made::VMALLOC + 0x3000, FRAMES << 12, 1);
    let found = collected(&guest, &[]);
    let vmalloc = guest.read_u64(guest.root() + (made::VMALLOC >> 39 & 511) * 8) >> 12;
    let mut tables = own_tables(&guest);
    tables.insert(2, pages(vmalloc, vmalloc + 3));
    let expected = KernelPages {
        tables,
        descriptors: vec![pages(0x2000, 0x2200)],
        image: vec![],
        image_or_released: vec![pages(IMAGE, IMAGE + made::IMAGE_FRAMES)],
        image_not_told: Some(KallsymsError::Value("kallsyms_num_syms")),
        mapped: vec![pages(0x3000, 0x3002), pages(0x3100, 0x3101)],
        stacks: vec![],
        complete: true,
    };
    assert_eq!(found, expected);
    let in_use: u64 = found.in_use().map(|range| range.len()).sum();
    assert_eq!(in_use, 6 + 3 + 0x200 + 3);
}

#[test]
fn the_image_is_in_use_where_it_is_not_to_be_written_or_was_not_given_back() {
    let image = vec![pages(IMAGE, IMAGE + made::IMAGE_FRAMES)];
    let mut guest = Guest::new(FRAMES);
    guest.protect_image();
    let found = collected(&guest, &[]);
    assert_eq!((found.image, found.image_or_released), (image, vec![]));

    let symbols = [
        ("_stext", BASE_ADDRESS),
        ("__init_begin", BASE_ADDRESS + 0x2000),
        ("__init_end", BASE_ADDRESS + 0x5000),
    ];
    let mut guest = Guest::new(FRAMES);
    guest.add_symbols(Kept::Base, &symbols);
    guest.write_description();
    let found = collected(&guest, &[]);
    let end = IMAGE + made::IMAGE_FRAMES;
    let image = vec![pages(IMAGE, IMAGE + 2), pages(IMAGE + 5, end)];
    assert_eq!((found.image, found.image_or_released), (image, vec![]));
    assert_eq!(found.image_not_told, None);
}

/// Maps the lowest memory directly by large pages, and a part of it by small ones, in
/// place of one page for all; returns the two tables.
fn map_directly(guest: &mut Guest) -> [u64; 2] {
    let upper = guest.read_u64(guest.root() + (made::DIRECT_MAP >> 39 & 511) * 8) & !0xfff;
    let (large, small) = (guest.new_frame(), guest.new_frame());
    for entry in 0..512u64 {
        guest.write_u64(large + entry * 8, entry << 21 | 0x80 | TABLE);
        guest.write_u64(small + entry * 8, 8 << 21 | entry << 12 | TABLE);
    }
    guest.write_u64(large + 8 * 8, small | TABLE);
    guest.write_u64(upper, large | TABLE);
    [large, small]
}

#[test]
fn tables_of_the_direct_mapping_are_the_kernels_and_what_they_map_is_not() {
    let mut guest = Guest::new(FRAMES);
    let [large, small] = map_directly(&mut guest);
    let found = collected(&guest, &[]);
    let mut tables = own_tables(&guest);
    let both = pages(large >> 12, (small >> 12) + 1);
    tables.splice(1..2, [page(0x10_0000), both]);
    assert_eq!(found.tables, tables);
    assert_eq!((found.mapped, found.complete), (vec![], true));
}

#[test]
fn the_direct_mapping_is_of_all_memory_to_the_next_gib() {
    for frames in [1 << 18, (1 << 18) + 1, 1 << 19] {
        let guest = Guest::with_blocks(frames, 1);
        assert_eq!(collected(&guest, &[]).mapped, [], "{frames:#x} frames");
    }
    // Beyond it everything that is mapped is in use.
    let mut guest = Guest::new(FRAMES);
    guest.map(made::DIRECT_MAP + (1 << 30), 0x300_0000, 1);
    assert_eq!(collected(&guest, &[]).mapped, [page(0x300_0000)]);
    // Where it is not known, all is.
    let kernel = Kernel {
        direct_map: None,
        ..kernel(&guest)
    };
    let found = kernel_pages(&guest, &kernel, &[], &descriptors(&guest));
    let all = pages(0, FRAMES);
    assert_eq!(found.mapped, [all, page(0x300_0000)]);
}

#[test]
fn descriptors_that_were_allocated_anywhere_are_whole_pages() {
    let guest = Guest::without_vmemmap(FRAMES);
    let at = |offset| GuestVirt(made::DIRECT_MAP + offset);
    let ranges = [
        at(0x234_5678)..at(0x234_8678),
        at(0x250_0000)..at(0x250_1000),
        GuestVirt(made::VMEMMAP)..GuestVirt(made::VMEMMAP + 0x1000),
    ];
    let found = kernel_pages(&guest, &kernel(&guest), &[], &ranges);
    assert_eq!(found.descriptors, [pages(0x2345, 0x2349), page(0x250_0000)]);
    assert_eq!(found.mapped, []);
}

#[test]
fn the_stack_and_the_area_of_a_processor_are_the_kernels() {
    let mut guest = Guest::new(FRAMES);
    // One of the stack's four pages is not there; its neighbours are no part of it.
    let stack = made::VMALLOC + 0x8000;
    for (place, phys) in [
        (0u64.wrapping_sub(0x1000), 0x310_0000),
        (0, 0x312_0000),
        (0x1000, 0x314_0000),
        (0x3000, 0x316_0000),
        (0x4000, 0x318_0000),
    ] {
        guest.map(stack.wrapping_add(place), phys, 1);
    }
    let processor = Processor {
        rsp: GuestVirt(stack + 0x2345),
        gs_base: GuestVirt(made::DIRECT_MAP + 0x320_0080),
        ..guest.processors()[0]
    };
    let found = collected(&guest, &[processor]);
    let stacks = [0x312_0000, 0x314_0000, 0x316_0000].map(page);
    assert_eq!(found.stacks, stacks);
    assert_eq!(found.mapped.last(), Some(&pages(0x3200, 0x3210)));
    // In a program, where the kernel's half begins, and where the tables end.
    guest.map(0x40_0000, 0x330_0000, 1);
    guest.map(UPPER, 0x332_0000, 1);
    let stacks = |rsp: u64| {
        let processor = Processor {
            rsp: GuestVirt(rsp),
            gs_base: GuestVirt(u64::MAX),
            ..processor
        };
        collected(&guest, &[processor]).stacks
    };
    assert_eq!(stacks(0x40_0123), []);
    assert_eq!(stacks(UPPER + 8), [page(0x332_0000)]);
    assert_eq!(stacks(u64::MAX), []);
}

/// Tables of a process: those of its own half, and one in the kernel's.
fn process(guest: &mut Guest) -> (Processor, Vec<GfnRange>) {
    let new = [(); 8].map(|()| guest.new_frame());
    let [root, upper, gap, middle, other, lower, _, foreign] = new;
    assert_eq!(gap, upper + 0x1000);
    for (table, entry, to) in [
        (root, 0, upper),
        (upper, 0, middle),
        (middle, 0, lower),
        (root, 255, other),
        (root, 256, foreign),
    ] {
        guest.write_u64(table + entry * 8, to | TABLE);
    }
    guest.write_u64(middle + 8, 0x20_0000 | 0x80 | TABLE);
    // What the process has is not the kernel's.
    guest.write_u64(lower, 0x300_0000 | TABLE);
    let processor = Processor {
        cr3: root,
        ..Processor::default()
    };
    let tables = vec![
        pages(root >> 12, (upper >> 12) + 1),
        page(middle),
        page(lower),
        page(other),
    ];
    (processor, tables)
}

#[test]
fn tables_of_a_process_that_was_interrupted_are_the_kernels() {
    let mut guest = Guest::new(FRAMES);
    let (processor, tables) = process(&mut guest);
    let found = collected(&guest, &[processor]);
    let all = [own_tables(&guest), tables].concat();
    assert_eq!((found.tables, found.mapped), (all, vec![]));
    assert!(found.complete);
}

#[test]
fn pages_may_be_missing_when_a_cap_was_met() {
    let mut guest = Guest::new(FRAMES);
    let (processor, _) = process(&mut guest);
    let kernel = kernel(&guest);
    let collect = |entries_left, runs_left| {
        let mut collector = Collector {
            mem: &guest,
            kernel: &kernel,
            end: guest.end(),
            direct: direct_map(&kernel, guest.end()),
            runs_left,
            entries_left,
            pages: KernelPages::default(),
        };
        let complete = collector.collect(&[processor], &descriptors(&guest));
        (complete, collector.entries_left, collector.runs_left)
    };
    // Six tables of the kernel, four of the process: that of the lowest level maps
    // what is not looked at.
    let (entries, runs) = (10 * 512, 4 + 1 + 1 + 4);
    assert_eq!(collect(entries + 9, runs + 5), (true, 9, 5));
    assert_eq!(collect(entries, runs + 1), (true, 0, 1));
    assert!(!collect(entries - 1, runs + 1).0);
    assert!(!collect(entries - 4 * 512, runs + 1).0);
    assert!(!collect(6 * 512 - 1, runs + 1).0);
    assert_eq!(collect(entries, runs), (false, 0, 0));
    assert!(!collect(entries, 1).0);
    // So that a caller is told, too.
    assert!(collected(&guest, &[processor]).complete);
}

#[test]
fn entries_of_the_direct_mappings_small_pages_are_not_looked_at() {
    let mut guest = Guest::new(FRAMES);
    map_directly(&mut guest);
    guest.map(made::VMALLOC, 0x300_0000, 1);
    let kernel = kernel(&guest);
    let mut collector = Collector {
        mem: &guest,
        kernel: &kernel,
        end: guest.end(),
        direct: direct_map(&kernel, guest.end()),
        runs_left: 100,
        entries_left: 100 * 512,
        pages: KernelPages::default(),
    };
    assert!(collector.collect(&[], &descriptors(&guest)));
    // Six tables, one of large pages, and three that lead to the one page.
    assert_eq!(collector.entries_left, (100 - 10) * 512);
    assert_eq!(collector.pages.mapped, [page(0x300_0000)]);
}

#[test]
fn runs_are_noted_as_far_as_memory_goes_and_there_is_room() {
    let (mut runs, mut left) = (Vec::new(), 2);
    let mut note = |phys, bytes| {
        push(&mut runs, &mut left, GuestPhys(phys), bytes, Gfn(0x100));
        (runs.last().copied(), runs.len(), left)
    };
    assert_eq!(note(0x5000, 0x2fff), (Some(pages(5, 7)), 1, 1));
    assert_eq!(note(0x7000, 0x1000), (Some(pages(5, 8)), 1, 1));
    assert_eq!(note(0x9000, 0xfff), (Some(pages(5, 8)), 1, 1));
    assert_eq!(note(0x10_0000, 0x1000), (Some(pages(5, 8)), 1, 1));
    assert_eq!(note(0xf_f000, 0x8000), (Some(pages(0xff, 0x100)), 2, 0));
    assert_eq!(note(0x1000, 0x1000), (Some(pages(0xff, 0x100)), 2, 0));
}

#[test]
fn a_range_touches_whole_pages() {
    let touched = |start, end| whole_pages(&(GuestVirt(start)..GuestVirt(end)));
    assert_eq!(touched(0x3000, 0x4000), (0x3000, 0x1000));
    assert_eq!(touched(0x3fff, 0x4001), (0x3000, 0x2000));
    assert_eq!(touched(0x7001, 0x7001), (0x7000, 0x1000));
    assert_eq!(touched(0x7000, 0x7000), (0x7000, 0));
}
