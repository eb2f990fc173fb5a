// SPDX-License-Identifier: LGPL-2.1-or-later
//! How much is written at once: buffers are filled, and memory waits for no more than so
//! many pages.

use super::guest::{config, state, SMALL_BUFFERS};
use super::recorder::{Call, Recorder};
use crate::addr::{Page, Pfn};
use crate::dump::buffer::{Sizes, State};
use crate::dump::format_writer::FormatWriter;
use crate::dump::kdump_writer::KdumpWriter;
use crate::dump::output::Output;
use crate::dump::{Bitmap, Bitmaps, Chunk, Codec, Engine, EngineConfig, Facts, Pages, Unreadable};
use std::sync::Arc;

/// Pages that are all full of one byte.
struct Filled(u8);

impl Pages for Filled {
    fn copy(&self, _index: usize, into: &mut Page) -> Result<(), Unreadable> {
        into.fill(self.0);
        Ok(())
    }
}

/// So many pages, all of them wanted.
fn bitmaps(pages: u64) -> Arc<Bitmaps> {
    let mut all = Bitmap::new(Pfn(pages)).unwrap();
    all.set_range(Pfn(0), Pfn(pages));
    Arc::new(Bitmaps::new(all.clone(), all).unwrap())
}

/// Dumps one chunk of so many pages; returns what was written where to.
fn dump(pages: u64, byte: u8) -> Vec<(u64, u64)> {
    let sink = Recorder::new(4096);
    let config = EngineConfig {
        threads: 1,
        ..config(Codec::NONE)
    };
    let (engine, _completed) = Engine::start(
        Box::new(sink.clone()),
        &Facts::default(),
        bitmaps(pages),
        config,
    )
    .unwrap();
    let chunk = Chunk {
        first: Pfn(0),
        count: pages as usize,
        pages: Filled(byte),
    };
    engine.submit(chunk).unwrap();
    engine.finish().unwrap();
    let write = |call: Call| match call {
        Call::Write { offset, bytes } => Some((offset, bytes.len() as u64)),
        _ => None,
    };
    sink.calls().into_iter().filter_map(write).collect()
}

/// Where the descriptors of these dumps are: after a block each of headers, of notes and of
/// two bitmaps.
const DESCRIPTORS: u64 = 4 * 4096;

#[test]
fn a_buffer_tells_of_4096_pages_at_most() {
    let table = DESCRIPTORS..DESCRIPTORS + 9000 * 24;
    let writes = dump(9000, 0).into_iter();
    let descriptors: Vec<_> = writes.filter(|(at, _)| table.contains(at)).collect();
    let rank = |rank: u64| DESCRIPTORS + rank * 24;
    let full = 4096 * 24;
    let right = [(rank(0), full), (rank(4096), full), (rank(8192), 808 * 24)];
    assert_eq!(descriptors, right);
}

#[test]
fn a_buffer_is_filled_with_pages_to_its_end() {
    let data = (DESCRIPTORS + 300 * 24).next_multiple_of(4096) + 4096;
    let writes = dump(300, 7).into_iter();
    let pages: Vec<_> = writes.filter(|(at, _)| *at >= data).collect();
    let size = Sizes::new(SMALL_BUFFERS, 1).unwrap().size as u64;
    let rest = 300 * 4096 - 2 * size;
    let right = [(data, size), (data + size, size), (data + 2 * size, rest)];
    assert_eq!(pages, right);
}

#[test]
fn descriptors_of_4096_pages_are_written_whatever_else_waits() {
    let sizes = Sizes::new(SMALL_BUFFERS, 1).unwrap();
    let shared = state(bitmaps(5000), sizes);
    let sink = Box::new(Recorder::new(1));
    let output = &mut Output::new(sink, None, shared.clone());
    let mut writer = KdumpWriter::begin(output, &Facts::default(), &shared, 1 << 16).unwrap();
    let mut buffer = shared.pool.lend().unwrap();
    for (first_rank, pages, is_full) in [(0, 4095, false), (4095, 1, true), (4096, 1, true)] {
        buffer.first_rank = first_rank;
        buffer.slots = vec![State::Zero; pages];
        writer.add(output, &buffer).unwrap();
        assert_eq!(writer.is_full(), is_full);
    }
    assert_eq!(writer.flush(output).unwrap().pages, 4097);
    assert!(!writer.is_full());
}
