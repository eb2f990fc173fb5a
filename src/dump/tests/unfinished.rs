// SPDX-License-Identifier: LGPL-2.1-or-later
//! Going on with a dump whose writer was killed in the middle of a write.

use super::guest::{config, dump, Guest, CHUNK};
use super::recorder::{apply, Call};
use crate::addr::Pfn;
use crate::dump::facts::{Changes, Zeroed};
use crate::dump::reader::{FileSource, Reader};
use crate::dump::{Codec, Engine, Manifest, Unfinished};
use std::fs;
use std::path::Path;

const GUEST: Guest = Guest {
    frames: 400,
    seed: 3,
};

/// A dump in a file whose writer was killed in the middle of a write, its pages, and the
/// first of them that is lost, by its number among all.
fn killed(directory: &Path) -> (Unfinished, Vec<u64>, u64) {
    let sink = dump(GUEST, Codec::NONE, 4096, GUEST.chunks(CHUNK));
    let reader = Reader::open(sink.image()).unwrap();
    let pfns = reader.wanted_pfns();
    // A killed writer leaves a write cut where a page of the file ends: within the first
    // descriptor that lies in two.
    let is_cut = |rank: &u64| reader.descriptor_offset(*rank) % 4096 > 4096 - 24;
    let rank = (0..reader.wanted).find(is_cut).expect("a cut descriptor");
    let cut = reader.descriptor_offset(rank).next_multiple_of(4096);
    let mut image = sink.image().0;
    // As it was before the final mark, which is the last write.
    let header = sink.calls().into_iter().find_map(|call| match call {
        Call::Write { offset: 0, bytes } => Some(bytes),
        _ => None,
    });
    apply(&mut image, 0, &header.expect("a header"));
    let rest = (reader.data_start() - cut).min(4096) as usize;
    apply(&mut image, cut, &vec![0; rest]);

    let path = directory.join("guest.kdump.incomplete");
    fs::write(&path, image).unwrap();
    let unfinished = Unfinished::open(&path).unwrap().expect("a header");
    (unfinished, pfns, rank)
}

#[test]
fn a_page_whose_descriptor_was_cut_is_dumped_again() {
    let directory = tempfile::tempdir().unwrap();
    let (unfinished, pfns, rank) = killed(directory.path());
    let stored = |rank: u64| unfinished.stored().get(Pfn(pfns[rank as usize]));
    assert!(!stored(rank), "the page has no checksum");
    assert!(!stored(rank + 1), "the page has no descriptor");
    assert!((0..rank).any(stored), "no page is there");
}

#[test]
fn what_its_writer_changed_is_changed_in_the_rest_too_and_said_of_all() {
    let directory = tempfile::tempdir().unwrap();
    let (unfinished, pfns, rank) = killed(directory.path());
    let lost = pfns[rank as usize];
    let changes = Changes {
        translated_tables: true,
        zeroed: vec![Zeroed {
            pfn: lost,
            offset: 8,
            bytes: 8,
        }],
    };
    let unfinished = unfinished.with_changes(changes.clone());
    let (engine, completed) = Engine::resume(unfinished, config(Codec::NONE)).unwrap();
    for chunk in GUEST.chunks(CHUNK) {
        engine.submit(chunk).unwrap();
    }
    engine.finish().unwrap();
    drop(completed);
    let path = directory.path().join("guest.kdump");
    let file = FileSource::open(&path, fs::OpenOptions::new().read(true)).unwrap();
    let reader = Reader::open(file).unwrap();
    let stored = reader.descriptors(rank, 1).unwrap()[0];
    let page = reader.page(stored).unwrap().expect("a page");
    let mut right = GUEST.page(lost);
    assert_ne!(right[8..16], [0; 8]);
    right[8..16].fill(0);
    assert!(page == right);
    let sums = fs::read(directory.path().join("guest.kdump.sums")).unwrap();
    let manifest: Manifest = serde_json::from_slice(&sums).unwrap();
    assert_eq!(manifest.changes, changes);
}
