// SPDX-License-Identifier: LGPL-2.1-or-later
//! What a dump says while it is written, and who does not wait for a disk that hangs.

use super::gated::Gated;
use super::guest::{config, Guest, Memory, CHUNK};
use super::recorder::Recorder;
use crate::addr::{Page, Pfn};
use crate::dump::{
    Chunk, ChunkOutcome, Codec, Engine, EngineConfig, Error, Failure, Notice, Pages, Sink, Summary,
    Unreadable, ZLIB,
};
use crate::limits::cancel::Cancel;
use std::io;
use std::path::PathBuf;
use std::sync::{mpsc, Arc, Mutex};
use std::time::{Duration, Instant};

/// How long a write may take after a cancel.
const GRACE: Duration = Duration::from_millis(500);

const GUEST: Guest = Guest {
    frames: 10 * CHUNK,
    seed: 5,
};

/// Dumps all but so many chunks; returns how that ended and what was said.
fn dump(sink: impl Sink + 'static, but: usize) -> (Result<Summary, Failure>, Vec<String>) {
    let told = Arc::new(Mutex::new(Vec::new()));
    let heard = told.clone();
    let config = EngineConfig {
        notices: Some(Arc::new(move |notice| {
            let text = match notice {
                Notice::Stopped(error) => format!("stopped: {}", error.chain()),
                Notice::NotSynced(error) => format!("not synced: {}", error.chain()),
                Notice::NotLasting(error) => format!("not lasting: {}", error.chain()),
            };
            heard.lock().unwrap().push(text);
        })),
        ..config(ZLIB.fastest())
    };
    let (engine, _completed) = GUEST.start(sink, config);
    for chunk in GUEST.chunks(CHUNK).into_iter().skip(but) {
        engine.submit(chunk).unwrap();
    }
    let ended = engine.finish();
    let told = told.lock().unwrap().clone();
    (ended, told)
}

#[test]
fn why_nothing_more_is_written_is_told_once_and_at_once() {
    let mut sink = Recorder::new(1);
    sink.room = Some(100_000);
    let (ended, told) = dump(sink, 0);
    let failure = ended.unwrap_err();
    let full = "No space left on device (os error 28)";
    assert_eq!(told, [format!("stopped: cannot write pages: {full}")]);
    assert!(failure.told);
}

#[test]
fn that_pages_were_not_handed_in_is_for_the_end_to_tell() {
    let (ended, told) = dump(Recorder::new(1), 1);
    let failure = ended.unwrap_err();
    assert!(!failure.told && told.is_empty(), "{told:?}");
    let right = "48 of 480 pages were never handed in";
    assert_eq!(failure.cause.to_string(), right);
}

#[test]
fn an_incomplete_dump_that_does_not_come_to_the_disk_is_told() {
    let mut sink = Recorder::new(1);
    // The tables do.
    sink.syncs = Some(1);
    let (ended, told) = dump(sink, 1);
    assert!(!ended.unwrap_err().told);
    let refused = "Input/output error (os error 5)";
    assert_eq!(told, [format!("not synced: cannot write dump: {refused}")]);
}

/// A sink whose dump has its name, perhaps not for long.
struct Doubtful(Recorder);

impl Sink for Doubtful {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_at(offset, bytes)
    }
    fn prepare(&mut self, tables: u64, whole: u64) -> io::Result<()> {
        self.0.prepare(tables, whole)
    }
    fn set_length(&mut self, length: u64) -> io::Result<()> {
        self.0.set_length(length)
    }
    fn sync(&mut self) -> io::Result<()> {
        self.0.sync()
    }
    fn publish(&mut self, manifest: Option<&str>) -> io::Result<()> {
        self.0.publish(manifest)
    }
    fn path(&self) -> Option<PathBuf> {
        Some("/dumps/guest".into())
    }
    fn doubt(&mut self) -> Option<io::Error> {
        Some(io::Error::from(io::ErrorKind::TimedOut))
    }
}

#[test]
fn a_name_that_may_not_last_is_told_of_a_complete_dump() {
    let (ended, told) = dump(Doubtful(Recorder::new(1)), 0);
    assert_eq!(ended.unwrap().path, Some("/dumps/guest".into()));
    let what = "/dumps/guest: cannot write name of the dump to the disk: timed out";
    assert_eq!(told, [format!("not lasting: {what}")]);
}

fn cancellable(cancel: &Cancel) -> EngineConfig {
    EngineConfig {
        cancel: cancel.clone(),
        ..config(Codec::NONE)
    }
}

