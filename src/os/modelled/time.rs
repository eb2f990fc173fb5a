// SPDX-License-Identifier: LGPL-2.1-or-later
//! Time: it passes when a wait ends by its deadline, and else stands.

use std::cell::Cell;
use std::ops::Add;
use std::time::Duration;

thread_local! {
    static NOW: Cell<Duration> = const { Cell::new(Duration::ZERO) };
    static TIMERS_RUN: Cell<bool> = const { Cell::new(true) };
}

/// A moment; see [`std::time::Instant`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Instant(Duration);

impl Instant {
    /// This one.
    pub(crate) fn now() -> Self {
        Self(NOW.get())
    }

    /// Time since then.
    pub(crate) fn elapsed(self) -> Duration {
        Self::now().saturating_duration_since(self)
    }

    /// Time since `earlier`.
    pub(crate) fn saturating_duration_since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Instant {
    type Output = Self;
    fn add(self, time: Duration) -> Self {
        Self(self.0 + time)
    }
}

/// A wait has ended by its deadline.
pub(super) fn passes(time: Duration) {
    NOW.set(NOW.get() + time);
}

/// From now on every wait is for a change, and as long as it takes.
pub(crate) fn never_time_out() {
    TIMERS_RUN.set(false);
}

/// Whether a wait may end by its deadline.
pub(super) fn timers_run() -> bool {
    TIMERS_RUN.get()
}

/// Time begins, and may pass.
pub(super) fn reset() {
    NOW.set(Duration::ZERO);
    TIMERS_RUN.set(true);
}
