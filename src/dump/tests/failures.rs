// SPDX-License-Identifier: LGPL-2.1-or-later
//! A failing dump is never in the way: chunks come back, nothing hangs, and
//! what was written can be read.

use super::guest::{config, Guest, Memory, CHUNK, CODECS};
use super::recorder::{Call, Recorder};
use crate::addr::Page;
use crate::dump::reader::{Flaw, Reader};
use crate::dump::{
    verify, Chunk, ChunkOutcome, Codec, EngineConfig, Error, Failure, FileSink, Finding, Pages,
    Unreadable, ZLIB,
};
use crate::limits::cancel::Cancel;
use crate::os::sync::mpsc::Receiver;
use std::time::Duration;

/// Long enough for any of these on a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);

/// Hands everything in and counts what came back saved and lost.
fn run<P: Pages + 'static>(
    guest: Guest,
    sink: Recorder,
    codec: Codec,
    chunks: Vec<Chunk<P>>,
) -> (u64, u64, Result<(), Failure>) {
    let (engine, completed) = guest.start(sink, config(codec));
    let count = chunks.len() as u64;
    for chunk in chunks {
        engine.submit(chunk).unwrap();
    }
    let (saved, lost) = outcomes(&completed, count);
    (saved, lost, engine.finish().map(drop))
}

fn outcomes<P>(completed: &Receiver<crate::dump::Completed<P>>, count: u64) -> (u64, u64) {
    let (mut saved, mut lost) = (0, 0);
    for back in 0..count {
        match completed.recv_timeout(DEADLINE) {
            Ok(done) => match done.outcome {
                ChunkOutcome::Saved { .. } => saved += 1,
                ChunkOutcome::Lost(_) => lost += 1,
            },
            Err(error) => panic!("{back} of {count} chunks came back: {error}"),
        }
    }
    (saved, lost)
}

#[test]
fn a_full_disk_loses_the_rest_and_nothing_else() {
    let guest = Guest {
        frames: 2000,
        seed: 5,
    };
    for codec in [Codec::NONE, ZLIB.fastest()] {
        for room in [50_000, 100_000, 300_001, 1_000_000, 2_000_000] {
            let mut sink = Recorder::new(1);
            sink.room = Some(room);
            // The second half comes first: later descriptors, earlier data.
            let mut chunks = guest.chunks(CHUNK);
            chunks.rotate_left(16);
            let (saved, lost, end) = run(guest, sink.clone(), codec, chunks);
            if let Ok(()) = end {
                assert_eq!(lost, 0);
                continue;
            }
            let Error::Write { source, .. } = &*end.unwrap_err().cause else {
                panic!("another error");
            };
            assert_eq!(source.raw_os_error(), Some(libc::ENOSPC));
            assert!(lost > 0, "no chunk was lost");
            let found = guest.compare(sink.image()).unwrap();
            assert!(
                found >= saved * CHUNK / 2,
                "{saved} chunks saved, {found} pages"
            );
            assert!(!Reader::open(sink.image()).unwrap().marked_complete());
        }
    }
}

#[test]
fn a_dump_that_is_not_known_to_be_on_disk_is_not_marked_complete() {
    let guest = Guest {
        frames: 640,
        seed: 5,
    };
    for syncs in [1, 2] {
        let mut sink = Recorder::new(1);
        sink.syncs = Some(syncs);
        let (_, lost, end) = run(guest, sink.clone(), Codec::NONE, guest.chunks(CHUNK));
        assert_eq!(lost, 0);
        let cause = end.unwrap_err().cause;
        let Error::Write { source, .. } = &*cause else {
            panic!("{cause}");
        };
        assert_eq!(source.raw_os_error(), Some(libc::EIO));
        assert!(!Reader::open(sink.image()).unwrap().marked_complete());
        assert_eq!(guest.compare(sink.image()).unwrap(), guest.readable());
    }
}

#[test]
fn a_dump_whose_tables_do_not_come_to_the_disk_has_no_page() {
    let guest = Guest {
        frames: 640,
        seed: 5,
    };
    let mut sink = Recorder::new(1);
    sink.syncs = Some(0);
    let chunks = guest.chunks(CHUNK);
    let count = chunks.len() as u64;
    let (saved, lost, end) = run(guest, sink.clone(), Codec::NONE, chunks);
    assert_eq!((saved, lost), (0, count));
    assert!(matches!(
        &*end.unwrap_err().cause,
        Error::Write { what: "tables", .. }
    ));
    assert!(matches!(Reader::open(sink.image()), Err(Flaw::Cut(_))));
}

#[test]
fn pages_that_there_is_no_room_for_are_left_out_and_counted() {
    let guest = Guest {
        frames: 2000,
        seed: 5,
    };
    for codec in [Codec::NONE, ZLIB.fastest()] {
        let whole = Recorder::new(1);
        run(guest, whole.clone(), codec, guest.chunks(CHUNK))
            .2
            .unwrap();
        let whole = whole.length().unwrap();
        for limit in [whole, whole - 1, whole / 2, whole / 4] {
            let dir = tempfile::tempdir().unwrap();
            let config = EngineConfig {
                limit: Some(limit),
                ..config(codec)
            };
            let sink = FileSink::create(dir.path(), "guest", 0, config.format).unwrap();
            let (engine, _completed) = guest.start(sink, config);
            for chunk in guest.chunks(CHUNK) {
                engine.submit(chunk).unwrap();
            }
            let summary = engine.finish().unwrap();
            assert!(summary.length <= limit && summary.length + 8192 > limit);
            let report = verify(&summary.path.unwrap()).unwrap();
            assert_eq!(report.finding, Finding::Complete);
            let left_out = summary.progress.left_out_pages;
            assert_eq!(left_out == 0, limit == whole);
            assert_eq!(
                report.lost_pages,
                summary.progress.unreadable_pages + left_out
            );
        }
    }
}

