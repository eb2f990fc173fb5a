// SPDX-License-Identifier: LGPL-2.1-or-later
//! The controllers: what the dump's writer may do, from one look at the host to
//! the next. Pure functions of samples and their time.

use std::time::Duration;

use super::adaptive::Adaptive;
use super::policy::Policy;
use super::sample::{Sample, WriteLimits, WriterTotals};

/// A controller wants to see the host this often. Twenty looks a second follow a
/// guest's boot, whose phases last some tenths of a second, and cost far less
/// than a hundredth of a processor.
pub const INTERVAL: Duration = Duration::from_millis(50);

/// Under every policy the dump goes on at this part of the disk's speed, so that
/// it ends: in a year-long storm of reads, too.
pub const FLOOR_SHARE: f64 = 0.02;
/// Where the disk's speed is not known yet, and for disks that hardly move:
/// bytes a second.
pub const LEAST_FLOOR: f64 = (1 << 20) as f64;

/// The least and the most that a controller has written at once. Less costs more
/// in requests than it carries; more is not there: the engine's blocks.
pub const PIECE: (u64, u64) = (128 << 10, 1 << 20);

/// One policy at work.
#[derive(Clone, Debug)]
pub enum Controller {
    /// Always the same limits.
    Constant(WriteLimits),
    /// [`Policy::Share`].
    Share(Share),
    /// [`Policy::RecoveryFirst`].
    RecoveryFirst(Box<RecoveryFirst>),
    /// [`Policy::Adaptive`].
    Adaptive(Box<Adaptive>),
}

impl Controller {
    /// Begins to follow `policy`.
    pub fn new(policy: Policy) -> Self {
        match policy {
            Policy::Unlimited => Self::Constant(WriteLimits::NONE),
            Policy::Fixed { bytes_per_s } => Self::Constant(WriteLimits {
                limit: Some(bytes_per_s),
                ..WriteLimits::NONE
            }),
            Policy::Share { percent } => Self::Share(Share {
                part: f64::from(percent) / 100.0,
                speed: Speed::default(),
            }),
            Policy::RecoveryFirst => Self::RecoveryFirst(Box::default()),
            Policy::Adaptive => Self::Adaptive(Box::default()),
        }
    }

    /// Whether it has to see the host at all.
    pub fn is_constant(&self) -> bool {
        matches!(self, Self::Constant(_))
    }

    /// What holds from `sample` on.
    pub fn limits(&mut self, sample: &Sample) -> WriteLimits {
        match self {
            Self::Constant(limits) => *limits,
            Self::Share(share) => share.limits(sample),
            Self::RecoveryFirst(first) => first.limits(sample),
            Self::Adaptive(adaptive) => adaptive.limits(sample),
        }
    }
}

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

/// Writes for its part of the time: the rest is everybody else's.
#[derive(Clone, Debug)]
pub struct Share {
    part: f64,
    speed: Speed,
}

impl Share {
    fn limits(&mut self, sample: &Sample) -> WriteLimits {
        self.speed.note(sample.dump);
        let rate = self.speed.now().map(|speed| speed * self.part);
        match rate.filter(|_| self.part < 1.0) {
            Some(rate) => WriteLimits {
                limit: limit(rate.max(LEAST_FLOOR * self.part)),
                ..WriteLimits::NONE
            },
            None => WriteLimits::NONE,
        }
    }
}

/// Holds the dump at its floor from recovery's first request until it has not
/// asked for anything for a while.
#[derive(Clone, Debug, Default)]
pub struct RecoveryFirst {
    last: Option<Sample>,
    active_at: Option<Duration>,
    speed: Speed,
}

impl RecoveryFirst {
    /// A guest that boots computes between its reads; this long without any it
    /// is taken to be doing something else.
    const QUIET: Duration = Duration::from_millis(500);

    fn limits(&mut self, sample: &Sample) -> WriteLimits {
        self.speed.note(sample.dump);
        let last = self.last.replace(*sample).unwrap_or(*sample);
        if is_active(&last, sample) {
            self.active_at = Some(sample.at);
        }
        let quiet = self
            .active_at
            .is_none_or(|at| sample.at.saturating_sub(at) >= Self::QUIET);
        match quiet || sample.stopped {
            true => WriteLimits::NONE,
            false => WriteLimits {
                limit: limit(self.speed.floor()),
                piece: Some(PIECE.1),
                yields: true,
            },
        }
    }
}

/// Whether recovery used its disks between two looks.
pub(super) fn is_active(last: &Sample, now: &Sample) -> bool {
    let seen = |sample: &Sample| sample.disk.map(|disk| (disk.sent, disk.requests));
    let Some(disk) = now.disk else { return false };
    disk.in_flight > 0 || seen(last).is_some_and(|before| before != (disk.sent, disk.requests))
}
