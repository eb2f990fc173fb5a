// SPDX-License-Identifier: LGPL-2.1-or-later
//! A guest's list and page tables, made up in memory.

use std::collections::BTreeMap;

use super::p2m::{ListPlace, Listed, MachineFrames, P2m, ENTRY, PRESENT};
use super::tables::{shown, PageType, Tables};
use crate::addr::{Gfn, GuestVirt, Mfn, Page, PAGE_SIZE};
use crate::host::{HostError, Mapping};

const START: GuestVirt = GuestVirt(0xffff_c900_0000_0000);
const ROOT: Mfn = Mfn(0x900);
const PLACE: ListPlace = ListPlace {
    root: ROOT,
    start: START,
};

/// Machine frames with what is in them.
#[derive(Default)]
struct Machine(BTreeMap<u64, Page>);

struct Mapped(Vec<Option<Page>>);

impl Mapping for Mapped {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn is_present(&self, index: usize) -> bool {
        self.0.get(index).is_some_and(Option::is_some)
    }

    fn read(&self, index: usize, offset: usize, into: &mut [u8]) -> bool {
        let page = self.0.get(index).and_then(Option::as_ref);
        let bytes = page.and_then(|page| page.get(offset..offset + into.len()));
        bytes.map(|bytes| into.copy_from_slice(bytes)).is_some()
    }

    fn scrub(&self, _index: usize) {}
}

impl MachineFrames for Machine {
    fn map(&self, frames: &[Option<Mfn>]) -> Result<Box<dyn Mapping>, HostError> {
        let page = |mfn: &Option<Mfn>| mfn.and_then(|mfn| self.0.get(&mfn.0).copied());
        Ok(Box::new(Mapped(frames.iter().map(page).collect())))
    }
}

fn entry(mfn: u64) -> u64 {
    mfn << 12 | PRESENT
}

impl Machine {
    fn set(&mut self, mfn: u64, slot: usize, to: u64) {
        let page = self.0.entry(mfn).or_insert([0; PAGE_SIZE]);
        page[slot * ENTRY..][..ENTRY].copy_from_slice(&to.to_le_bytes());
    }

    /// Tables that lead to a list of which the first pages say this.
    fn with_list(listed: &[u64]) -> Self {
        let mut machine = Self::default();
        let slot = |bit: u32| (START.0 >> bit & 511) as usize;
        machine.set(ROOT.0, slot(39), entry(0x901));
        machine.set(0x901, slot(30), entry(0x902));
        machine.set(0x902, slot(21), entry(0x903));
        for (leaf, part) in listed.chunks(512).enumerate() {
            let frame = 0xa00 + leaf as u64;
            machine.set(0x903, leaf, entry(frame));
            for (slot, value) in part.iter().enumerate() {
                machine.set(frame, slot, *value);
            }
        }
        machine
    }

    fn p2m(&self, pages: u64) -> P2m {
        P2m::of(Listed::read(self, PLACE, pages).unwrap()).unwrap()
    }
}

#[test]
fn pages_and_machine_frames_lead_to_each_other() {
    let listed: Vec<u64> = (0..1300).map(|page| 0x5000 + (page ^ 1)).collect();
    let p2m = Machine::with_list(&listed).p2m(1300);
    for (gfn, mfn) in (0..).map(Gfn).zip(&listed) {
        assert_eq!(p2m.machine(gfn), Some(Mfn(*mfn)));
        assert_eq!(p2m.page(Mfn(*mfn)), Some(gfn));
    }
    assert_eq!(p2m.machine(Gfn(1300)), None);
    assert_eq!(p2m.page(Mfn(0x5000 + 1300)), None);
    assert_eq!(p2m.page(Mfn(u64::MAX)), None);
}

