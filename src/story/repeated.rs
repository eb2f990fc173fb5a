// SPDX-License-Identifier: LGPL-2.1-or-later
//! A guest that crashes again and again: the first crashes are dumped, some more are
//! recovered, and then it is given up on.

use crate::job::back_off::Treatment;
use crate::job::{Count, Counted, JobState, Outcome};
use crate::options::Options;
use crate::told::event::{DumpEvent, JobEvent};

/// Begins a job with a crash that has been counted by `count`, and says what is known of
/// the guest's earlier ones. False when nothing is to be done about the crash: then the
/// outcome is decided.
pub fn begin(count: Count, counted: &Counted, options: &Options, job: &JobState) -> bool {
    // A job begins once.
    let _ = job.count.set(count);
    if let Some(error) = counted.forgotten.clone() {
        job.log.tell(JobEvent::HistoryLost { error });
    }
    if let Some(error) = counted.failed.clone() {
        job.log.tell(JobEvent::NotCounted { error });
    }
    if let Treatment::GiveUp {
        crashes,
        limit,
        action,
    } = counted.treatment
    {
        let told = JobEvent::GivenUp {
            crashes,
            limit,
            action,
        };
        job.log.tell(told);
        job.decide(Outcome::GivenUp(action), 0);
        return false;
    }
    if let (crashes @ 2.., Some(limit)) = (counted.crashes, options.max_crashes) {
        job.log.tell(JobEvent::CrashedAgain { crashes, limit });
    }
    true
}

/// Has the job do without a dump where `treatment` is that.
pub fn set_dump(treatment: &Treatment, job: &JobState) {
    if let Treatment::WithoutDump { dumps, limit, last } = treatment {
        job.log.tell(DumpEvent::NotWanted {
            dumps: *dumps,
            limit: *limit,
            last: last.clone(),
        });
        job.do_without_dump();
    }
}

/// Has the job of a crash that has waited for an earlier one do without a dump where that
/// one's dump was the last that is made.
pub fn set_dump_after_wait(options: &Options, job: &JobState) {
    let again = job.count.get().map(|count| count.look_again(options));
    match again {
        Some(Ok(treatment)) => set_dump(&treatment, job),
        Some(Err(error)) => {
            let error = error.to_string();
            job.log.tell(JobEvent::HistoryLost { error });
        }
        None => {}
    }
}
