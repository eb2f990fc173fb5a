// SPDX-License-Identifier: LGPL-2.1-or-later
//! How far a dump is.

use super::buffer::State;
use std::sync::atomic::{AtomicU64, Ordering};

/// How far a dump is. Pages are counted once their descriptor is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Pages dealt with: stored, zero and unreadable ones.
    pub pages: u64,
    /// Of `pages`, those of zeroes only.
    pub zero_pages: u64,
    /// Of `pages`, those that could not be read.
    pub unreadable_pages: u64,
    /// Of `pages`, those that there was no room for.
    pub left_out_pages: u64,
    /// Bytes that have gone to the sink, headers and tables included.
    pub bytes: u64,
}

/// [`Progress`], to be read at any time by any thread.
#[derive(Default)]
pub(super) struct EngineCounters {
    pub(super) pages: AtomicU64,
    pub(super) zero_pages: AtomicU64,
    pub(super) unreadable_pages: AtomicU64,
    pub(super) left_out_pages: AtomicU64,
    pub(super) bytes: AtomicU64,
}

impl EngineCounters {
    pub(super) fn snapshot(&self) -> Progress {
        Progress {
            pages: self.pages.load(Ordering::Relaxed),
            zero_pages: self.zero_pages.load(Ordering::Relaxed),
            unreadable_pages: self.unreadable_pages.load(Ordering::Relaxed),
            left_out_pages: self.left_out_pages.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
        }
    }
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

    pub(super) fn count_into(self, counters: &EngineCounters) {
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
