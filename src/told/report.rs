// SPDX-License-Identifier: LGPL-2.1-or-later
//! What is said of a crash when it is over.

use std::sync::atomic::Ordering::Relaxed;

use super::event::{DumpEvent, RecoveryEvent};
use crate::dump::Summary;
use crate::error::Error;
use crate::job::JobState;
use crate::units::{Size, Span};

/// Says when what matters to the service happened.
pub(crate) fn report_times(job: &JobState) {
    let milestones = &job.milestones;
    job.log.tell(RecoveryEvent::Times {
        first_release: milestones.first_release.get().copied().map(Span),
        unpaused: milestones.unpaused.get().copied().map(Span),
        over: Span(job.elapsed()),
    });
}

/// Says that the dump is complete; what else became of it has been told.
pub(crate) fn report_dump(drained: Result<Summary, Error>, job: &JobState) -> Result<(), Error> {
    let Summary {
        progress,
        length,
        path,
        ..
    } = drained?;
    job.counters.dumped.store(progress.pages, Relaxed);
    job.counters.dump_bytes.store(length, Relaxed);
    if progress.left_out_pages > 0 {
        let pages = progress.left_out_pages;
        job.log.tell(DumpEvent::NoRoomForLast { pages });
    }
    job.log.tell(DumpEvent::Complete {
        pages: progress.pages,
        zero_pages: progress.zero_pages,
        unreadable_pages: progress.unreadable_pages,
        length: Size(length),
        path,
    });
    Ok(())
}
