// SPDX-License-Identifier: LGPL-2.1-or-later
//! Going on with a dump whose writer was killed in the middle of a write.

use super::guest::{dump, Guest, CHUNK};
use super::recorder::{apply, Call};
use crate::addr::Pfn;
use crate::dump::reader::Reader;
use crate::dump::{Codec, Unfinished};
use std::fs;

#[test]
fn a_page_whose_descriptor_was_cut_is_dumped_again() {
    let guest = Guest {
        frames: 400,
        seed: 3,
    };
    let sink = dump(guest, Codec::NONE, 4096, guest.chunks(CHUNK));
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

    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("guest.kdump.incomplete");
    fs::write(&path, image).unwrap();
    let unfinished = Unfinished::open(&path).unwrap().expect("a header");
    let stored = |rank: u64| unfinished.stored().get(Pfn(pfns[rank as usize]));
    assert!(!stored(rank), "the page has no checksum");
    assert!(!stored(rank + 1), "the page has no descriptor");
    assert!((0..rank).any(stored), "no page is there");
}
