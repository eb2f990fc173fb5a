// SPDX-License-Identifier: LGPL-2.1-or-later
//! Which spaces a processor was in, which words of an image are followed, and how far.

use std::sync::atomic::AtomicU64;

use super::*;
use crate::guest::guests::counting::Counting;
use crate::guest::guests::kernels::with_32_bits;
use crate::guest::guests::memory::MemoryImage;
use crate::guest::guests::synthetic::{self as made, Guest};

const FRAMES: u64 = 1 << 14;
const MIB: u64 = 1 << 20;
/// Where the kernel's half of the addresses begins.
const UPPER: u64 = 0xffff_8000_0000_0000;
const TABLE: u64 = 0x63;
const LARGE: u64 = 0x80 | TABLE;
/// Where the pointers are in the image of a guest made by hand.
const POINTERS: u64 = 0x10_3000;

fn long(guest: &Guest) -> Space {
    Space::long(PageTables::new(guest.root(), Levels::Four, 0))
}

#[test]
fn words_that_can_be_addresses_of_pages_are_followed() {
    let tables = PageTables::new(0x1000, Levels::Four, 0);
    let found = |space: &Space, bytes: &[u8]| {
        let mut addresses = Vec::new();
        space.addresses(bytes, &mut addresses);
        addresses.into_iter().map(|at| at.0).collect::<Vec<u64>>()
    };
    let words = [
        UPPER,
        UPPER - 0x1000,
        UPPER + 8,
        made::DIRECT_MAP + 0x5000,
        made::DIRECT_MAP + 0x5000,
        made::DIRECT_MAP + 0x5fff,
        KERNEL_MAP - 0x1000,
        KERNEL_MAP,
        0,
        0x5000,
        u64::MAX,
    ];
    let pages = [UPPER, made::DIRECT_MAP + 0x5000, KERNEL_MAP - 0x1000];
    let bytes = words.map(u64::to_le_bytes).concat();
    assert_eq!(found(&Space::long(tables), &bytes), pages);

    let words = [
        0xc000_0000u32,
        0xbfff_f000,
        0xc000_0004,
        0xffff_f000,
        u32::MAX,
        0,
    ];
    let bytes = words.map(u32::to_le_bytes).concat();
    let space = Space::short(tables, GuestVirt(0xc100_0000));
    assert_eq!(found(&space, &bytes), [0xc000_0000, 0xffff_f000]);
}

/// Where the spaces of a processor map an image, and from how many levels of tables.
fn spaces(mem: &MemoryImage, processor: Processor) -> Vec<(PageTables, Range<u64>)> {
    let spaces = Space::of(mem, &processor).into_iter();
    let space = |space: Space| (space.tables, space.image.start.0..space.image.end.0);
    spaces.map(space).collect()
}

#[test]
fn registers_tell_how_many_levels_of_tables_there_are() {
    let mem = MemoryImage::new();
    let all_but = |bits: u64| !bits;
    for (cr4, levels) in [
        (0, Levels::Four),
        (all_but(CR4_LA57), Levels::Four),
        (CR4_LA57, Levels::Five),
        (u64::MAX, Levels::Five),
    ] {
        let processor = Processor {
            cr3: 0x4000,
            cr4,
            ..Processor::default()
        };
        let tables = PageTables::new(0x4000, levels, 0);
        let space = (tables, KERNEL_MAP..IMAGE_END);
        assert_eq!(spaces(&mem, processor), [space], "{cr4:#x}");
    }
    // Whatever they say.
    let ones = Processor {
        cr3: u64::MAX,
        cr4: u64::MAX,
        rip: GuestVirt(u64::MAX),
        rsp: GuestVirt(u64::MAX),
        gs_base: GuestVirt(u64::MAX),
    };
    let of_ones = spaces(&mem, ones);
    let roots = [0x000f_ffff_ffff_f000, 0x000f_ffff_ffff_e000];
    let tables = roots.map(|root| PageTables::new(root, Levels::Five, 0));
    assert_eq!(
        of_ones,
        tables.map(|tables| (tables, KERNEL_MAP..IMAGE_END))
    );
}