#[test]
fn a_panic_while_writing_ends_the_dump_only() {
    let guest = Guest {
        frames: 1000,
        seed: 5,
    };
    let mut sink = Recorder::new(1);
    sink.room = Some(500_000);
    sink.panics = true;
    let (_, lost, end) = run(guest, sink.clone(), Codec::NONE, guest.chunks(CHUNK));
    assert!(lost > 0);
    let failure = end.unwrap_err();
    assert!(
        matches!(&*failure.cause, Error::Panicked { doing: "writing", message } if message.contains("own bug"))
    );
    guest.compare(sink.image()).unwrap();
}

/// Memory whose mapping is broken from a frame on.
struct Broken {
    memory: Memory,
    from: usize,
}

impl Pages for Broken {
    fn copy(&self, index: usize, into: &mut Page) -> Result<(), Unreadable> {
        assert!(index < self.from, "a bug in the mapping");
        self.memory.copy(index, into)
    }
}

#[test]
fn a_panic_while_reading_loses_one_chunk() {
    let guest = Guest {
        frames: 1024,
        seed: 5,
    };
    for codec in CODECS {
        let chunks: Vec<_> = guest
            .chunks(CHUNK)
            .into_iter()
            .map(|chunk| {
                let from = if chunk.first.0 == 5 * CHUNK {
                    30
                } else {
                    usize::MAX
                };
                Chunk {
                    first: chunk.first,
                    count: chunk.count,
                    pages: Broken {
                        memory: chunk.pages,
                        from,
                    },
                }
            })
            .collect();
        let sink = Recorder::new(4096);
        let (saved, lost, end) = run(guest, sink.clone(), codec, chunks);
        assert_eq!((saved, lost), (15, 1));
        let failure = end.unwrap_err();
        assert!(matches!(
            &*failure.cause,
            Error::Panicked {
                doing: "reading pages",
                ..
            }
        ));
        let found = guest.compare(sink.image()).unwrap();
        assert!(found >= guest.readable() - CHUNK && found < guest.readable());
    }
}

#[test]
fn a_dump_with_pages_missing_is_not_complete() {
    let guest = Guest {
        frames: 640,
        seed: 5,
    };
    let sink = Recorder::new(1);
    let mut chunks = guest.chunks(CHUNK);
    chunks.pop();
    let (saved, _, end) = run(guest, sink.clone(), Codec::NONE, chunks);
    assert_eq!(saved, 9);
    let cause = end.unwrap_err().cause;
    assert!(
        matches!(
            *cause,
            Error::Unsubmitted {
                missing: 48,
                wanted: 480
            }
        ),
        "{cause}"
    );
    assert!(!Reader::open(sink.image()).unwrap().marked_complete());
}

#[test]
fn a_dump_that_is_cancelled_at_its_last_step_is_not_marked_complete() {
    let guest = Guest {
        frames: 640,
        seed: 5,
    };
    let (mut sink, cancel) = (Recorder::new(1), Cancel::default());
    // The tables, the pages, the mark.
    sink.cancelled_at = Some((3, cancel.clone()));
    let config = EngineConfig {
        cancel: cancel.clone(),
        ..config(Codec::NONE)
    };
    let (engine, _completed) = guest.start(sink.clone(), config);
    for chunk in guest.chunks(CHUNK) {
        engine.submit(chunk).unwrap();
    }
    engine.finish().unwrap_err();
    assert!(cancel.is_asked());
    let is_published = sink
        .calls()
        .iter()
        .any(|call| matches!(call, Call::Publish));
    assert!(!is_published, "it was cancelled");
    assert!(!Reader::open(sink.image()).unwrap().marked_complete());
}

#[test]
fn a_dropped_engine_writes_what_it_has_and_stays_incomplete() {
    let guest = Guest {
        frames: 640,
        seed: 5,
    };
    let sink = Recorder::new(1);
    let (engine, completed) = guest.start(sink.clone(), config(Codec::NONE));
    for chunk in guest.chunks(CHUNK) {
        engine.submit(chunk).unwrap();
    }
    drop(engine);
    // The senders are gone: no thread of the engine is left.
    assert_eq!(completed.try_iter().count(), 10);
    let reader = Reader::open(sink.image()).unwrap();
    assert!(!reader.marked_complete());
    assert_eq!(guest.compare(sink.image()).unwrap(), guest.readable());
}

#[test]
fn nobody_needs_to_listen() {
    let guest = Guest {
        frames: 640,
        seed: 5,
    };
    let (engine, completed) = guest.start(Recorder::new(1), config(Codec::NONE));
    drop(completed);
    for chunk in guest.chunks(CHUNK) {
        engine.submit(chunk).unwrap();
    }
    engine.finish().unwrap();
}

#[test]
fn a_sink_that_refuses_the_tables_is_an_error_at_once() {
    let guest = Guest {
        frames: 640,
        seed: 5,
    };
    let mut sink = Recorder::new(1);
    sink.room = Some(4000);
    let facts = crate::dump::Facts::default();
    let config = config(Codec::NONE);
    let started =
        crate::dump::Engine::<Memory>::start(Box::new(sink), &facts, guest.bitmaps(), config);
    assert!(matches!(started.err(), Some(Error::Write { .. })));
}
