// SPDX-License-Identifier: LGPL-2.1-or-later
//! A job as its caller sees it: where it is, how it ended, and how to stop it.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::count::Count;
use super::record_place::RecordPlace;
use super::standby_slot::Slot;
use crate::control::io_control::IoControl;
use crate::control::write_pace::WritePace;
use crate::dump::DumpPlace;
use crate::error::Error;
use crate::journal::{Entry, Journal};
use crate::limits::cancel::Cancel;
use crate::limits::monitor::Monitor;
use crate::options::OnCrashLoop;
use crate::os::sync::Instant;
use crate::pacing::policy::Policy;
use crate::told::event::{Event, JobEvent};
use crate::told::log::JobLog;

/// Where a job is. Only ever goes forward.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Phase {
    /// Nothing done yet.
    Starting,
    /// Reading registers and memory.
    Understand,
    /// Disks and interfaces leave the dead guest.
    Detach,
    /// Freeing what recovery needs to be built.
    Seed,
    /// Building the recovery domain.
    Recover,
    /// Recovery runs, the dump goes on.
    Drain,
    /// Finishing file and domains.
    Close,
    /// No thread of the job is left.
    Done,
}

impl Phase {
    /// The phase in one word, for onlookers.
    pub fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Understand => "understand",
            Self::Detach => "detach",
            Self::Seed => "seed",
            Self::Recover => "recover",
            Self::Drain => "drain",
            Self::Close => "close",
            Self::Done => "done",
        }
    }
}

/// How a crash ended for the caller. Its words are those of the header's
/// `VICOVER_OUTCOME_`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Too early to tell, or nothing to recover.
    Undecided,
    /// The recovery domain runs.
    Adopted,
    /// Nothing was changed.
    Untouched,
    /// The crashed domain lost devices or memory, and nothing replaced it.
    Dirty,
    /// Nothing was changed, and nothing but this is done: the guest keeps crashing.
    #[serde(untagged)]
    GivenUp(OnCrashLoop),
}

/// Numbers that grow while a job runs.
#[derive(Default)]
pub struct Counters {
    /// Pages of RAM that the guest had.
    pub total: AtomicU64,
    /// Of these, to be dumped.
    pub planned: AtomicU64,
    /// Of these, written.
    pub dumped: AtomicU64,
    /// Pages given back to the hypervisor.
    pub released: AtomicU64,
    /// Bytes of the dump so far.
    pub dump_bytes: AtomicU64,
}

/// When what operators ask for first happened, since the job was started.
#[derive(Default)]
pub struct Milestones {
    /// The hypervisor took the first page back.
    pub first_release: OnceLock<Duration>,
    /// The recovery domain was let run.
    pub unpaused: OnceLock<Duration>,
}

struct State {
    phase: Phase,
    outcome: Outcome,
    recovery_domid: u32,
    failure: Option<Error>,
    /// The failure is in the log already.
    told: bool,
    place: DumpPlace,
    /// How long the job took, once it is over.
    took: Option<Duration>,
}

impl State {
    fn snapshot(&self, started: Instant) -> Snapshot {
        Snapshot {
            phase: self.phase,
            outcome: self.outcome,
            recovery_domid: self.recovery_domid,
            elapsed: self.took.unwrap_or_else(|| started.elapsed()),
        }
    }
}

/// What the job's threads and its caller share.
pub struct JobState {
    state: Monitor<State>,
    /// Whether the dump is to stop.
    pub(crate) cancel: Cancel,
    started: Instant,
    /// Progress in pages and bytes.
    pub counters: Arc<Counters>,
    /// When things happened.
    pub milestones: Milestones,
    /// The job's log.
    pub log: JobLog,
    /// What the job has come to, for whoever goes on when this process is killed.
    pub(crate) journal: Arc<Journal>,
    /// Where the guest's crashes are counted, if they are.
    pub(crate) count: OnceLock<Count>,
    /// The file of the crash's record.
    pub(crate) record: Arc<RecordPlace>,
    /// Whether there is to be no dump.
    is_without_dump: AtomicBool,
    /// The dump's pace.
    pub(crate) pace: Arc<WritePace>,
    /// Who sets it while recovery runs.
    pub(crate) io_control: IoControl,
    /// Where a recovery finds the standby that this job keeps, if that is what it
    /// does.
    pub(crate) standby: Slot,
}

