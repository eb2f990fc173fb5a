// SPDX-License-Identifier: LGPL-2.1-or-later
//! Saved before released; usable at every moment; complete last.

use super::gated::Gated;
use super::guest::{config, dump, Guest, CHUNK, CODECS};
use super::recorder::{apply, Call, Image, Recorder};
use crate::dump::reader::{Flaw, Reader};
use crate::dump::{ChunkOutcome, Codec, EngineConfig, Pacer, ZLIB};
use proptest::prelude::*;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn any_order_of_chunks_gives_the_same_memory(
        frames in 1u64..700,
        seed in 0u64..1000,
        codec in 0usize..3,
        block in prop_oneof![Just(1usize), Just(512), Just(4096)],
        size in 1u64..300,
        order in any::<prop::sample::Index>(),
    ) {
        let guest = Guest { frames, seed };
        let mut chunks = guest.chunks(size);
        let turn = order.index(chunks.len());
        chunks.rotate_left(turn);
        chunks.reverse();
        let sink = dump(guest, CODECS[codec], block, chunks);
        prop_assert_eq!(guest.compare(sink.image()).unwrap(), guest.readable());
    }
}

/// Pages are described by their rank, and runs of them at once: where one ends, and the
/// next does not begin, another may.
#[test]
fn a_run_of_pages_goes_on_only_with_the_page_after_its_last() {
    let guest = Guest {
        frames: 60,
        seed: 3,
    };
    let wanted: Vec<u64> = (0..60).filter(|&pfn| guest.wanted(pfn)).collect();
    // A chunk of the wanted pages of these ranks.
    let of_ranks = |from: u64, to: u64| {
        let at = |rank: u64| wanted.get(rank as usize).copied().unwrap_or(guest.frames);
        guest.chunk(at(from), at(to) - at(from))
    };
    let all = wanted.len() as u64;
    for first in 2..6 {
        for count in 3..6 {
            let (end, other) = (first + count, first * count);
            let (sink, one_at_a_time) = (Recorder::new(4096), 1);
            let config = EngineConfig {
                threads: one_at_a_time,
                ..config(Codec::NONE)
            };
            let (engine, _completed) = guest.start(sink.clone(), config);
            for (from, to) in [
                (first, end),
                (other, other + 2),
                (other + 2, all),
                (end, other),
                (0, first),
            ] {
                engine.submit(of_ranks(from, to.max(from))).unwrap();
            }
            engine.finish().unwrap();
            let found = guest.compare(sink.image()).unwrap();
            assert_eq!(found, guest.readable(), "{first} and {count} more");
        }
    }
}

#[test]
fn a_chunk_that_comes_back_can_be_read_from_the_dump() {
    for codec in CODECS {
        let guest = Guest {
            frames: 1500,
            seed: 7,
        };
        let sink = Recorder::new(4096);
        let (engine, completed) = guest.start(sink.clone(), config(codec));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for chunk in guest.chunks(CHUNK) {
                    engine.submit(chunk).unwrap();
                }
                engine.finish().unwrap();
            });
            for done in completed {
                // What is in the sink now is all that is left of the chunk once
                // its memory has been given away.
                let reader = Reader::open(sink.image()).unwrap();
                let wanted = reader.wanted_pfns();
                let first = done.chunk.first.0;
                let mut pages = 0;
                for (rank, pfn) in (0..).zip(wanted) {
                    if pfn < first || pfn >= first + done.chunk.count as u64 {
                        continue;
                    }
                    pages += 1;
                    let stored = reader.descriptors(rank, 1).unwrap()[0];
                    let content = (!guest.unreadable(pfn)).then(|| guest.page(pfn));
                    assert!(reader.page(stored).unwrap() == content, "frame {pfn:#x}");
                }
                assert!(matches!(done.outcome, ChunkOutcome::Saved { pages: n } if n == pages));
            }
        });
    }
}

#[test]
fn a_chunk_does_not_come_back_while_any_of_its_writes_is_due() {
    for codec in CODECS {
        let guest = Guest {
            frames: CHUNK,
            seed: 7,
        };
        let (sink, gate) = Gated::new();
        let (engine, completed) = guest.start(sink, config(codec));
        gate.close();
        engine.submit(guest.chunk(0, CHUNK)).unwrap();
        let mut too_early = Vec::new();
        for write in ["data", "descriptors"] {
            gate.wait_arrival();
            too_early.extend(completed.try_recv().map(|_| write));
            gate.let_through();
        }
        gate.open();
        engine.finish().unwrap();
        assert!(too_early.is_empty(), "back before its {too_early:?}");
        let done = completed.recv().expect("the chunk");
        assert!(matches!(done.outcome, ChunkOutcome::Saved { pages: 48 }));
    }
}

