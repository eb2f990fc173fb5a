// SPDX-License-Identifier: LGPL-2.1-or-later
//! Page tables made entry by entry: where addresses lead, and what a visit comes across.

use super::*;
use crate::addr::GfnRange;
use crate::guest::guests::memory::MemoryImage;
use crate::guest::memory::FaultCause;

const ROOT: u64 = 0x1000;
/// Frames that there are.
const FRAMES: u64 = 0x20;
const NOT_THERE: u64 = FRAMES << 12;
/// Present, writable, accessed, dirty.
const TABLE: u64 = 0x63;
/// Bits that are neither flags nor address: not to be executed, and the kernel's own.
const OTHER_BITS: u64 = 1 << 63 | 1 << 58 | 1 << 52;

struct Memory(MemoryImage);

impl Memory {
    fn new() -> Self {
        let mut memory = MemoryImage::new();
        assert!(memory.add_ram(GfnRange::new(Gfn(0), Gfn(FRAMES))));
        Self(memory)
    }

    fn write(&mut self, at: u64, bytes: &[u8]) {
        self.0.write(GuestPhys(at), bytes).expect("RAM");
    }

    fn set(&mut self, table: u64, index: u64, entry: u64) {
        self.write(table + index * 8, &entry.to_le_bytes());
    }

    /// Has an address lead through tables, the topmost first, to an entry.
    fn lead(&mut self, at: u64, levels: u32, tables: &[u64], entry: u64) {
        for (level, table) in (1..=levels).rev().zip(tables.windows(2)) {
            let index = at >> (12 + 9 * (level - 1)) & 511;
            self.set(table[0], index, table[1] | TABLE | OTHER_BITS);
        }
        let level = levels + 1 - tables.len() as u32;
        let index = at >> (12 + 9 * (level - 1)) & 511;
        self.set(tables[tables.len() - 1], index, entry);
    }
}

fn four() -> PageTables {
    PageTables::new(ROOT, Levels::Four, 0)
}

fn leads(phys: u64, mapped: u64) -> Result<Translation, WalkError> {
    let phys = GuestPhys(phys);
    Ok(Translation { phys, mapped })
}

#[test]
fn an_address_leads_to_its_byte_in_a_page_of_any_size() {
    let at = 0xffff_c900_1234_5678;
    let translate = |tables: &[u64], entry| {
        let mut memory = Memory::new();
        memory.lead(at, 4, tables, entry);
        four().translate(&memory.0, GuestVirt(at))
    };
    // Bit 7 is no size in an entry of the lowest level, nor bit 12 part of the
    // address of a large page.
    let (small, large) = (PRESENT | OTHER_BITS, PRESENT | LARGE | 1 << 12);
    assert_eq!(
        translate(&[ROOT, 0x2000, 0x3000, 0x4000], 0x5000 | small | LARGE),
        leads(0x5678, 0x988)
    );
    assert_eq!(
        translate(&[ROOT, 0x2000, 0x3000], 0x1240_0000 | large),
        leads(0x1254_5678, 0xb_a988)
    );
    assert_eq!(
        translate(&[ROOT, 0x2000], 0x1_4000_0000 | large),
        leads(0x1_5234_5678, 0x2dcb_a988)
    );
    let missing = Err(WalkError::NotMapped(GuestVirt(at)));
    for tables in 1..=4 {
        let tables = &[ROOT, 0x2000, 0x3000, 0x4000][..tables];
        assert_eq!(translate(tables, 0x5000 | TABLE & !PRESENT), missing);
    }
    let fault = ReadFault {
        gfn: Gfn(FRAMES),
        cause: FaultCause::NotRam,
    };
    let at = GuestVirt(at);
    assert_eq!(
        translate(&[ROOT, 0x2000], NOT_THERE | TABLE),
        Err(WalkError::Unreadable { at, fault })
    );
}

#[test]
fn entries_of_the_upper_levels_lead_to_tables_whatever_their_seventh_bit() {
    let mut memory = Memory::new();
    let at = 0xff12_3456_789a_bcde;
    let tables = [ROOT, 0x2000, 0x3000, 0x4000, 0x5000];
    memory.lead(at, 5, &tables, 0x6000 | PRESENT);
    for (table, shift) in [(ROOT, 48), (0x2000, 39)] {
        let index = at >> shift & 511;
        memory.set(table, index, (table + 0x1000) | LARGE | PRESENT);
    }
    let five = PageTables::new(ROOT, Levels::Five, 0);
    let found = five.translate(&memory.0, GuestVirt(at));
    assert_eq!(found, leads(0x6cde, 0x322));
    // Each level keeps its own page of entries.
    let mut translator = Translator::new(&memory.0, five);
    for at in [at, at + 0x1000, at ^ 1 << 48, at].map(GuestVirt) {
        assert_eq!(translator.translate(at), five.translate(&memory.0, at));
    }
}

