// SPDX-License-Identifier: LGPL-2.1-or-later
//! Chunks of guest memory, on their way into a dump and back.

use super::error::{Error, Reason};
use crate::addr::{Page, Pfn};
use std::sync::Arc;

/// A page could not be read; the dump goes on without it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreadable;

/// One mapped chunk of guest memory, to be copied out page by page.
pub trait Pages: Send {
    /// Copies the page number `index` of the chunk, counted from 0.
    ///
    /// # Errors
    /// When there is no such page; the dump counts it and goes on.
    fn copy(&self, index: usize, into: &mut Page) -> Result<(), Unreadable>;

    /// Why pages of the chunk, which the guest has, could not be had. What there is
    /// of it is dumped, and the dump ends incomplete. Asked once, after the last
    /// page was copied.
    fn failure(&self) -> Option<Reason> {
        None
    }

    /// All of the chunk that was to be copied has been. It is kept until what
    /// was copied is written; meanwhile it need not occupy memory.
    fn finished(&self) {}
}

/// Consecutive page frames and where to copy them from. Those that the bitmap
/// of wanted pages names are dumped. No frame may be handed in twice.
pub struct Chunk<P> {
    /// The first frame.
    pub first: Pfn,
    /// Number of frames.
    pub count: usize,
    /// The frames' contents.
    pub pages: P,
}

impl<P> Chunk<P> {
    /// One past the last frame.
    pub(super) fn end(&self) -> Pfn {
        Pfn(self.first.0.saturating_add(self.count as u64))
    }
}

impl<P> std::fmt::Debug for Chunk<P> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Chunk({:#x}..{:#x})", self.first.0, self.end().0)
    }
}

/// What became of a chunk.
#[derive(Clone, Debug)]
pub enum ChunkOutcome {
    /// Data and descriptors of its wanted pages have been written.
    Saved {
        /// Number of wanted pages in it.
        pages: u64,
    },
    /// Not all of it could be written; it will not be.
    Lost(Arc<Error>),
}

/// A chunk comes back: its memory is no longer looked at.
#[derive(Debug)]
pub struct Completed<P> {
    /// What was handed in.
    pub chunk: Chunk<P>,
    /// What became of it.
    pub outcome: ChunkOutcome,
}