#[test]
fn no_more_is_read_than_a_guest_can_have_and_what_it_does_not_have_is_no_page() {
    let holes = [!0, 1 << 63 | 7, 1 << 62 | 8, u64::from(u32::MAX)];
    let listed: Vec<u64> = holes.into_iter().chain(0x5000..0x5600).collect();
    let mut machine = Machine::with_list(&listed);
    let p2m = machine.p2m(1000);
    assert!((0..4).all(|gfn| p2m.machine(Gfn(gfn)).is_none()));
    assert_eq!(p2m.machine(Gfn(4)), Some(Mfn(0x5000)));
    assert_eq!(p2m.machine(Gfn(1000)), None);
    // A page of the list, and then a table, are not the guest's.
    machine.0.remove(&0xa01);
    let p2m = machine.p2m(1000);
    assert_eq!(p2m.machine(Gfn(511)), Some(Mfn(0x5000 + 507)));
    assert_eq!(p2m.machine(Gfn(512)), None);
    machine.0.remove(&0x902);
    assert_eq!(machine.p2m(1000).machine(Gfn(4)), None);
}

#[test]
fn a_machine_frame_is_one_page_and_the_first_that_names_it_has_it() {
    let p2m = Machine::with_list(&[0x50, 0x51, 0x50, 0x52, 0x51]).p2m(5);
    let machine: Vec<_> = (0..5).map(|gfn| p2m.machine(Gfn(gfn))).collect();
    let of = |mfn| Some(Mfn(mfn));
    assert_eq!(machine, [of(0x50), of(0x51), None, of(0x52), None]);
    assert_eq!(p2m.page(Mfn(0x50)), Some(Gfn(0)));
}

#[test]
fn the_list_and_what_leads_to_it_are_known() {
    let listed = [0x50, 0x900, 0x901, 0x902, 0x903, 0xa00, 0x51];
    let p2m = Machine::with_list(&listed).p2m(7);
    let own: Vec<_> = (0..7).map(|gfn| p2m.is_own(Gfn(gfn))).collect();
    assert_eq!(own, [false, true, true, true, true, true, false]);
}

#[test]
fn a_list_that_begins_within_a_table_is_read_on_in_the_next() {
    let mut machine = Machine::with_list(&[]);
    let start = GuestVirt(START.0 + 510 * PAGE_SIZE as u64);
    machine.set(0x902, 1, entry(0x904));
    for (table, slot, frame) in [(0x903, 510, 0xa00), (0x903, 511, 0xa01), (0x904, 0, 0xa02)] {
        machine.set(table, slot, entry(frame));
        machine.set(frame, 3, frame + 0x1000);
    }
    let place = ListPlace { start, ..PLACE };
    let p2m = P2m::of(Listed::read(&machine, place, 3 * 512).unwrap()).unwrap();
    for leaf in 0..3 {
        let gfn = Gfn(leaf * 512 + 3);
        assert_eq!(p2m.machine(gfn), Some(Mfn(0x1a00 + leaf)));
    }
}

#[test]
fn a_list_at_the_end_of_all_addresses_ends_there() {
    let place = ListPlace {
        start: GuestVirt(u64::MAX - 0xfff),
        ..PLACE
    };
    let machine = Machine::with_list(&[0x50]);
    let listed = Listed::read(&machine, place, 4096).unwrap();
    assert_eq!(listed.entries(Gfn(0)).count(), 0);
}

const L1: u64 = 1 << 28;
const L4_PINNED: u64 = 4 << 28 | 1 << 31;
const ABSENT: u64 = 0xf << 28;
const BROKEN: u64 = 0xd << 28;

#[test]
fn what_xen_says_of_a_page_is_understood() {
    let table = |level, is_pinned| PageType::Table { level, is_pinned };
    assert_eq!(PageType::of(0), PageType::Plain);
    assert_eq!(PageType::of(L1), table(1, false));
    assert_eq!(PageType::of(L4_PINNED), table(4, true));
    assert_eq!(PageType::of(ABSENT), PageType::Absent);
    assert_eq!(PageType::of(BROKEN), PageType::Absent);
}