#[test]
fn addresses_of_32_bits_lead_through_three_levels() {
    let mut memory = Memory::new();
    let at = 0xc123_4567;
    // The topmost table is four entries, anywhere in a page.
    let pae = PageTables::new(0x1020 | 0x1f, Levels::Pae, 0);
    assert_eq!(pae.root(), GuestPhys(0x1020));
    memory.lead(at, 3, &[0x1020, 0x2000], 0x60_0000 | LARGE | PRESENT);
    let found = pae.translate(&memory.0, GuestVirt(at));
    assert_eq!(found, leads(0x63_4567, 0x1c_ba99));
    let highest = GuestVirt(u64::from(u32::MAX));
    let found = |at| pae.translate(&memory.0, at);
    assert_eq!(found(highest), Err(WalkError::NotMapped(highest)));
    let beyond = GuestVirt(1 << 32);
    assert_eq!(found(beyond), Err(WalkError::NotCanonical(beyond)));
}

#[test]
fn an_address_that_no_processor_accepts_leads_nowhere() {
    let memory = Memory::new();
    let five = PageTables::new(ROOT, Levels::Five, 0);
    assert_eq!(four().upper_half(), GuestVirt(0xffff_8000_0000_0000));
    assert_eq!(five.upper_half(), GuestVirt(0xff00_0000_0000_0000));
    for (tables, at, is_canonical) in [
        (four(), 0, true),
        (four(), 0x7fff_ffff_ffff, true),
        (four(), 0x8000_0000_0000, false),
        (four(), 0xffff_7fff_ffff_ffff, false),
        (four(), 0xffff_8000_0000_0000, true),
        (four(), u64::MAX, true),
        (five, 0x00ff_ffff_ffff_ffff, true),
        (five, 0x0100_0000_0000_0000, false),
        (five, 0xff00_0000_0000_0000, true),
    ] {
        let at = GuestVirt(at);
        let why = match is_canonical {
            true => WalkError::NotMapped(at),
            false => WalkError::NotCanonical(at),
        };
        assert_eq!(tables.translate(&memory.0, at), Err(why));
    }
}

#[test]
fn what_means_encrypted_is_no_part_of_an_address() {
    const ENCRYPTED: u64 = 1 << 47;
    let mut memory = Memory::new();
    let at = 0xffff_c900_1234_5678;
    let tables = [0x2000 | ENCRYPTED, 0x3000 | ENCRYPTED];
    memory.set(ROOT, at >> 39 & 511, tables[0] | TABLE);
    memory.set(0x2000, at >> 30 & 511, tables[1] | TABLE);
    let large = 0x1240_0000 | ENCRYPTED | LARGE | PRESENT;
    memory.set(0x3000, at >> 21 & 511, large);
    // CR3 has other bits than the address, too.
    let cr3 = 1 << 63 | ENCRYPTED | ROOT | 0xfff;
    let found = PageTables::new(cr3, Levels::Four, ENCRYPTED);
    assert_eq!(found.root(), GuestPhys(ROOT));
    assert_eq!(
        found.translate(&memory.0, GuestVirt(at)),
        leads(0x1254_5678, 0xb_a988)
    );
    let other = found.with_root(0x7000 | ENCRYPTED | 5);
    assert_eq!(other.root(), GuestPhys(0x7000));
}