#[test]
fn who_cancels_does_not_wait_for_a_disk_that_hangs() {
    let (sink, gate) = Gated::new();
    let (disk, cancel) = (sink.inner(), Cancel::default());
    let (engine, completed) = GUEST.start(sink, cancellable(&cancel));
    gate.close();
    engine.submit(GUEST.chunk(0, CHUNK)).unwrap();
    gate.wait_arrival();
    engine.submit(GUEST.chunk(CHUNK, CHUNK)).unwrap();
    let before = disk.calls().len();
    cancel.ask();
    let refused = engine.submit(GUEST.chunk(2 * CHUNK, CHUNK)).unwrap_err();
    assert_eq!(format!("{refused:?}"), "Chunk(0x80..0xc0)");
    let since = Instant::now();
    let failure = engine.finish().unwrap_err();
    assert!(since.elapsed() >= GRACE, "a write may still take that long");
    assert!(matches!(&*failure.cause, Error::Cancelled) && !failure.told);
    assert_eq!(
        (failure.summary.wanted_pages, failure.summary.progress.pages),
        (480, 0)
    );
    let is_lost = |outcome| matches!(outcome, ChunkOutcome::Lost(_));
    let back = completed.iter();
    let mut back: Vec<_> = back
        .map(|done| (done.chunk.first.0, is_lost(done.outcome)))
        .collect();
    back.sort_unstable();
    assert_eq!(back, [(0, true), (CHUNK, true)]);
    // It is let go in the end, and does nothing more.
    gate.let_through();
    gate.wait_gone();
    assert_eq!(disk.calls().len(), before + 1);
}

#[test]
fn who_cancels_does_not_wait_for_headers_on_a_disk_that_hangs() {
    let (sink, gate) = Gated::new();
    gate.close();
    let cancel = Cancel::default();
    let config = cancellable(&cancel);
    let (facts, bitmaps) = (GUEST.facts(), GUEST.bitmaps());
    std::thread::scope(|scope| {
        let starting = scope.spawn(|| {
            let started = Engine::<Memory>::start(Box::new(sink), &facts, bitmaps, config);
            started.map(drop).unwrap_err().to_string()
        });
        gate.wait_arrival();
        cancel.ask();
        assert_eq!(starting.join().unwrap(), "cancelled by the caller");
    });
    gate.let_through();
    gate.wait_gone();
}

#[test]
fn a_dump_that_was_cancelled_before_it_began_has_nothing_in_it() {
    let (sink, cancel) = (Recorder::new(1), Cancel::default());
    cancel.ask();
    let config = cancellable(&cancel);
    let started = Engine::<Memory>::start(
        Box::new(sink.clone()),
        &GUEST.facts(),
        GUEST.bitmaps(),
        config,
    );
    assert!(matches!(started.map(drop), Err(Error::Cancelled)));
    assert!(sink.calls().is_empty());
    assert_eq!(sink.prepared(), None);
}

#[test]
fn a_slow_disk_is_waited_for_as_long_as_nobody_cancels() {
    let guest = Guest {
        frames: CHUNK,
        seed: 5,
    };
    let (sink, gate) = Gated::new();
    let (engine, _completed) = guest.start(sink, config(Codec::NONE));
    gate.close();
    engine.submit(guest.chunk(0, CHUNK)).unwrap();
    gate.wait_arrival();
    let (ended, ends) = mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(move || ended.send(engine.finish()));
        let too_early = ends.recv_timeout(2 * GRACE).is_ok();
        gate.open();
        gate.let_through();
        assert!(!too_early, "it was not waited for");
        ends.recv().unwrap().unwrap();
    });
}

/// Memory none of which can be read.
struct Unmapped;

impl Pages for Unmapped {
    fn copy(&self, _index: usize, _into: &mut Page) -> Result<(), Unreadable> {
        Err(Unreadable)
    }
}

#[test]
fn a_dump_of_nothing_is_complete_unless_something_was_wanted() {
    // Of the first guest nothing is wanted, of the second three pages.
    for (guest, right) in [
        (Guest { frames: 1, seed: 3 }, None),
        (
            Guest { frames: 4, seed: 3 },
            Some("none of 3 pages could be read"),
        ),
    ] {
        let (engine, _completed) = guest.start(Recorder::new(1), config(Codec::NONE));
        let chunk = Chunk {
            first: Pfn(0),
            count: guest.frames as usize,
            pages: Unmapped,
        };
        engine.submit(chunk).unwrap();
        let why = engine
            .finish()
            .err()
            .map(|failure| failure.cause.to_string());
        assert_eq!(why.as_deref(), right);
    }
}

#[test]
fn chunks_come_back_also_from_a_writer_that_cannot_even_say_why_it_stops() {
    let mut sink = Recorder::new(1);
    (sink.room, sink.panics) = (Some(100_000), true);
    let config = EngineConfig {
        notices: Some(Arc::new(|_| panic!("a bug of whoever hears it"))),
        ..config(ZLIB.fastest())
    };
    let (engine, completed) = GUEST.start(sink, config);
    let submitted = GUEST
        .chunks(CHUNK)
        .into_iter()
        .map(|chunk| engine.submit(chunk));
    let refused = submitted.filter(Result::is_err).count();
    let cause = engine.finish().unwrap_err().cause.to_string();
    assert_eq!(
        cause,
        "internal error while writing: a bug of whoever hears it"
    );
    assert_eq!(completed.iter().count() + refused, 10);
}
