// SPDX-License-Identifier: LGPL-2.1-or-later
//! The memory guard: keeps a thinly backed guest from touching more memory
//! than it has.
//!
//! A guest that touches a page for the first time when none is spare is ended
//! (`host::xen::relied_on::pod_ends_guest`). So its processors are stopped before that,
//! until the dump has freed more.

use std::time::Duration;

use crate::addr::PAGE_SIZE;

/// Spare pages below which the guest is stopped: 32 MiB. A guest that clears
/// memory at 8 GiB/s takes 4 ms for it, several looks of the guard.
pub const LOW_PAGES: u64 = 8192;
/// Spare pages from which it runs again: 64 MiB, so that it does not flutter.
pub const HIGH_PAGES: u64 = 16384;

/// The fastest a guest uses memory up: 8 GiB/s, in pages per second.
const FASTEST_PAGES_PER_S: u64 = (8 << 30) / PAGE_SIZE as u64;
/// Near the low mark the guard looks this often.
const SHORTEST: Duration = Duration::from_millis(1);
/// However much there is, it looks this often.
const LONGEST: Duration = Duration::from_millis(50);

/// When to look again after a look that found `spare` pages while `missing`
/// were missing: before the fastest guest could be at the low mark.
pub fn look_again(spare: u64, missing: u64) -> Duration {
    if missing == 0 {
        return LONGEST;
    }
    let distance = spare.saturating_sub(LOW_PAGES);
    let micros = distance.saturating_mul(1_000_000) / FASTEST_PAGES_PER_S;
    Duration::from_micros(micros).clamp(SHORTEST, LONGEST)
}

/// What to do with the guest now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Act {
    /// Nothing.
    Leave,
    /// Stop its processors.
    Pause,
    /// Let them run.
    Unpause,
}

/// The guard's state.
#[derive(Default, Debug)]
pub struct Guard {
    paused: bool,
    pauses: u64,
}

impl Guard {
    /// Looks at what is `spare` and at what is `missing` for the guest to be wholly
    /// backed, both in pages.
    pub fn look(&mut self, spare: u64, missing: u64) -> Act {
        if self.paused && (missing == 0 || spare >= HIGH_PAGES) {
            self.paused = false;
            return Act::Unpause;
        }
        if !self.paused && missing > 0 && spare < LOW_PAGES {
            self.paused = true;
            self.pauses += 1;
            return Act::Pause;
        }
        Act::Leave
    }

    /// Whether the guest is stopped.
    pub fn is_paused(&self) -> bool {
        self.paused
    }

    /// How often it was stopped.
    pub fn pauses(&self) -> u64 {
        self.pauses
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_short_of_memory_is_stopped_once_and_released_later() {
        let mut guard = Guard::default();
        assert_eq!(guard.look(LOW_PAGES, 1), Act::Leave);
        assert_eq!(guard.look(LOW_PAGES - 1, 1), Act::Pause);
        assert_eq!(guard.look(LOW_PAGES - 1, 1), Act::Leave);
        assert_eq!(guard.look(HIGH_PAGES - 1, 1), Act::Leave);
        assert_eq!(guard.look(HIGH_PAGES, 1), Act::Unpause);
        assert_eq!(guard.pauses(), 1);
    }

    #[test]
    fn the_guard_looks_more_often_the_less_there_is() {
        assert_eq!(look_again(0, 1), SHORTEST);
        assert_eq!(look_again(LOW_PAGES, 1), SHORTEST);
        assert_eq!(look_again(1 << 40, 1), LONGEST);
        assert_eq!(look_again(0, 0), LONGEST);
        // 64 MiB above the mark last 7.8 ms at 8 GiB/s.
        let near = look_again(LOW_PAGES + 16384, 1);
        assert_eq!(near, Duration::from_micros(7812));
    }

    #[test]
    fn no_guest_gets_past_the_low_mark_by_more_than_the_shortest_interval() {
        for spare in (0..200_000).step_by(97) {
            let used = look_again(spare, 1).as_secs_f64() * FASTEST_PAGES_PER_S as f64;
            let left = spare as f64 - used;
            let least = LOW_PAGES.min(spare) as f64 - 2100.0;
            assert!(left >= least, "{spare} pages: {left} left");
        }
    }

    #[test]
    fn a_wholly_backed_guest_is_never_stopped_and_always_let_go() {
        let mut guard = Guard::default();
        assert_eq!(guard.look(0, 0), Act::Leave);
        assert_eq!(guard.look(0, 10), Act::Pause);
        assert_eq!(guard.look(0, 0), Act::Unpause);
        assert!(!guard.is_paused());
    }
}