#[test]
fn bytes_are_read_across_pages_and_no_further() {
    let mut memory = Memory::new();
    let at = 0xffff_c900_0000_0000;
    let tables = [ROOT, 0x2000, 0x3000, 0x4000];
    memory.lead(at, 4, &tables, 0x8000 | PRESENT);
    memory.lead(at + 0x1000, 4, &tables, 0x6000 | PRESENT);
    memory.lead(at + 0x3000, 4, &tables, NOT_THERE | PRESENT);
    memory.write(0x8ffc, &[1, 2, 3, 4]);
    memory.write(0x6000, &[5, 6, 7, 8]);
    memory.write(0x6ffe, &[9, 10]);
    let read = |at: u64, number| {
        let mut bytes = vec![0; number];
        four().read(&memory.0, GuestVirt(at), &mut bytes)?;
        Ok(bytes)
    };
    let across = [1, 2, 3, 4, 5, 6, 7, 8];
    assert_eq!(read(at + 0xffc, 8), Ok(across.to_vec()));
    let word = four().read_u64(&memory.0, GuestVirt(at + 0xffc));
    assert_eq!(word, Ok(u64::from_le_bytes(across)));
    // To the last byte that is mapped, and one more.
    assert_eq!(read(at + 0x1ffe, 2), Ok(vec![9, 10]));
    let next = GuestVirt(at + 0x2000);
    assert_eq!(read(at + 0xffc, 0x1005), Err(WalkError::NotMapped(next)));
    assert_eq!(read(at + 0x2000, 0), Ok(vec![]));
    let fault = ReadFault {
        gfn: Gfn(FRAMES),
        cause: FaultCause::NotRam,
    };
    let unreadable = GuestVirt(at + 0x3004);
    let error = WalkError::Unreadable {
        at: unreadable,
        fault,
    };
    assert_eq!(read(unreadable.0, 4), Err(error));
}

#[test]
fn nothing_is_read_beyond_the_last_address() {
    let mut memory = Memory::new();
    let tables = [ROOT, 0x2000, 0x3000, 0x4000];
    memory.lead(u64::MAX, 4, &tables, 0x7000 | PRESENT);
    memory.write(0x7ff8, &[7; 8]);
    let at = GuestVirt(u64::MAX - 7);
    let mut bytes = [0; 9];
    assert_eq!(four().read(&memory.0, at, &mut bytes[..8]), Ok(()));
    assert_eq!(bytes[..8], [7; 8]);
    let beyond = Err(WalkError::NotCanonical(at));
    assert_eq!(four().read(&memory.0, at, &mut bytes), beyond);
}

const BASE: u64 = 0xffff_c900_0000_0000;
const MIB: u64 = 1 << 20;

/// Pages of all sizes from [`BASE`] on, some tables that are not there, and 1 GiB at
/// the lowest address.
fn memory_to_visit() -> Memory {
    let mut memory = Memory::new();
    memory.lead(BASE, 4, &[ROOT, 0x2000, 0x3000, 0x4000], 0x5000 | TABLE);
    memory.set(0x4000, 511, 0x6000 | PRESENT);
    memory.set(0x3000, 1, 0xa0_0000 | LARGE | TABLE);
    memory.set(0x3000, 2, 0xe0_0000 | LARGE | PRESENT);
    memory.set(0x3000, 4, NOT_THERE | TABLE);
    memory.set(0x3000, 6, NOT_THERE | TABLE);
    memory.set(0x2000, 1, 0x4000_0000 | LARGE | TABLE);
    memory.set(ROOT, 0, 0x7000 | TABLE);
    memory.set(0x7000, 0, 0x8000_0000 | LARGE | TABLE);
    memory
}

fn table(phys: u64, from: u64, bytes: u64) -> Visit {
    Visit::Table {
        phys: GuestPhys(phys),
        from: GuestVirt(from),
        bytes,
    }
}

fn leaf(at: u64, phys: u64, bytes: u64, writable: bool) -> Visit {
    Visit::Leaf {
        at: GuestVirt(at),
        phys: GuestPhys(phys),
        bytes,
        writable,
    }
}

/// What is visited from one address to another, how that ends, and how many of so
/// many entries are left.
fn visited(first: u64, last: u64, mut entries: u64) -> (Vec<Visit>, VisitEnd, u64) {
    let memory = memory_to_visit();
    let mut visits = Vec::new();
    let mut visitor = |visit| {
        visits.push(visit);
        Descend::Into
    };
    let (first, last) = (GuestVirt(first), GuestVirt(last));
    let end = four().visit(&memory.0, first, last, &mut entries, &mut visitor);
    (visits, end, entries)
}

