// SPDX-License-Identifier: LGPL-2.1-or-later
//! A synthetic guest, and what a dump of it must hold.

use super::recorder::Recorder;
use crate::addr::{Page, Pfn, PAGE_SIZE};
use crate::dump::buffer::{Pool, Sizes};
use crate::dump::engine_state::EngineState;
use crate::dump::facts::Changes;
use crate::dump::progress::EngineCounters;
use crate::dump::reader::{Flaw, Reader, Source};
use crate::dump::{
    Bitmap, Bitmaps, Chunk, Codec, Completed, Engine, EngineConfig, Facts, Format, Pages, Sink,
    Unreadable, ZLIB, ZSTD,
};
use crate::limits::cancel::Cancel;
use crate::os::sync::atomic::AtomicBool;
use crate::os::sync::mpsc::Receiver;
use crate::os::sync::OnceLock;
use std::sync::Arc;

/// Frames per chunk in tests that do not say otherwise.
pub(in crate::dump) const CHUNK: u64 = 64;
/// The smallest buffers that two threads can work with.
pub(in crate::dump) const SMALL_BUFFERS: usize = 2 << 20;

/// One of each codec.
pub(in crate::dump) const CODECS: [Codec; 3] = [Codec::NONE, ZLIB.fastest(), ZSTD.fastest()];

/// A guest of so many frames, every fourth of them not wanted.
#[derive(Clone, Copy, Debug)]
pub(in crate::dump) struct Guest {
    pub(in crate::dump) frames: u64,
    pub(in crate::dump) seed: u64,
}

impl Guest {
    pub(in crate::dump) fn wanted(self, pfn: u64) -> bool {
        (pfn ^ self.seed) % 4 != 3
    }

    pub(in crate::dump) fn unreadable(self, pfn: u64) -> bool {
        pfn % 97 == 5
    }

    /// Zeroes, noise and text in turn.
    pub(in crate::dump) fn page(self, pfn: u64) -> Page {
        let mut state = (pfn + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ self.seed;
        let mut noise = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            state.rotate_left(29)
        };
        // Word by word where it can be: tests without optimisation spend most
        // of their time here.
        let mut page = [0; PAGE_SIZE];
        match pfn % 5 {
            0 => {}
            1 => {
                for word in page.chunks_exact_mut(8) {
                    word.copy_from_slice(&noise().to_le_bytes());
                }
            }
            _ => {
                page.fill(b'x');
                page.iter_mut()
                    .step_by(37)
                    .for_each(|byte| *byte = noise() as u8);
            }
        }
        page
    }

    pub(in crate::dump) fn bitmaps(self) -> Arc<Bitmaps> {
        self.bitmaps_up_to(self.frames)
    }

    /// As [`Guest::bitmaps`], of a guest that could have more frames, up to `limit`.
    pub(in crate::dump) fn bitmaps_up_to(self, limit: u64) -> Arc<Bitmaps> {
        let mut present = Bitmap::new(Pfn(limit)).unwrap();
        present.set_range(Pfn(0), Pfn(self.frames));
        let mut wanted = Bitmap::new(Pfn(limit)).unwrap();
        (0..self.frames)
            .filter(|&pfn| self.wanted(pfn))
            .for_each(|pfn| wanted.set(Pfn(pfn)));
        Arc::new(Bitmaps::new(present, wanted).unwrap())
    }

    pub(in crate::dump) fn chunk(self, first: u64, count: u64) -> Chunk<Memory> {
        Chunk {
            first: Pfn(first),
            count: count.min(self.frames - first) as usize,
            pages: Memory { guest: self, first },
        }
    }

    pub(in crate::dump) fn chunks(self, count: u64) -> Vec<Chunk<Memory>> {
        let starts = (0..self.frames).step_by(count as usize);
        starts.map(|first| self.chunk(first, count)).collect()
    }

