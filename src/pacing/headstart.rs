// SPDX-License-Identifier: LGPL-2.1-or-later
//! The head start: while a recovery domain boots, the dump leaves it the
//! processors.
//!
//! A booting guest keeps a processor busy, and the backends of its disks and
//! interfaces, in dom0, another. A dump at the same time makes its boot longer,
//! and nobody gains from that: the crashed guest's memory is only wanted once
//! recovery is short of it.

use std::time::Duration;

use super::guard::HIGH_PAGES;
use super::idle::IdleDetector;

/// A head start ends after this long at the latest, however busy the guest is: a service
/// that never idles is up by then, and the dump has to get on.
pub const LONGEST: Duration = Duration::from_secs(30);
/// The guest's use of its processors is measured over this long, so that the
/// short waits of a boot (for a device, for the disk) do not count as idleness.
pub const SPAN: Duration = Duration::from_millis(400);
/// A guest that used less than one part in so many of a processor waits for
/// something else than processors.
const IDLE_PART: u32 = 2;

/// Whether the dump rests.
#[derive(Debug)]
pub struct HeadStart {
    began: Duration,
    idle: IdleDetector,
    held: bool,
}

impl HeadStart {
    /// Begins at the time `now`, with the guest's first instruction.
    pub fn new(now: Duration) -> Self {
        Self {
            began: now,
            idle: IdleDetector::new(now, SPAN, IDLE_PART),
            held: true,
        }
    }

    /// Looks at the time `now` at the processor time that the guest has used in
    /// all, and at its memory: spare pages, and pages missing for it to be
    /// wholly backed. Returns whether the dump is to rest.
    pub fn look(&mut self, now: Duration, used: Duration, spare: u64, missing: u64) -> bool {
        if let Some(is_idle) = self.idle.look(now, used) {
            self.held = !is_idle;
        }
        let short = missing > 0 && spare < HIGH_PAGES;
        self.held && !short && !self.is_over(now)
    }

    /// Whether it has ended for good.
    pub fn is_over(&self, now: Duration) -> bool {
        now.saturating_sub(self.began) >= LONGEST
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLENTY: u64 = 10 * HIGH_PAGES;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_booting_guest_has_the_processors_to_itself() {
        let mut start = HeadStart::new(ms(1000));
        for step in 0..100 {
            let held = start.look(ms(1000 + 50 * step), ms(45 * step), PLENTY, 1);
            assert!(held, "let go after {} ms", 50 * step);
        }
    }

    #[test]
    fn an_idle_guest_lets_the_dump_go_on_until_it_is_busy_again() {
        let mut start = HeadStart::new(ms(0));
        assert!(start.look(ms(399), ms(0), PLENTY, 1));
        assert!(!start.look(ms(400), ms(10), PLENTY, 1));
        assert!(!start.look(ms(799), ms(400), PLENTY, 1));
        assert!(start.look(ms(800), ms(400), PLENTY, 1));
    }

    #[test]
    fn a_short_wait_within_a_busy_span_is_not_idleness() {
        let mut start = HeadStart::new(ms(0));
        assert!(start.look(ms(250), ms(250), PLENTY, 1));
        assert!(start.look(ms(400), ms(250), PLENTY, 1));
    }

    #[test]
    fn a_guest_short_of_memory_needs_the_dump() {
        let mut start = HeadStart::new(ms(0));
        assert!(start.look(ms(10), ms(10), HIGH_PAGES, 1));
        assert!(!start.look(ms(20), ms(20), HIGH_PAGES - 1, 1));
        assert!(start.look(ms(30), ms(30), HIGH_PAGES - 1, 0));
    }

    #[test]
    fn a_guest_that_never_idles_does_not_stop_the_dump_for_good() {
        let mut start = HeadStart::new(ms(0));
        let end = LONGEST.as_millis() as u64;
        let mut held = 0;
        for now in (0..3 * end).step_by(50) {
            held += u64::from(start.look(ms(now), ms(4 * now), PLENTY, 1)) * 50;
        }
        assert_eq!(held, end);
    }
}
