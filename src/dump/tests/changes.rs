// SPDX-License-Identifier: LGPL-2.1-or-later
//! Dumps that are, for their readers' sake, not all that memory was.

use super::guest::{config, Guest};
use super::recorder::Recorder;
use crate::addr::PAGE_SIZE;
use crate::dump::facts::{Changes, Facts, Zeroed};
use crate::dump::reader::Reader;
use crate::dump::{Codec, Engine, ZLIB};

const GUEST: Guest = Guest {
    frames: 40,
    seed: 3,
};

/// The pages of a dump with these changes, of those that were wanted and could be read.
fn pages(codec: Codec, zeroed: Vec<Zeroed>) -> Vec<(u64, Vec<u8>)> {
    let facts = Facts {
        changes: Changes {
            translated_tables: false,
            zeroed,
        },
        ..GUEST.facts()
    };
    let sink = Recorder::new(PAGE_SIZE);
    let (bitmaps, config) = (GUEST.bitmaps(), config(codec));
    let (engine, completed) =
        Engine::start(Box::new(sink.clone()), &facts, bitmaps, config).unwrap();
    for chunk in GUEST.chunks(16) {
        engine.submit(chunk).unwrap();
    }
    engine.finish().unwrap();
    drop(completed);
    let reader = Reader::open(sink.image()).unwrap();
    let page = |(rank, pfn)| {
        let stored = reader.descriptors(rank, 1).unwrap()[0];
        Some((pfn, reader.page(stored).unwrap()?.to_vec()))
    };
    (0..).zip(reader.wanted_pfns()).filter_map(page).collect()
}

#[test]
fn bytes_that_are_to_be_zero_are_and_no_others() {
    for codec in [Codec::NONE, ZLIB.fastest()] {
        let before = pages(codec, Vec::new());
        let (pfn, bytes) = before
            .iter()
            .find(|(_, page)| page[1000..1010].iter().all(|byte| *byte != 0))
            .unwrap();
        let zeroed = |offset, bytes| Zeroed {
            pfn: *pfn,
            offset,
            bytes,
        };
        let mut right = bytes.clone();
        right[1001..1009].fill(0);
        // What is not in a page, as no statement of a caller's should be, is not looked at.
        let beyond = [zeroed(PAGE_SIZE - 4, 8), zeroed(usize::MAX, 8)];
        let after = pages(codec, [vec![zeroed(1001, 8)], beyond.to_vec()].concat());
        for (was, is) in before.iter().zip(&after) {
            let right = if was.0 == *pfn { &right } else { &was.1 };
            assert!(is.0 == was.0 && is.1 == *right, "frame {}", is.0);
        }
        assert_eq!(before.len(), after.len());
    }
}

#[test]
fn a_manifest_says_what_was_changed_and_nothing_where_nothing_was() {
    let text = |changes: &Changes| serde_json::to_string(changes).unwrap();
    assert!(Changes::default().is_none());
    let changes = Changes {
        translated_tables: true,
        zeroed: vec![Zeroed {
            pfn: 7,
            offset: 8,
            bytes: 8,
        }],
    };
    assert!(!changes.is_none());
    assert_eq!(
        text(&changes),
        r#"{"translated_tables":true,"zeroed":[{"pfn":7,"offset":8,"bytes":8}]}"#
    );
}