#[test]
fn a_visit_comes_across_every_table_and_page_in_order() {
    let upper = [
        table(ROOT, 0, 1 << 48),
        table(0x2000, BASE, 1 << 39),
        table(0x3000, BASE, 1 << 30),
        table(0x4000, BASE, 2 * MIB),
        leaf(BASE, 0x5000, 0x1000, true),
        leaf(BASE + 0x1f_f000, 0x6000, 0x1000, false),
        leaf(BASE + 2 * MIB, 0xa0_0000, 2 * MIB, true),
        leaf(BASE + 4 * MIB, 0xe0_0000, 2 * MIB, false),
        table(NOT_THERE, BASE + 8 * MIB, 2 * MIB),
        table(NOT_THERE, BASE + 12 * MIB, 2 * MIB),
        leaf(BASE + (1 << 30), 0x4000_0000, 1 << 30, true),
    ];
    let first = four().upper_half().0;
    let end = VisitEnd {
        complete: true,
        unreadable_tables: 2,
    };
    // Four tables, with 512 entries each.
    let found = visited(first, u64::MAX, 2050);
    assert_eq!(found, (upper.to_vec(), end, 2));
    assert_eq!(visited(first, u64::MAX, 2048).1, end);
    let (_, end, left) = visited(first, u64::MAX, 2047);
    assert_eq!((end.complete, left), (false, 0));
    // The cap is met below the topmost table.
    let (visits, end, left) = visited(first, u64::MAX, 403 + 1 + 1 + 100);
    assert_eq!((visits.len(), end.complete, left), (5, false, 0));

    let lower = [
        table(ROOT, 0, 1 << 48),
        table(0x7000, 0, 1 << 39),
        leaf(0, 0x8000_0000, 1 << 30, true),
    ];
    assert_eq!(visited(0, !first, 4096).0, lower);
}

#[test]
fn a_visit_keeps_to_its_first_and_last_address() {
    let above = [
        table(ROOT, 0, 1 << 48),
        table(0x2000, BASE, 1 << 39),
        table(0x3000, BASE, 1 << 30),
    ];
    let small = table(0x4000, BASE, 2 * MIB);
    let last_small = leaf(BASE + 0x1f_f000, 0x6000, 0x1000, false);
    let one = leaf(BASE + 2 * MIB, 0xa0_0000, 2 * MIB, true);
    let other = leaf(BASE + 4 * MIB, 0xe0_0000, 2 * MIB, false);
    let between = |first, last| {
        let (visits, end, _) = visited(BASE + first, BASE + last, 1 << 20);
        assert!(end.complete);
        let (common, rest) = visits.split_at(above.len());
        assert_eq!(common, above);
        rest.to_vec()
    };
    assert_eq!(between(2 * MIB, 4 * MIB), [one, other]);
    assert_eq!(between(2 * MIB, 4 * MIB - 1), [one]);
    assert_eq!(between(4 * MIB - 1, 4 * MIB - 1), [one]);
    assert_eq!(between(3 * MIB, 5 * MIB), [one, other]);
    assert_eq!(between(4 * MIB, 4 * MIB), [other]);
    assert_eq!(between(6 * MIB - 1, 7 * MIB), [other]);
    assert_eq!(between(6 * MIB, 7 * MIB), []);
    let found = between(2 * MIB - 1, 2 * MIB);
    assert_eq!(found, [small, last_small, one]);
}

#[test]
fn a_table_is_left_out_when_the_visitor_says_so() {
    let memory = memory_to_visit();
    let mut leaves = Vec::new();
    let mut visitor = |visit| match visit {
        Visit::Table { bytes, .. } if bytes == 2 * MIB => Descend::Skip,
        Visit::Table { .. } => Descend::Into,
        Visit::Leaf { at, .. } => {
            leaves.push(at.0 - BASE);
            Descend::Into
        }
    };
    let mut entries = 4096;
    let (first, last) = (GuestVirt(BASE), GuestVirt(u64::MAX));
    let end = four().visit(&memory.0, first, last, &mut entries, &mut visitor);
    // What is left out need not be readable.
    let all = VisitEnd {
        complete: true,
        unreadable_tables: 0,
    };
    assert_eq!((end, entries), (all, 4096 - 3 * 512));
    assert_eq!(leaves, [2 * MIB, 4 * MIB, 1 << 30]);
}

#[test]
fn the_upper_half_of_five_levels_begins_where_the_top_bit_is_set() {
    let mut memory = Memory::new();
    memory.set(ROOT, 255, 0x2000 | TABLE);
    memory.set(ROOT, 256, 0x3000 | TABLE);
    let five = PageTables::new(ROOT, Levels::Five, 0);
    let mut visits = Vec::new();
    let mut visitor = |visit| {
        visits.push(visit);
        Descend::Into
    };
    let (first, last) = (five.upper_half(), GuestVirt(u64::MAX));
    five.visit(&memory.0, first, last, &mut 4096, &mut visitor);
    let half = table(0x3000, 0xff00_0000_0000_0000, 1 << 48);
    assert_eq!(visits, [table(ROOT, 0, 1 << 57), half]);
}
