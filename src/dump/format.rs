// SPDX-License-Identifier: LGPL-2.1-or-later
//! What the writing thread needs from an output format.

use super::buffer::{Buffer, State};
use super::codec::Codec;
use super::engine::Counters;
use super::error::Error;
use super::output::Output;
use std::sync::atomic::Ordering;

/// What a dump looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// kdump-compressed, header version 6: excluded pages take no space, and
    /// readers report them as excluded.
    Kdump(Codec),
    /// ELF core as /proc/vmcore has it, uncompressed: every page of RAM has its
    /// place, those excluded, zero or lost are holes and read as zeroes. Has no
    /// manifest.
    Elf,
}

impl Format {
    /// What the name of a complete dump ends in.
    pub(super) fn suffix(self) -> &'static str {
        match self {
            Self::Kdump(_) => "kdump",
            Self::Elf => "elf",
        }
    }

    /// Whether checksums of it are kept.
    pub(super) fn has_manifest(self) -> bool {
        matches!(self, Self::Kdump(_))
    }

    /// How its pages are compressed.
    pub(super) fn codec(self) -> Codec {
        match self {
            Self::Kdump(codec) => codec,
            Self::Elf => Codec::None,
        }
    }
}

/// Puts pages into a dump. Used by one thread.
pub(super) trait FormatWriter: Send {
    /// Takes the pages of one buffer; they are in the dump after the next flush.
    fn add(&mut self, output: &mut Output, buffer: &Buffer) -> Result<(), Error>;

    /// Whether a flush is due even though more pages are waiting.
    fn is_full(&self) -> bool;

    /// Writes everything taken so far; returns what that was.
    fn flush(&mut self, output: &mut Output) -> Result<Written, Error>;

    /// Length of the dump as far as written, in bytes.
    fn length(&self) -> u64;

    /// Makes sure everything is on disk, marks the dump as complete, makes sure
    /// of that, and lets the sink publish it.
    fn complete(&mut self, output: &mut Output) -> Result<(), Error>;

    /// Takes the mark back, if it was made.
    fn mark_incomplete(&mut self, output: &mut Output) -> Result<(), Error>;
}

/// Pages that a flush has written.
#[derive(Clone, Copy, Default)]
pub(super) struct Written {
    pub(super) pages: u64,
    zero: u64,
    unreadable: u64,
    left_out: u64,
}

impl Written {
    pub(super) fn add(&mut self, states: &[State]) {
        let count = |wanted: State| states.iter().filter(|&&state| state == wanted).count() as u64;
        self.pages += states.len() as u64;
        self.zero += count(State::Zero);
        self.unreadable += count(State::Unreadable);
        self.left_out += count(State::NoRoom);
    }

    pub(super) fn count_into(self, counters: &Counters) {
        counters.pages.fetch_add(self.pages, Ordering::Relaxed);
        counters.zero_pages.fetch_add(self.zero, Ordering::Relaxed);
        counters
            .unreadable_pages
            .fetch_add(self.unreadable, Ordering::Relaxed);
        counters
            .left_out_pages
            .fetch_add(self.left_out, Ordering::Relaxed);
    }
}
