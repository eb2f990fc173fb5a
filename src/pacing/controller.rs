// SPDX-License-Identifier: LGPL-2.1-or-later
//! The controllers: what the dump's writer may do, from one look at the host to
//! the next. Pure functions of samples and their time.

use std::time::Duration;

use super::adaptive::Adaptive;
use super::policy::Policy;
use super::sample::{Sample, WriteLimits};
use super::speed::{is_active, limit, Speed, LEAST_FLOOR, PIECE};

/// A controller wants to see the host this often. Twenty looks a second follow a
/// guest's boot, whose phases last some tenths of a second, and cost far less
/// than a hundredth of a processor.
pub const INTERVAL: Duration = Duration::from_millis(50);

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