#[test]
fn a_kernel_of_32_bits_is_told_by_what_its_processor_executes() {
    let (mut mem, processor, _) = with_32_bits(0x2000);
    let long = |cr3: u64| {
        let roots = [cr3, cr3 & !0x1000];
        let tables = roots.map(|root| PageTables::new(root, Levels::Four, 0));
        tables
            .map(|tables| (tables, KERNEL_MAP..IMAGE_END))
            .to_vec()
    };
    let only_long = long(processor.cr3);
    let short = PageTables::new(processor.cr3, Levels::Pae, 0);
    let text = processor.rip.0;
    let mut all = only_long.clone();
    all.push((short, text..text + 32 * MIB));
    assert_eq!(spaces(&mem, processor), all);
    let without = |change: &dyn Fn(&mut Processor)| {
        let mut other = processor;
        change(&mut other);
        spaces(&mem, other)
    };
    assert_eq!(without(&|one| one.cr4 &= !CR4_PAE), only_long);
    // Nothing is mapped there.
    assert_eq!(without(&|one| one.rip.0 += 64 * MIB), only_long);
    // In a program.
    let table = 0x6000u64;
    let mut write = |at: u64, entry: u64| {
        mem.write(GuestPhys(at), &entry.to_le_bytes()).expect("RAM");
    };
    write(processor.cr3 + 2 * 8, table | 1);
    write(table + 511 * 8, 0x20_0000 | LARGE);
    let at = |rip: u64| Processor {
        rip: GuestVirt(rip),
        ..processor
    };
    assert_eq!(spaces(&mem, at(0xbfff_ffff)), only_long);
    assert_eq!(spaces(&mem, at(0xc000_0000)).len(), 3);
    let highest = spaces(&mem, at(0xffff_f123));
    assert_eq!(highest[2].1, 0xffff_f123..u64::from(u32::MAX));
    // What can be executed by tables of four levels tells nothing.
    let mut write = |at: u64, entry: u64| {
        mem.write(GuestPhys(at), &entry.to_le_bytes()).expect("RAM");
    };
    write(0x5000, 0x7000 | TABLE);
    write(0x7000 + 3 * 8, LARGE);
    let aligned = Processor {
        cr3: 0x5000,
        ..processor
    };
    write(0x5000 + 3 * 8, table | 1);
    assert_eq!(spaces(&mem, aligned), long(0x5000));
}

/// What an image leads to, and how many pages are looked at for that.
fn followed(guest: &Guest) -> (Vec<Candidate>, u64) {
    let mut pointers = Pointers::new(guest, &|| false);
    let found = pointers.follow(&long(guest));
    (found, pointers.looked().count())
}

/// The description and the note of a guest made by hand.
fn both(guest: &Guest) -> Vec<Candidate> {
    use crate::guest::candidate::Form::{Note, Text};
    let forms = [(guest.text_at, Text), (guest.note_at, Note)];
    let candidate = |(at, form): (GuestPhys, _)| Candidate {
        gfn: at.gfn(),
        form,
    };
    forms.map(candidate).to_vec()
}

/// Moves the pointers of a guest made by hand to another place in memory.
fn move_pointers(guest: &mut Guest, to: u64) {
    for word in 0..2 {
        let from = made::IMAGE + POINTERS + word * 8;
        let pointer = guest.read_u64(from);
        guest.write_u64(from, 0);
        guest.write_u64(to + word * 8, pointer);
    }
}

#[test]
fn an_image_is_what_is_mapped_to_be_written_between_its_bounds() {
    let mut guest = Guest::new(FRAMES);
    assert_eq!(followed(&guest), (both(&guest), 512 + 2));
    // Before the image, behind it, and not to be written: not looked at.
    guest.map(KERNEL_MAP - 0x1000, 0x300_0000, 1);
    guest.map(IMAGE_END, 0x301_0000, 1);
    guest.map(IMAGE_END - 0x1000, 0x302_0000, 1);
    assert_eq!(followed(&guest), (both(&guest), 512 + 2 + 1));
    guest.protect_image();
    assert_eq!(followed(&guest), (vec![], 1));
    move_pointers(&mut guest, 0x302_0ff0);
    assert_eq!(followed(&guest), (both(&guest), 1 + 2));
}

