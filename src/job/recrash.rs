// SPDX-License-Identifier: LGPL-2.1-or-later
//! Another crash of a guest while the dump of an earlier one is still being
//! written: by policy it is refused, which means a restart without a dump, or it
//! waits for its turn.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use crate::error::Error;
use crate::job::{JobState, Phase};
use crate::options::Recrash;
use crate::told::event::JobEvent;

/// How often somebody who waits for a job looks whether it is still to wait.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// A guest and a recovery of it.
type Entry = (String, Weak<JobState>);

/// The recoveries of this process that may still run, by guest.
#[derive(Default)]
pub(crate) struct Recoveries(Mutex<Vec<Entry>>);

impl Recoveries {
    /// An empty list.
    pub(crate) const fn new() -> Self {
        Self(Mutex::new(Vec::new()))
    }

    /// Starts the recovery of `guest`, which is anything that stays the same over
    /// its crashes. `start` gets the recovery that it has to wait for, if any, and
    /// returns its job's state with whatever else it likes.
    pub(crate) fn start<T, E: From<Error>>(
        &self,
        guest: &str,
        policy: Recrash,
        start: impl FnOnce(Option<Arc<JobState>>) -> Result<(Arc<JobState>, T), E>,
    ) -> Result<T, E> {
        let mut running = self.running();
        let earlier = last_of(&running, guest);
        if earlier.is_some() && policy == Recrash::Restart {
            let text = "the dump of an earlier crash is still being written (on_recrash=restart)";
            return Err(Error::Busy(text.into()).into());
        }
        let (job, rest) = start(earlier)?;
        running.push((guest.into(), Arc::downgrade(&job)));
        Ok(rest)
    }

    /// Blocks until no recovery of `guest` runs, or `waiting` is cancelled.
    pub(crate) fn wait_for_guest(&self, guest: &str, waiting: &JobState) {
        while !waiting.is_cancelled() {
            let Some(job) = last_of(&self.running(), guest) else {
                return;
            };
            job.wait(Some(LOOK_AGAIN), |snapshot| snapshot.phase == Phase::Done);
        }
    }

    /// The list, without those that are over.
    fn running(&self) -> MutexGuard<'_, Vec<Entry>> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|(_, job)| job.upgrade().is_some_and(|job| !is_done(&job)));
        all
    }
}

fn last_of(running: &[Entry], guest: &str) -> Option<Arc<JobState>> {
    let of_guest = running.iter().rev().find(|(name, _)| name == guest);
    of_guest.and_then(|(_, job)| job.upgrade())
}

fn is_done(job: &JobState) -> bool {
    job.snapshot().phase == Phase::Done
}

/// Blocks until `earlier` is over. The service is down meanwhile: that is what
/// the operator chose.
///
/// # Errors
/// When the caller cancels meanwhile: nothing has been done to the guest yet.
pub(crate) fn wait_for(earlier: &JobState, shared: &JobState) -> Result<(), Error> {
    if is_done(earlier) {
        return Ok(());
    }
    shared.log.tell(JobEvent::Queued);
    while !earlier.wait(Some(LOOK_AGAIN), |now| now.phase == Phase::Done) {
        if shared.is_cancelled() {
            return Err(Error::Cancelled);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::told::log::JobLog;

    fn job() -> Arc<JobState> {
        Arc::new(JobState::new(JobLog::new("guest", Some(Box::new(|_| {})))))
    }

    /// Starts one for `guest`; says whether it had to wait.
    fn begin(
        all: &Recoveries,
        guest: &str,
        policy: Recrash,
        new: &Arc<JobState>,
    ) -> Result<bool, Error> {
        all.start(guest, policy, |earlier| {
            Ok((new.clone(), earlier.is_some()))
        })
    }

    #[test]
    fn a_second_crash_is_refused_until_the_first_job_is_over() {
        let (all, first, second) = (Recoveries::new(), job(), job());
        assert!(!begin(&all, "a", Recrash::Restart, &first).unwrap());
        let refused = begin(&all, "a", Recrash::Restart, &second).unwrap_err();
        assert!(
            refused
                .to_string()
                .contains("earlier crash is still being written"),
            "{refused}"
        );
        first.finish(Ok(()));
        assert!(!begin(&all, "a", Recrash::Restart, &second).unwrap());
    }

    #[test]
    fn a_queued_crash_waits_for_the_last_one_before_it() {
        let (all, first, second, third) = (Recoveries::new(), job(), job(), job());
        assert!(!begin(&all, "a", Recrash::Queue, &first).unwrap());
        assert!(begin(&all, "a", Recrash::Queue, &second).unwrap());
        first.finish(Ok(()));
        let behind = all.start("a", Recrash::Queue, |earlier| {
            Ok::<_, Error>((third, earlier))
        });
        assert!(Arc::ptr_eq(&behind.unwrap().unwrap(), &second));
    }

    #[test]
    fn guests_do_not_wait_for_each_other_nor_for_jobs_that_failed_to_start() {
        let (all, first, second) = (Recoveries::new(), job(), job());
        let failed = all.start("a", Recrash::Restart, |_| {
            Err::<(_, ()), _>(Error::Cancelled)
        });
        assert!(failed.is_err());
        assert!(!begin(&all, "a", Recrash::Restart, &first).unwrap());
        assert!(!begin(&all, "b", Recrash::Restart, &second).unwrap());
    }

    #[test]
    fn waiting_ends_with_the_earlier_job() {
        let (first, second) = (job(), job());
        let (earlier, later) = (first.clone(), second.clone());
        let waiting = std::thread::spawn(move || wait_for(&earlier, &later));
        assert!(!waiting.is_finished());
        first.finish(Err(Error::Cancelled));
        waiting.join().unwrap().unwrap();
    }

    #[test]
    fn waiting_ends_when_the_caller_cancels() {
        let (first, second) = (job(), job());
        second.cancel();
        let waited = wait_for(&first, &second);
        assert!(matches!(waited, Err(Error::Cancelled)), "{waited:?}");
    }
}
