// SPDX-License-Identifier: LGPL-2.1-or-later
//! Progress of the dump in the log: every tenth of it, and not more often than
//! people can read.

use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use crate::job::JobState;
use crate::told::event::DumpEvent;
use crate::units::Size;

const AT_MOST_EVERY: Duration = Duration::from_secs(1);

/// Remembers what was told.
pub(crate) struct ProgressLog<'a> {
    job: &'a JobState,
    told_tenths: u64,
    told_at: Option<Instant>,
}

impl<'a> ProgressLog<'a> {
    /// Nothing told yet.
    pub(crate) fn new(job: &'a JobState) -> Self {
        Self {
            job,
            told_tenths: 0,
            told_at: None,
        }
    }

    /// Writes a line when another tenth is done.
    pub(crate) fn tell(&mut self) {
        let counters = &self.job.counters;
        let (planned, dumped) = (
            counters.planned.load(Relaxed),
            counters.dumped.load(Relaxed),
        );
        let tenths = dumped * 10 / planned.max(1);
        let too_soon = self.told_at.is_some_and(|at| at.elapsed() < AT_MOST_EVERY);
        if tenths == self.told_tenths || too_soon {
            return;
        }
        self.told_tenths = tenths;
        self.told_at = Some(Instant::now());
        self.job.log.tell(DumpEvent::Progress {
            percent: tenths * 10,
            dumped_pages: dumped,
            planned_pages: planned,
            written: Size(counters.dump_bytes.load(Relaxed)),
            released: Size::of_pages(counters.released.load(Relaxed)),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::told::event::Event;
    use crate::told::kept::Kept;

    #[test]
    fn every_tenth_is_told_once_and_not_faster_than_people_read() {
        let kept = Kept::default();
        let job = JobState::new(kept.log("test"));
        let counters = &job.counters;
        counters.planned.store(1000, Relaxed);
        counters.dump_bytes.store(77, Relaxed);
        counters.released.store(2, Relaxed);
        let mut progress = ProgressLog::new(&job);
        let mut tell = |dumped: u64, told_at: Option<Instant>| {
            counters.dumped.store(dumped, Relaxed);
            progress.told_at = told_at;
            progress.tell();
            kept.events().len()
        };
        let long_ago = Instant::now().checked_sub(2 * AT_MOST_EVERY);
        // No time goes by until then.
        let just_now = Instant::now().checked_add(1000 * AT_MOST_EVERY);
        assert!(long_ago.is_some() && just_now.is_some());
        assert_eq!(tell(99, None), 0);
        assert_eq!(tell(310, None), 1);
        assert_eq!(tell(399, long_ago), 1);
        assert_eq!(tell(400, just_now), 1);
        assert_eq!(tell(400, long_ago), 2);
        let told = |percent, dumped_pages| {
            Event::Dump(DumpEvent::Progress {
                percent,
                dumped_pages,
                planned_pages: 1000,
                written: Size(77),
                released: Size(8192),
            })
        };
        assert_eq!(kept.events(), [told(30, 310), told(40, 400)]);
    }
}
