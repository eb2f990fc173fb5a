// SPDX-License-Identifier: LGPL-2.1-or-later
//! The machine loses its power while a dump is written: of what was not synced some
//! sectors are on the disk and some are not, in any order.

use super::guest::{dump, Guest, CHUNK, CODECS};
use super::recorder::{apply, Call, Image};
use crate::dump::reader::{Flaw, Reader, Source, Stored};
use crate::dump::{verify, Report};

/// What a disk writes as a whole.
const SECTOR: usize = 512;
/// Power cuts at each call.
const CUTS: u64 = 16;

const GUEST: Guest = Guest {
    frames: 400,
    seed: 9,
};

/// Which sectors survive, from a seed.
struct Luck(u64);

impl Luck {
    /// Whether the next one does.
    fn survives(&mut self) -> bool {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 63 == 1
    }
}

/// What is on the disk when the power goes after these calls.
fn left(calls: &[Call], luck: &mut Luck) -> Vec<u8> {
    let is_sync = |call: &Call| matches!(call, Call::Sync);
    let synced = calls.iter().rposition(is_sync).map_or(0, |at| at + 1);
    let mut disk = Vec::new();
    for (index, call) in calls.iter().enumerate() {
        let Call::Write { offset, bytes } = call else {
            continue;
        };
        if index < synced {
            apply(&mut disk, *offset, bytes);
            continue;
        }
        let (mut at, mut rest) = (*offset, &bytes[..]);
        while !rest.is_empty() {
            let to_end = SECTOR - at as usize % SECTOR;
            let (sector, after) = rest.split_at(to_end.min(rest.len()));
            if luck.survives() {
                apply(&mut disk, at, sector);
            }
            (at, rest) = (at + sector.len() as u64, after);
        }
    }
    disk
}

/// Reads every page of what is left: each is the guest's, or lost, or found to have
/// changed. Returns how many are the guest's.
fn check(what: &str, disk: Vec<u8>) -> u64 {
    let disk = Image(disk);
    let reader = match Reader::open(disk.clone()) {
        Ok(reader) => reader,
        Err(Flaw::Cut(_)) => return 0,
        Err(flaw) => panic!("{what}: {flaw}"),
    };
    let wanted: Vec<u64> = (0..GUEST.frames).filter(|&pfn| GUEST.wanted(pfn)).collect();
    assert_eq!(reader.wanted_pfns(), wanted, "{what}: other pages");
    let (mut right, mut changed, mut unknown) = (0, 0, 0);
    for (rank, &pfn) in (0..).zip(&wanted) {
        let stored = reader.descriptors(rank, 1).map(|found| found[0]);
        let page = stored.and_then(|stored| Ok((stored, reader.page(stored)?)));
        match page {
            Ok((_, None)) => {}
            Ok((_, Some(page))) if page == GUEST.page(pfn) => right += 1,
            // Its descriptor lies in two sectors, and the checksum was in the one that
            // is lost.
            Ok((Stored::At { sum: None, .. }, _)) => unknown += 1,
            Ok(_) => panic!("{what}: frame {pfn:#x} has another content"),
            Err(_) => changed += 1,
        }
    }
    if reader.marked_complete() {
        let all = GUEST.readable();
        assert_eq!((right, changed, unknown), (all, 0, 0), "{what}");
    } else if unknown > 0 {
        let mut report = Report::of_nothing(disk.length(), false);
        let found = verify::check(disk, None, &mut report);
        assert!(matches!(found, Err(Flaw::Damaged(_))), "{what}: {found:?}");
    }
    right
}

#[test]
fn after_a_power_cut_every_page_is_right_or_found_to_be_missing() {
    let mut partly = 0;
    for codec in CODECS {
        let calls = dump(GUEST, codec, 4096, GUEST.chunks(CHUNK)).calls();
        for cut in 0..=calls.len() {
            for seed in 0..CUTS {
                let mut luck = Luck(seed << 32 | cut as u64);
                let what = format!("{codec:?}, after call {cut}, seed {seed}");
                let right = check(&what, left(&calls[..cut], &mut luck));
                partly += u64::from((1..GUEST.readable()).contains(&right));
            }
        }
    }
    assert!(partly > 50, "only {partly} dumps with some of the pages");
}