    pub(in crate::dump) fn facts(self) -> Facts {
        Facts {
            vmcoreinfo: b"OSRELEASE=6.1.0\n".to_vec(),
            ..Default::default()
        }
    }

    pub(in crate::dump) fn start<P: Pages>(
        self,
        sink: impl Sink + 'static,
        config: EngineConfig,
    ) -> (Engine<P>, Receiver<Completed<P>>) {
        Engine::start(Box::new(sink), &self.facts(), self.bitmaps(), config).unwrap()
    }

    /// Compares what a dump holds with the guest: `Ok` is the number of pages
    /// found, pages that are lost do not count.
    pub(in crate::dump) fn compare(self, dump: impl Source) -> Result<u64, Flaw> {
        let reader = Reader::open(dump)?;
        let pfns = reader.wanted_pfns();
        let wanted: Vec<_> = (0..self.frames).filter(|&pfn| self.wanted(pfn)).collect();
        assert_eq!(pfns, wanted);
        let mut found = 0;
        for (rank, pfn) in (0..).zip(pfns) {
            let stored = match reader.descriptors(rank, 1) {
                Ok(stored) => stored[0],
                Err(Flaw::Cut(_)) => continue,
                Err(flaw) => return Err(flaw),
            };
            if let Some(page) = reader.page(stored)? {
                assert!(page == self.page(pfn), "frame {pfn:#x} has another content");
                assert!(!self.unreadable(pfn), "frame {pfn:#x} could not be read");
                found += 1;
            }
        }
        Ok(found)
    }

    /// What [`Guest::compare`] finds in a complete dump.
    pub(in crate::dump) fn readable(self) -> u64 {
        let kept = |&pfn: &u64| self.wanted(pfn) && !self.unreadable(pfn);
        (0..self.frames).filter(kept).count() as u64
    }
}

/// Dumps all of a guest and returns the sink.
pub(in crate::dump) fn dump(
    guest: Guest,
    codec: Codec,
    block: usize,
    chunks: Vec<Chunk<Memory>>,
) -> Recorder {
    let sink = Recorder::new(block);
    let (engine, completed) = guest.start(sink.clone(), config(codec));
    let count = chunks.len();
    for chunk in chunks {
        engine.submit(chunk).unwrap();
    }
    let summary = engine.finish().unwrap();
    assert_eq!(completed.into_iter().count(), count);
    assert_eq!(summary.progress.pages, summary.wanted_pages);
    assert_eq!(Some(summary.length), sink.length());
    sink
}

/// What the threads of a dump without a limit share before any has begun.
pub(in crate::dump) fn state(bitmaps: Arc<Bitmaps>, sizes: Sizes) -> Arc<EngineState> {
    Arc::new(EngineState {
        bitmaps,
        stored: None,
        changes: Changes::default(),
        codec: Codec::NONE,
        summed: true,
        room: None,
        pool: Pool::new(sizes).unwrap(),
        counters: EngineCounters::default(),
        dead: OnceLock::new(),
        fault: OnceLock::new(),
        abandoned: AtomicBool::new(false),
        unwatched: AtomicBool::new(false),
        cancel: Cancel::default(),
    })
}

pub(in crate::dump) fn config(codec: Codec) -> EngineConfig {
    EngineConfig {
        format: Format::Kdump(codec),
        threads: 2,
        buffer_bytes: SMALL_BUFFERS,
        ..EngineConfig::default()
    }
}

/// The memory of one chunk.
#[derive(Debug)]
pub(in crate::dump) struct Memory {
    pub(in crate::dump) guest: Guest,
    pub(in crate::dump) first: u64,
}

impl Pages for Memory {
    fn copy(&self, index: usize, into: &mut Page) -> Result<(), Unreadable> {
        let pfn = self.first + index as u64;
        if self.guest.unreadable(pfn) {
            return Err(Unreadable);
        }
        *into = self.guest.page(pfn);
        Ok(())
    }
}