/// A snapshot of a job.
#[derive(Clone, Copy, Debug)]
pub struct Snapshot {
    /// Where it is.
    pub phase: Phase,
    /// How the crash ended.
    pub outcome: Outcome,
    /// The recovery domain, zero until there is one.
    pub recovery_domid: u32,
    /// Time since the start, or from start to end.
    pub elapsed: Duration,
}

impl JobState {
    /// The state of a job that starts now.
    pub fn new(log: JobLog) -> Self {
        Self {
            state: Monitor::new(State {
                phase: Phase::Starting,
                outcome: Outcome::Undecided,
                recovery_domid: 0,
                failure: None,
                told: false,
                place: DumpPlace::default(),
                took: None,
            }),
            cancel: Cancel::default(),
            started: Instant::now(),
            counters: Arc::default(),
            milestones: Milestones::default(),
            log,
            journal: Arc::default(),
            count: OnceLock::new(),
            record: Arc::default(),
            is_without_dump: AtomicBool::new(false),
            pace: Arc::default(),
            io_control: IoControl::default(),
            standby: Slot::default(),
        }
    }

    /// Enters a phase; an earlier one than the current is ignored.
    pub fn enter(&self, phase: Phase) {
        self.state
            .update(|state| state.phase = state.phase.max(phase));
    }

    /// Settles how the crash ended. The first word stands.
    pub fn decide(&self, outcome: Outcome, recovery_domid: u32) {
        self.state.update(|state| {
            if state.outcome == Outcome::Undecided {
                state.outcome = outcome;
                state.recovery_domid = recovery_domid;
            }
        });
    }

    /// Settles how the crash ended where nobody has said it: by how far the job has come.
    pub(crate) fn decide_at_end(&self, is_failed: bool) {
        let is_changed = self.snapshot().phase > Phase::Understand;
        self.decide(
            match is_failed && is_changed {
                true => Outcome::Dirty,
                false => Outcome::Untouched,
            },
            0,
        );
    }

    /// Says where the dump is.
    pub(crate) fn set_place(&self, place: DumpPlace) {
        self.state.update(|state| state.place = place);
    }

    /// Says in the log, when it happens, why the job will have failed. It is not
    /// said once more at the job's end.
    pub(crate) fn tell_failure(&self, event: impl Into<Event>) {
        self.log.tell(event);
        self.state.lock().told = true;
    }

    /// Writes down what the job has come to. Without a journal the job goes on.
    pub(crate) fn note(&self, entry: &Entry) {
        if let Err(error) = self.journal.note(entry) {
            let error = error.to_string();
            self.log.tell(JobEvent::NotNoted { error });
        }
    }

    /// There is to be no dump: memory is only given back.
    pub(crate) fn do_without_dump(&self) {
        self.is_without_dump.store(true, Relaxed);
    }

    /// Whether there is to be a dump.
    pub(crate) fn is_dump_wanted(&self) -> bool {
        !self.is_without_dump.load(Relaxed)
    }

    /// Counts something, where the guest's crashes are counted. Without that the job
    /// goes on.
    pub(crate) fn count(&self, count: impl FnOnce(&Count) -> io::Result<()>) {
        if let Some(Err(error)) = self.count.get().map(count) {
            let error = error.to_string();
            self.log.tell(JobEvent::NotCounted { error });
        }
    }