#[test]
fn every_prefix_of_the_writes_is_a_usable_dump() {
    for codec in CODECS {
        let guest = Guest {
            frames: 300,
            seed: 3,
        };
        let calls = dump(guest, codec, 4096, guest.chunks(CHUNK)).calls();
        let mut image = Vec::new();
        let mut best = 0;
        for (index, call) in calls.iter().enumerate() {
            let Call::Write { offset, bytes } = call else {
                continue;
            };
            // A killed writer leaves a write cut where a page of the file ends.
            let to_page_end = 4096 - (*offset % 4096) as usize;
            for part in [to_page_end.min(bytes.len()), bytes.len()] {
                apply(&mut image, *offset, &bytes[..part]);
                let dump = Image(image.clone());
                match guest.compare(dump.clone()) {
                    Ok(found) => {
                        assert!(found >= best, "pages were lost again");
                        best = found;
                    }
                    // Before the header has been written.
                    Err(Flaw::Cut(_)) => assert_eq!(best, 0),
                    Err(flaw) => panic!("write {index}: {flaw}"),
                }
                let complete = Reader::open(dump).is_ok_and(|reader| reader.marked_complete());
                let last_write = !calls[index + 1..]
                    .iter()
                    .any(|c| matches!(c, Call::Write { .. }));
                assert!(!complete || last_write, "marked complete at write {index}");
            }
        }
        assert_eq!(best, guest.readable());
    }
}

#[test]
fn the_final_mark_follows_a_sync_and_precedes_another() {
    let guest = Guest {
        frames: 300,
        seed: 1,
    };
    let calls = dump(guest, Codec::NONE, 1, guest.chunks(CHUNK)).calls();
    let [before, last @ ..] = &calls[calls.len() - 4..] else {
        panic!("too few calls");
    };
    assert!(matches!(before, Call::Sync), "{before:?}");
    assert!(matches!(
        last,
        [Call::Write { offset: 0, .. }, Call::Sync, Call::Publish]
    ));
    let syncs = calls
        .iter()
        .filter(|call| matches!(call, Call::Sync))
        .count();
    assert_eq!(syncs, 3);
}

#[test]
fn the_header_follows_a_sync_of_all_that_it_points_at() {
    let guest = Guest {
        frames: 300,
        seed: 1,
    };
    let calls = dump(guest, Codec::NONE, 1, guest.chunks(CHUNK)).calls();
    let is_header = |call: &Call| matches!(call, Call::Write { offset: 0, .. });
    let header = calls.iter().position(is_header).expect("a header");
    assert!(header > 3, "tables are written before it: {header}");
    assert!(matches!(calls[header - 1], Call::Sync));
}

#[test]
fn one_page_of_zeroes_is_stored_for_all() {
    let guest = Guest {
        frames: 1000,
        seed: 0,
    };
    let sink = dump(guest, Codec::NONE, 1, guest.chunks(CHUNK));
    let own = |&pfn: &u64| guest.wanted(pfn) && !guest.unreadable(pfn) && pfn % 5 != 0;
    let stored = (0..guest.frames).filter(own).count();
    let reader = Reader::open(sink.image()).unwrap();
    let data = sink.length().unwrap() - reader.tables_end();
    assert_eq!(data, (stored as u64 + 1) * 4096);
}

#[derive(Default)]
struct Counting(AtomicU64);

impl Pacer for Counting {
    fn acquire(&self, wanted: u64) -> u64 {
        // Two pages at a time.
        let granted = wanted.min(8192);
        self.0.fetch_add(granted, Ordering::Relaxed);
        granted
    }
}

#[test]
fn the_pace_sees_every_byte() {
    let guest = Guest {
        frames: 500,
        seed: 2,
    };
    let pacer = Arc::new(Counting::default());
    let mut config = config(ZLIB.fastest());
    config.pacer = Some(pacer.clone());
    let sink = Recorder::new(1);
    let (engine, _completed) = guest.start(sink.clone(), config);
    for chunk in guest.chunks(CHUNK) {
        engine.submit(chunk).unwrap();
    }
    let summary = engine.finish().unwrap();
    let written: u64 = sink
        .calls()
        .iter()
        .map(|call| match call {
            Call::Write { bytes, .. } => bytes.len() as u64,
            _ => 0,
        })
        .sum();
    assert_eq!(pacer.0.load(Ordering::Relaxed), written);
    assert_eq!(summary.progress.bytes, written);
}
