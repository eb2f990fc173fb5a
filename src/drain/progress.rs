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
