// SPDX-License-Identifier: LGPL-2.1-or-later
//! What is said of a crash when it is over.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use crate::dump::Summary;
use crate::error::Error;
use crate::job::Shared;
use crate::told::log::job_log;
use crate::units::{Size, Span};

/// Says when what matters to the service happened.
pub(crate) fn report_times(shared: &Shared) {
    let after = |at: Option<&Duration>| match at {
        Some(at) => format!("after {}", Span(*at)),
        None => "never".into(),
    };
    job_log!(
        shared.log,
        Info,
        "times: first page released {}, recovery unpaused {}, all over {}",
        after(shared.milestones.first_release.get()),
        after(shared.milestones.unpaused.get()),
        after(Some(&shared.elapsed()))
    );
}

/// Says that the dump is complete; what else became of it has been told.
pub(crate) fn report_dump(drained: Result<Summary, Error>, shared: &Shared) -> Result<(), Error> {
    let summary = drained?;
    shared
        .counters
        .dumped
        .store(summary.progress.pages, Relaxed);
    shared.counters.dump_bytes.store(summary.length, Relaxed);
    if summary.progress.left_out_pages > 0 {
        job_log!(
            shared.log,
            Warn,
            "dump: no room for the last {} pages",
            summary.progress.left_out_pages
        );
    }
    let path = summary.path.unwrap_or_default();
    let place = match path.as_os_str().is_empty() {
        true => "a stream".into(),
        false => path.display().to_string(),
    };
    job_log!(
        shared.log,
        Info,
        "dump complete: {} pages ({} zero, {} unreadable), {}, {place}",
        summary.progress.pages,
        summary.progress.zero_pages,
        summary.progress.unreadable_pages,
        Size(summary.length)
    );
    Ok(())
}
