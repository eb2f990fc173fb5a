// SPDX-License-Identifier: LGPL-2.1-or-later
//! ELF dumps: what is where, by the format's own rules, and chunks that come back in time.

use super::gated::Gated;
use super::guest::{config, Guest, Memory, CHUNK};
use super::recorder::{Call, Image, Recorder};
use crate::addr::{Page, Pfn, PAGE_SIZE};
use crate::dump::{
    verify, Bitmap, Bitmaps, Chunk, Codec, Completed, Engine, EngineConfig, Error, Finding,
    FlatSink, Format, Pages, Sink, Summary, Unreadable,
};
use std::ops::Range;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::Arc;
use std::time::Duration;

/// Long enough for a chunk that comes back on a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);

const RAM: [Range<u64>; 2] = [0..150, 200..288];
const EXCLUDED: Range<u64> = 100..110;
const ZERO: Range<u64> = 60..64;
const UNREADABLE: u64 = 70;

/// Memory each page of which is full of a number of its own, but for [`ZERO`].
struct Numbered(u64);

fn content(pfn: u64) -> u8 {
    match ZERO.contains(&pfn) {
        true => 0,
        false => (pfn % 251) as u8 + 1,
    }
}

impl Pages for Numbered {
    fn copy(&self, index: usize, into: &mut Page) -> Result<(), Unreadable> {
        let pfn = self.0 + index as u64;
        into.fill(content(pfn));
        match pfn {
            UNREADABLE => Err(Unreadable),
            _ => Ok(()),
        }
    }
}

fn elf() -> EngineConfig {
    EngineConfig {
        format: Format::Elf,
        ..config(Codec::NONE)
    }
}

type Started = (Engine<Numbered>, Receiver<Completed<Numbered>>);

fn start(sink: impl Sink + 'static) -> Result<Started, Error> {
    let end = Pfn(RAM[1].end);
    let mut present = Bitmap::new(end).unwrap();
    RAM.iter()
        .for_each(|run| present.set_range(Pfn(run.start), Pfn(run.end)));
    let mut wanted = present.clone();
    wanted.clear_range(Pfn(EXCLUDED.start), Pfn(EXCLUDED.end));
    let bitmaps = Arc::new(Bitmaps::new(present, wanted).unwrap());
    let facts = Guest { frames: 0, seed: 0 }.facts();
    Engine::start(Box::new(sink), &facts, bitmaps, elf())
}

/// A complete dump.
fn dumped() -> (Recorder, Summary) {
    let sink = Recorder::new(4096);
    let (engine, _completed) = start(sink.clone()).unwrap();
    for first in (0..RAM[1].end).step_by(CHUNK as usize) {
        let chunk = Chunk {
            first: Pfn(first),
            count: CHUNK.min(RAM[1].end - first) as usize,
            pages: Numbered(first),
        };
        engine.submit(chunk).unwrap();
    }
    (sink, engine.finish().unwrap())
}

fn number<const N: usize>(image: &Image, offset: u64) -> u64 {
    let mut bytes = [0; 8];
    bytes[..N].copy_from_slice(&image.0[offset as usize..][..N]);
    u64::from_le_bytes(bytes)
}

/// Type, offset, physical address and size of a segment, by its `Elf64_Phdr`.
fn segment(image: &Image, index: u64) -> [u64; 4] {
    let at = number::<8>(image, 32) + index * number::<2>(image, 54);
    let [offset, address, size] = [8, 24, 32].map(|field| number::<8>(image, at + field));
    [number::<4>(image, at), offset, address, size]
}

#[test]
fn every_page_of_ram_is_where_its_segment_says() {
    let (sink, summary) = dumped();
    let image = sink.image();
    assert_eq!(number::<2>(&image, 56), 3, "segments");
    let [kind, notes, _, notes_size] = segment(&image, 0);
    assert_eq!(kind, 4, "PT_NOTE");
    let mut end = 0;
    for (index, run) in (1..).zip(RAM) {
        let [kind, offset, address, size] = segment(&image, index);
        let pages = run.end - run.start;
        assert_eq!((kind, address, size), (1, run.start * 4096, pages * 4096));
        for pfn in run.clone() {
            let at = (offset + (pfn - run.start) * 4096) as usize;
            let is_there = pfn != UNREADABLE && !EXCLUDED.contains(&pfn);
            let right = if is_there { content(pfn) } else { 0 };
            let found = &image.0[at..][..PAGE_SIZE];
            assert!(found.iter().all(|&byte| byte == right), "frame {pfn}");
        }
        end = offset + size;
    }
    assert_eq!(sink.prepared(), Some((notes + notes_size, end)));
    assert_eq!((sink.length(), summary.length), (Some(end), end));
    let progress = summary.progress;
    assert_eq!((progress.pages, summary.wanted_pages), (228, 228));
    let counts = (
        progress.zero_pages,
        progress.unreadable_pages,
        progress.left_out_pages,
    );
    assert_eq!(counts, (4, 1, 0));
}

