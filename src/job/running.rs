// SPDX-License-Identifier: LGPL-2.1-or-later
//! A job and the thread that runs it, from its start to its one ending.

use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::Arc;

use super::state::JobState;
use crate::error::{panic_text, Error};
use crate::os::sync::thread::JoinHandle;
use crate::os::thread::{start, Signals};
use crate::told::log::JobLog;

/// A job and the thread that runs it.
pub struct Job {
    /// What caller and threads share.
    pub shared: Arc<JobState>,
    thread: Option<JoinHandle<()>>,
}

impl Job {
    /// Runs `work` in a thread of its own. A panic in it becomes the job's
    /// failure; when nothing had been decided about the crash, it is dirty.
    pub fn start(
        log: JobLog,
        work: impl FnOnce(&JobState) -> Result<(), Error> + Send + 'static,
    ) -> Result<Self, Error> {
        let shared = Arc::new(JobState::new(log));
        let inside = shared.clone();
        // libxl forks in this thread.
        let thread = start("vicover-job", Signals::AsTheProgram, move || {
            let mut ending = Ending {
                shared: &inside,
                result: Err(Error::Internal("the job's thread ended".into())),
            };
            ending.result = catch_unwind(AssertUnwindSafe(|| work(&inside)))
                .unwrap_or_else(|panic| Err(Error::Internal(panic_text(&*panic))));
        })
        .map_err(Error::thread)?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// Waits for the thread of a job that is done.
    pub fn join(mut self) {
        if let Some(thread) = self.thread.take() {
            // The thread catches its own panics: there is nothing to learn here.
            let _ = thread.join();
        }
    }
}

/// Ends the job when it is dropped.
struct Ending<'a> {
    shared: &'a JobState,
    result: Result<(), Error>,
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        let result = std::mem::replace(&mut self.result, Ok(()));
        self.shared.decide_at_end(result.is_err());
        self.shared.finish(result);
    }
}

#[cfg(test)]
mod tests {
    use super::super::state::{Outcome, Phase};
    use super::*;

    fn quiet() -> JobLog {
        JobLog::new("test", Some(Box::new(|_| {})))
    }

    #[test]
    fn a_panic_becomes_the_jobs_failure() {
        let job = Job::start(quiet(), |shared| {
            shared.enter(Phase::Detach);
            panic!("broken on purpose")
        })
        .unwrap();
        assert!(job.shared.wait(None, |s| s.phase == Phase::Done));
        let text = job.shared.with_failure(|f| f.unwrap().chain());
        assert_eq!(text, "internal error: broken on purpose");
        assert_eq!(job.shared.snapshot().outcome, Outcome::Dirty);
        job.join();
    }

    #[test]
    fn failing_before_the_point_of_no_return_leaves_the_guest_untouched() {
        let job = Job::start(quiet(), |shared| {
            shared.enter(Phase::Understand);
            Err(Error::Cancelled)
        })
        .unwrap();
        assert!(job.shared.wait(None, |s| s.phase == Phase::Done));
        assert_eq!(job.shared.snapshot().outcome, Outcome::Untouched);
        job.join();
    }
}