    /// The job is over.
    pub fn finish(&self, result: Result<(), Error>) {
        if let Err(error) = self.journal.close() {
            let error = error.to_string();
            self.log.tell(JobEvent::NotNoted { error });
        }
        let told = self.state.lock().told;
        match &result {
            Err(Error::Cancelled) if !told => self.log.tell(JobEvent::Cancelled),
            Err(error) if !told => self.log.tell(JobEvent::Failed { why: error.into() }),
            _ => {}
        }
        self.state.update(|state| {
            state.failure = result.err();
            state.phase = Phase::Done;
            state.took = Some(self.started.elapsed());
        });
    }

    /// Asks the dump to stop.
    pub fn cancel(&self) {
        self.pace.cancel();
        self.cancel.ask();
        self.standby.wake();
    }

    /// Changes the disk I/O policy, whatever the options said.
    pub fn set_io(&self, policy: Policy) {
        self.io_control.choose(policy, &self.pace);
    }

    /// Whether somebody asked to stop.
    pub fn is_cancelled(&self) -> bool {
        self.cancel.is_asked()
    }

    /// Time since the job was started, for its own threads.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Where the job is.
    pub fn snapshot(&self) -> Snapshot {
        self.state.lock().snapshot(self.started)
    }

    /// Path of the dump, while there is one.
    pub fn dump_path(&self) -> Option<PathBuf> {
        let place = self.state.lock().place.clone();
        place.path()
    }

    /// Looks at the failure of a finished job.
    pub fn with_failure<T>(&self, look: impl FnOnce(Option<&Error>) -> T) -> T {
        look(self.state.lock().failure.as_ref())
    }

    /// Waits until `reached` holds; false when `timeout` passed first.
    pub fn wait(&self, timeout: Option<Duration>, reached: impl Fn(&Snapshot) -> bool) -> bool {
        let deadline = timeout.map(|t| Instant::now() + t);
        let mut state = self.state.lock();
        loop {
            if reached(&state.snapshot(self.started)) {
                return true;
            }
            let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return false;
            }
            state = self.state.wait(state, left);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::told::event::{Cause, DumpEvent};
    use crate::told::kept::Kept;

    fn quiet() -> JobLog {
        JobLog::new("test", Some(Box::new(|_| {})))
    }

    #[test]
    fn the_first_decision_stands_and_phases_only_go_forward() {
        let shared = JobState::new(quiet());
        shared.decide(Outcome::Adopted, 7);
        shared.decide(Outcome::Dirty, 0);
        shared.enter(Phase::Drain);
        shared.enter(Phase::Detach);
        let snapshot = shared.snapshot();
        assert_eq!(snapshot.outcome, Outcome::Adopted);
        assert_eq!(snapshot.recovery_domid, 7);
        assert_eq!(snapshot.phase, Phase::Drain);
    }

    #[test]
    fn a_job_that_is_over_grows_no_older() {
        let shared = JobState::new(quiet());
        shared.finish(Ok(()));
        let first = shared.snapshot().elapsed;
        while shared.elapsed() < first + Duration::from_millis(2) {
            std::thread::yield_now();
        }
        assert_eq!(shared.snapshot().elapsed, first);
    }

    fn no_dump() -> Event {
        let why = Cause::from(&Error::Cancelled);
        DumpEvent::NotMade { why }.into()
    }

    #[test]
    fn a_failure_is_told_once() {
        let told = |early: bool| {
            let kept = Kept::default();
            let shared = JobState::new(kept.log("test"));
            if early {
                shared.tell_failure(no_dump());
            }
            shared.finish(Err(Error::Cancelled));
            kept.events()
        };
        assert_eq!(told(true), [no_dump()]);
        assert_eq!(told(false), [JobEvent::Cancelled.into()]);
    }

    #[test]
    fn waiting_ends_at_its_deadline() {
        let shared = JobState::new(quiet());
        assert!(!shared.wait(Some(Duration::ZERO), |s| s.phase == Phase::Done));
    }
}