#[test]
fn only_long_runs_of_pages_go_past_the_page_cache() {
    let (sink, _) = dumped();
    let image = sink.image();
    let [first, second] = [1, 2].map(|index| segment(&image, index)[1]);
    let place = |pfn: u64| match RAM[0].contains(&pfn) {
        true => first + pfn * 4096,
        false => second + (pfn - RAM[1].start) * 4096,
    };
    let run = |pages: Range<u64>| (place(pages.start), (pages.end - pages.start) * 4096);
    let mut past = sink.pages();
    past.sort_unstable();
    assert_eq!(past, [0..60, 200..256, 256..288].map(run));
    let is_page = |call: Call| match call {
        Call::Write { offset, bytes } if offset >= first => Some((offset, bytes.len() as u64)),
        _ => None,
    };
    let mut all: Vec<_> = sink.calls().into_iter().filter_map(is_page).collect();
    all.sort_unstable();
    let short = [64..70, 71..100, 110..128, 128..150].map(run);
    let mut right = [past, short.into()].concat();
    right.sort_unstable();
    assert_eq!(all, right);
}

/// Memory that says when it is first looked at.
struct Told {
    memory: Memory,
    seen: Sender<u64>,
}

impl Pages for Told {
    fn copy(&self, index: usize, into: &mut Page) -> Result<(), Unreadable> {
        self.seen.send(self.memory.first).unwrap();
        self.memory.copy(index, into)
    }
}

/// A slow disk has always more to do: memory must not wait until it has not.
#[test]
fn a_chunk_comes_back_while_others_wait_to_be_written() {
    let guest = Guest {
        frames: 3 * CHUNK,
        seed: 7,
    };
    let (sink, gate) = Gated::new();
    let config = EngineConfig {
        threads: 1,
        ..elf()
    };
    let (engine, completed) = guest.start(sink, config);
    gate.close();
    let (seen, sees) = mpsc::channel();
    for Chunk {
        first,
        count,
        pages,
    } in guest.chunks(CHUNK)
    {
        let (memory, seen) = (pages, seen.clone());
        let pages = Told { memory, seen };
        let chunk = Chunk {
            first,
            count,
            pages,
        };
        engine.submit(chunk).unwrap();
    }
    // The one thread that reads is at the third: the second waits to be written.
    while sees.recv_timeout(DEADLINE).unwrap() < 2 * CHUNK {}
    let first_of_ram = 4096;
    while gate.wait_arrival() < first_of_ram + CHUNK * 4096 {
        assert!(completed.try_recv().is_err(), "it is still being written");
        gate.let_through();
    }
    let back = completed
        .recv_timeout(DEADLINE)
        .map(|done| done.chunk.first);
    gate.open();
    gate.let_through();
    engine.finish().unwrap();
    assert_eq!(back, Ok(Pfn(0)));
}

#[test]
fn a_stream_holds_no_elf_dump() {
    let refused = start(FlatSink::new(tempfile::tempfile().unwrap()));
    let said = refused.err().unwrap().to_string();
    let right = "a stream cannot hold ELF: write to a file or a block device, or use kdump";
    assert_eq!(said, right);
}

#[test]
fn what_an_elf_dump_says_that_cannot_be_is_told() {
    let image = dumped().0.image().0;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("dump");
    let found = |at: usize, bytes: &[u8]| {
        let mut copy = image.clone();
        copy[at..][..bytes.len()].copy_from_slice(bytes);
        std::fs::write(&path, copy).unwrap();
        verify(&path).unwrap().finding
    };
    let cut = |what: &str| Finding::Incomplete(format!("ends before {what}"));
    let damaged = |what: &str| Finding::Damaged(what.into());
    let name = image.windows(7).position(|part| part == b"VICOVER");
    let note = name.expect("our own note") - 12;
    let (kind, size, count) = (16, 54, 56);
    let (notes, load) = (64, 64 + 56);
    assert_eq!(found(0, b"\x7fELF"), Finding::Complete);
    for (at, value, right) in [
        (kind, 2, damaged("not an ELF core of 64 bits")),
        (size, 32, damaged("not an ELF core of 64 bits")),
        (kind, 0, cut("the header")),
        (size, 0, cut("the header")),
        (count, 0, cut("the header")),
        (load, 0, cut("the program headers")),
        // All but the last is no longer told to be notes.
        (notes, 1, damaged("does not say whether it is complete")),
        // The notes end within the first of them.
        (
            notes + 32,
            8,
            damaged("does not say whether it is complete"),
        ),
        (note + 12, 0, damaged("does not say whether it is complete")),
        (note + 20, 1, Finding::Incomplete("was not finished".into())),
    ] {
        assert_eq!(found(at, &[value, 0]), right, "{value} at {at}");
    }
    assert_eq!(found(note, &[0; 24]), cut("the notes"));
    assert_eq!(found(load + 32, &[0xff; 8]), cut("a segment's end"));
}