#[test]
fn an_image_of_small_pages_is_read_in_large_pieces() {
    let mut guest = Guest::new(FRAMES);
    guest.split(KERNEL_MAP + made::IMAGE, 0..0);
    let counting = Counting(&guest, AtomicU64::new(0));
    let mut pointers = Pointers::new(&counting, &|| false);
    assert_eq!(pointers.follow(&long(&guest)), both(&guest));
    assert_eq!(pointers.looked().count(), 512 + 2);
    drop(pointers);
    // Four tables, eight pieces of 64 pages, and what the two pointers take.
    let reads = counting.1.into_inner();
    assert!(reads < 24, "{reads} reads");
}

#[test]
fn an_image_may_lie_in_pieces() {
    let mut guest = Guest::new(FRAMES);
    guest.split(KERNEL_MAP + made::IMAGE, 0..0);
    guest.map(KERNEL_MAP + made::IMAGE + POINTERS, 0x300_0000, 1);
    move_pointers(&mut guest, 0x300_0ff0);
    assert_eq!(followed(&guest), (both(&guest), 512 + 2));
    // Its last piece at the end of memory.
    let mut guest = Guest::new(FRAMES);
    for page in 0..65 {
        let phys = (FRAMES - 65 + page) << 12;
        guest.map(KERNEL_MAP + 0x3000_0000 + (page << 12), phys, 1);
    }
    move_pointers(&mut guest, (FRAMES << 12) - 16);
    assert_eq!(followed(&guest), (both(&guest), 512 + 65 + 2));
}

#[test]
fn an_image_is_followed_once_and_to_its_bounds() {
    let mut guest = Guest::new(FRAMES);
    guest.map(KERNEL_MAP + made::IMAGE + 2 * MIB, 0x60_0000, 2);
    move_pointers(&mut guest, 0x60_0000);
    let space = long(&guest);
    let with = |bytes_left, pointers_left| {
        let mut pointers = Pointers {
            bytes_left,
            pointers_left,
            ..Pointers::new(&guest, &|| false)
        };
        let found = pointers.follow(&space);
        let left = (pointers.bytes_left, pointers.pointers_left);
        assert_eq!(pointers.follow(&space), []);
        (found, left)
    };
    // The first pointer is in the first piece, and leads to no description.
    let both = both(&guest);
    assert_eq!(with(9 * MIB, 100), (both.clone(), (5 * MIB, 97)));
    assert_eq!(with(4 * MIB, 3), (both.clone(), (0, 0)));
    assert_eq!(with(4 * MIB - 1, 3), (vec![], (2 * MIB - 1, 2)));
    assert_eq!(with(4 * MIB, 2), (both[..1].to_vec(), (0, 0)));
    let mut gives_up = Pointers::new(&guest, &|| true);
    assert_eq!(gives_up.follow(&space), []);
}

#[test]
fn what_is_pointed_to_is_ram_and_looks_like_a_description() {
    let mut guest = Guest::new(FRAMES);
    guest.map(made::VMALLOC, FRAMES << 12, 1);
    guest.map(made::VMALLOC + 0x1000, 0x300_0000, 1);
    guest.write(0x302_0000, b"OSRELEASE=");
    let at = made::IMAGE + POINTERS + 16;
    for (word, pointer) in [
        made::VMALLOC,
        made::VMALLOC + 0x1000,
        made::VMALLOC + 0x2000,
        made::DIRECT_MAP + 0x302_0000,
        made::DIRECT_MAP + (1 << 29),
    ]
    .into_iter()
    .enumerate()
    {
        guest.write_u64(at + word as u64 * 8, pointer);
    }
    let mut expected = both(&guest);
    expected.push(Candidate {
        gfn: Gfn(0x3020),
        form: crate::guest::candidate::Form::Text,
    });
    // One page that is no description was looked at for nothing.
    assert_eq!(followed(&guest), (expected, 512 + 2 + 2));
}
