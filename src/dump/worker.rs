// SPDX-License-Identifier: LGPL-2.1-or-later
//! Threads that copy pages out of chunks and compress them.

use super::buffer::{Buffer, Lease, State, MAX_SLOTS};
use super::chunk::{Chunk, Pages};
use super::codec::Compressor;
use super::engine_state::EngineState;
use super::error::Error;
use super::line::{Line, Taker};
use super::message::Message;
use super::pack::{is_zero, store_compressed, store_raw};
use crate::addr::{Page, Pfn, PAGE_SIZE};
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::Arc;

pub(super) struct Worker<P> {
    shared: Arc<EngineState>,
    compressor: Compressor,
    line: Arc<Line<P>>,
    /// Says that this thread takes no more chunks.
    _taker: Taker<P>,
}

impl<P: Pages> Worker<P> {
    pub(super) fn new(
        shared: Arc<EngineState>,
        compressor: Compressor,
        line: &Arc<Line<P>>,
    ) -> Self {
        Self {
            shared,
            compressor,
            line: Arc::clone(line),
            _taker: line.taker(),
        }
    }

    /// Works until there are no more chunks.
    pub(super) fn run(mut self) {
        while let Some(chunk) = self.line.chunks.pop() {
            let mut pages = 0;
            let stored = catch_unwind(AssertUnwindSafe(|| {
                let last = self.store(&chunk, &mut pages);
                (last, chunk.pages.failure())
            }));
            let (last, failure) = match stored {
                Ok((last, None)) => (last, None),
                Ok((last, Some(reason))) => {
                    let (first, end) = (chunk.first, chunk.end());
                    (last, Some(Error::Unread { first, end, reason }))
                }
                Err(panic) => {
                    // What the compressor was doing when it panicked is unknown.
                    if let Ok(compressor) = self.shared.codec.compressor() {
                        self.compressor = compressor;
                    }
                    (None, Some(Error::panicked("reading pages", panic)))
                }
            };
            let failure = failure.map(Arc::new);
            if let Some(error) = &failure {
                let _ = self.shared.fault.set(Arc::clone(error));
            }
            // It only spares memory: what a panic in it leaves undone harms nobody.
            let _ = catch_unwind(AssertUnwindSafe(|| chunk.pages.finished()));
            let end = Message::End {
                chunk,
                last,
                pages,
                failure,
            };
            if let Err(Message::End { chunk, .. }) = self.line.messages.push(end) {
                self.line.lose(chunk);
            }
        }
    }

    /// Sends the wanted pages of a chunk; counts them, and returns the last ones.
    /// Stops as soon as nothing more is written.
    fn store(&mut self, chunk: &Chunk<P>, pages: &mut u64) -> Option<Lease> {
        let shared = Arc::clone(&self.shared);
        let mut filling: Option<Lease> = None;
        // A buffer holds pages that follow each other in the table of descriptors.
        let mut follows = true;
        for pfn in shared.bitmaps.wanted().iter_range(chunk.first, chunk.end()) {
            if shared.stored.as_ref().is_some_and(|stored| stored.get(pfn)) {
                follows = false;
                continue;
            }
            let full = |lease: &Lease| {
                lease.bytes.len() - lease.used < PAGE_SIZE || lease.slots.len() == MAX_SLOTS
            };
            let mut lease = match filling.take() {
                Some(lease) if !follows || full(&lease) => {
                    self.line.messages.push(Message::Pages(lease)).ok()?;
                    self.lend(pfn)?
                }
                Some(lease) => lease,
                None => self.lend(pfn)?,
            };
            if shared.dead.get().is_some() {
                return None;
            }
            self.add(&mut lease, chunk, pfn);
            follows = true;
            *pages += 1;
            filling = Some(lease);
        }
        filling
    }

    fn lend(&self, first: Pfn) -> Option<Lease> {
        let mut lease = self.shared.pool.lend()?;
        lease.first = first;
        lease.first_rank = self.shared.bitmaps.rank(first);
        Some(lease)
    }

    fn add(&mut self, lease: &mut Lease, chunk: &Chunk<P>, pfn: Pfn) {
        let index = (pfn.0 - chunk.first.0) as usize;
        let at = lease.used;
        let out = &mut lease.bytes[at..];
        let copy = |page: &mut Page| {
            let copied = chunk.pages.copy(index, page);
            self.shared.changes.apply(pfn, page);
            copied
        };
        let state = if self.compressor.is_none() {
            store_raw(out, copy)
        } else {
            let mut page = [0; PAGE_SIZE];
            match copy(&mut page) {
                Err(_) => State::Unreadable,
                Ok(()) if is_zero(&page) => State::Zero,
                Ok(()) => store_compressed(&mut self.compressor, out, &page),
            }
        };
        let state = match state {
            State::Stored { size, flags, .. } => {
                let Buffer {
                    bytes, used, sum, ..
                } = &mut **lease;
                *used += size as usize;
                let mut page_sum = 0;
                if self.shared.summed {
                    // Now, while the page is in the processor's cache.
                    let mut page = crc32fast::Hasher::new();
                    page.update(&bytes[at..*used]);
                    sum.combine(&page);
                    page_sum = page.finalize();
                }
                State::Stored {
                    at: at as u32,
                    size,
                    flags,
                    sum: page_sum,
                }
            }
            other => other,
        };
        lease.slots.push(state);
    }
}