#[test]
fn tables_are_told_from_pages_and_pages_that_are_not_the_guests_are_gone() {
    let listed: Vec<u64> = (0x5000..0x5000 + 3000).collect();
    let machine = Machine::with_list(&listed);
    let mut listed = Listed::read(&machine, PLACE, 3000).unwrap();
    let types = |mfns: &[Mfn]| {
        assert!(mfns.len() <= 1024);
        let of = |mfn: &Mfn| match mfn.0 - 0x5000 {
            7 => L1,
            2500 => L4_PINNED,
            1024 => ABSENT,
            _ => 0,
        };
        Ok(mfns.iter().map(of).collect())
    };
    let tables = Tables::among(&mut listed, types).unwrap();
    assert_eq!(tables.pages().collect::<Vec<_>>(), [Gfn(7), Gfn(2500)]);
    assert_eq!(
        (tables.level(Gfn(7)), tables.level(Gfn(2500))),
        (Some(1), Some(4))
    );
    assert_eq!(
        (tables.level(Gfn(8)), tables.level(Gfn(3000))),
        (None, None)
    );
    let p2m = P2m::of(listed).unwrap();
    assert_eq!(p2m.machine(Gfn(1024)), None);
    assert_eq!(p2m.machine(Gfn(1025)), Some(Mfn(0x5000 + 1025)));
}

#[test]
fn tables_that_xen_does_not_know_any_more_are_reached_from_the_kernels_root() {
    let mut machine = Machine::with_list(&[0x900, 0x901, 0x902, 0x903, 0xa00, 0x50]);
    // Through an entry of Xen's nothing of the guest's is reached.
    machine.set(ROOT.0, 260, entry(0x50));
    let mut listed = Listed::read(&machine, PLACE, 6).unwrap();
    let unknown = |mfns: &[Mfn]| Ok(vec![0; mfns.len()]);
    let mut tables = Tables::among(&mut listed, unknown).unwrap();
    let p2m = P2m::of(listed).unwrap();
    tables.add_reached(&machine, &p2m, ROOT).unwrap();
    let levels: Vec<_> = (0..6).map(|gfn| tables.level(Gfn(gfn))).collect();
    assert_eq!(levels, [Some(4), Some(3), Some(2), Some(1), None, None]);
}

#[test]
fn a_guest_that_says_that_all_its_pages_are_tables_is_not_believed() {
    const PAGES: u64 = 8192;
    let (mut machine, start) = (Machine::with_list(&[]), 0x5000);
    let listed: Vec<u64> = (start..start + PAGES).collect();
    let mut listed = Listed::read(&Machine::with_list(&listed), PLACE, PAGES).unwrap();
    // Its root and the tables below lead to every page of its.
    for slot in 0..512u64 {
        machine.set(start, slot as usize, entry(start + slot));
        for page in (0..512).filter(|_| slot > 0) {
            machine.set(
                start + slot,
                page as usize,
                entry(start + (slot * 16 + page) % PAGES),
            );
        }
    }
    let unknown = |mfns: &[Mfn]| Ok(vec![0; mfns.len()]);
    let mut tables = Tables::among(&mut listed, unknown).unwrap();
    let p2m = P2m::of(listed).unwrap();
    tables.add_reached(&machine, &p2m, Mfn(start)).unwrap();
    let count = tables.pages().count() as u64;
    let most = PAGES / 64 + 4096;
    assert!(
        (most - 512..=most + 1).contains(&count),
        "{count} of {most}"
    );
}

#[test]
fn an_entry_names_the_guests_page_in_place_of_the_machines() {
    let p2m = Machine::with_list(&[0x50, 0x51]).p2m(2);
    let flags = 1 << 63 | 0x67;
    assert_eq!(shown(&p2m, 1, 3, 0x51 << 12 | flags), 1 << 12 | flags);
    // Not in force: where Linux has put the page by.
    assert_eq!(shown(&p2m, 1, 3, 0x51 << 12 | 0x66), 0x51 << 12 | 0x66);
    // Another's memory, and Xen's own entries.
    assert_eq!(shown(&p2m, 1, 3, entry(0x52)), 0);
    assert_eq!(shown(&p2m, 4, 256, entry(0x50)), 0);
    assert_eq!(shown(&p2m, 4, 271, entry(0x50)), 0);
    assert_eq!(shown(&p2m, 4, 272, entry(0x50)), entry(0));
    assert_eq!(shown(&p2m, 3, 256, entry(0x50)), entry(0));
}
