// SPDX-License-Identifier: LGPL-2.1-or-later
//! What every controller knows of speed: the disk's, the least that a dump is allowed,
//! and whether recovery asks for anything.

use super::sample::{Sample, WriterTotals};

/// Under every policy the dump goes on at this part of the disk's speed, so that
/// it ends: in a year-long storm of reads, too.
pub const FLOOR_SHARE: f64 = 0.02;
/// Where the disk's speed is not known yet, and for disks that hardly move:
/// bytes a second.
pub const LEAST_FLOOR: f64 = (1 << 20) as f64;

/// The least and the most that a controller has written at once. Less costs more
/// in requests than it carries; more is not there: the engine's blocks.
pub const PIECE: (u64, u64) = (128 << 10, 1 << 20);

/// How fast the disk takes the dump while it writes.
#[derive(Clone, Debug, Default)]
pub(super) struct Speed {
    last: Option<WriterTotals>,
    /// The mean over about [`Speed::MEMORY`] of writing.
    now: Option<f64>,
    /// The best of these, slowly forgotten: what the disk gives a lone writer.
    best: Option<f64>,
}

impl Speed {
    /// The mean reaches back this far: long enough to even single writes out.
    const MEMORY: f64 = 0.2;
    /// A best speed is forgotten in this time, in seconds of writing.
    const FORGET: f64 = 20.0;

    /// Takes in what was written since the last call.
    pub(super) fn note(&mut self, totals: WriterTotals) {
        let last = *self.last.get_or_insert(totals);
        let busy = totals.busy.saturating_sub(last.busy).as_secs_f64();
        let bytes = totals.bytes.saturating_sub(last.bytes) as f64;
        // Less than a tenth of a millisecond says nothing by itself, but it adds up: a fast
        // disk that gets little to do is hardly ever busy for long.
        if busy < 1e-4 || bytes == 0.0 {
            return;
        }
        self.last = Some(totals);
        let speed = bytes / busy;
        let now = self.now.unwrap_or(speed);
        let now = now + (speed - now) * busy / (busy + Self::MEMORY);
        self.now = Some(now);
        let best = self.best.unwrap_or(now);
        let best = best + (now - best) * busy / (busy + Self::FORGET);
        self.best = Some(best.max(now));
    }

    /// Bytes a second of late.
    pub(super) fn now(&self) -> Option<f64> {
        self.now
    }

    /// Bytes a second of a lone writer, as far as that was seen.
    pub(super) fn best(&self) -> Option<f64> {
        self.best
    }

    /// The least that the dump is allowed, in bytes a second.
    pub(super) fn floor(&self) -> f64 {
        let known = self.best.unwrap_or(0.0) * FLOOR_SHARE;
        known.max(LEAST_FLOOR)
    }
}

/// A limit from a rate that is a plain number of bytes a second.
pub(super) fn limit(rate: f64) -> Option<u64> {
    Some(rate.clamp(1.0, (1u64 << 50) as f64) as u64)
}

/// Whether recovery used its disks between two looks.
pub(super) fn is_active(last: &Sample, now: &Sample) -> bool {
    let seen = |sample: &Sample| sample.disk.map(|disk| (disk.sent, disk.requests));
    let Some(disk) = now.disk else { return false };
    disk.in_flight > 0 || seen(last).is_some_and(|before| before != (disk.sent, disk.requests))
}
