// SPDX-License-Identifier: LGPL-2.1-or-later
//! A crashed domain's memory on its way to its successor, which is brought up and guarded
//! meanwhile; and the end of that.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};

use crate::drain::handover::Handover;
use crate::drain::{self, go_on, start_dump, Target, Work};
use crate::dump::{Summary, Unfinished};
use crate::error::{joined, Error};
use crate::host::contained::ContainedDomain;
use crate::host::{BuiltStandby, CrashedDomain, RecoveryDomain, Requirement, Toolstack};
use crate::job::{JobState, Outcome, Phase};
use crate::journal::Entry;
use crate::os::sync::thread::{self, Scope};
use crate::os::thread::{start_in, Signals};
use crate::story::bring_up::{bring_up, detach_interfaces, enter, released};
use crate::story::guard_thread::Guarding;
use crate::story::noted::Noted;
use crate::told::event::{Cause, DumpEvent, RecoveryEvent};
use crate::told::report::{report_dump, report_times};
use crate::understand::Understanding;
use crate::units::Size;

/// A crashed domain without devices, whose memory is about to go to its successor.
pub(super) struct Crash<'a> {
    pub(super) domain: &'a ContainedDomain<'a>,
    /// Finds out what is to be dumped; taken by the thread that does it.
    pub(super) prepare: Mutex<Option<Prepare<'a>>>,
    pub(super) handover: Handover<'a>,
    pub(super) target: &'a Target,
    pub(super) job: &'a JobState,
}

/// Finds out what is to be dumped.
pub(super) type Prepare<'a> = Box<dyn FnOnce() -> Result<Prepared, Error> + Send + 'a>;

/// What is to be dumped.
pub(super) struct Prepared {
    pub(super) understanding: Understanding,
    pub(super) left: Left,
}

/// What is left to dump.
pub(super) enum Left {
    /// All, into a new dump.
    All,
    /// What is missing in a dump that another process has begun.
    Rest(Box<Unfinished>),
    /// Nothing: memory is only given back.
    Nothing,
}

impl Prepared {
    /// Dumps what is to be dumped; none when nothing is.
    pub(super) fn drain(
        self,
        domain: &dyn CrashedDomain,
        work: Work<'_>,
        target: &Target,
        job: &JobState,
    ) -> Result<Option<Summary>, Error> {
        let Self {
            mut understanding,
            left,
        } = self;
        let known = &mut understanding;
        let drained = match left {
            Left::All => drain_all(domain, known, work, target, job),
            Left::Rest(unfinished) => {
                let start = |_: &mut Understanding| go_on(*unfinished, target, job);
                drain::run(domain, known, work, start, job)
            }
            Left::Nothing => {
                drain::release_all(domain, known, work, job);
                return Ok(None);
            }
        };
        drained.map(Some)
    }
}

/// What takes the crashed domain's place.
pub(super) enum Successor<'a> {
    /// It is to be brought up.
    Needed(Requirement, Option<&'a BuiltStandby>),
    /// It runs.
    Runs(Arc<dyn RecoveryDomain>),
}

impl Crash<'_> {
    /// Brings the crash to its end: see [`Crash::hand_over`].
    pub(super) fn finish(
        &self,
        toolstack: &mut dyn Toolstack,
        successor: Successor<'_>,
    ) -> Result<(), Error> {
        let (dumped, has_recovery) =
            thread::scope(|scope| self.hand_over(scope, toolstack, successor));
        report_times(self.job);
        if !has_recovery {
            self.job.decide(Outcome::Dirty, 0);
        }
        dumped
    }

    /// Builds the successor and lets it run while the domain is dumped. Returns what
    /// became of the dump, and whether there is a successor. Whatever this thread
    /// comes to, the others are let go: by values that are dropped, the last of which
    /// is the first here.
    fn hand_over<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
        toolstack: &mut dyn Toolstack,
        successor: Successor<'_>,
    ) -> (Result<(), Error>, bool) {
        let (handover, job) = (&self.handover, self.job);
        let (pace, log) = (&*job.pace, &job.log);
        let _freed = handover.freed_at_end();
        let dumping = start_in(scope, "vicover-drain", Signals::ToOthers, || self.dump());
        let dumping = dumping.map_err(|error| {
            detach_interfaces(toolstack, handover, job);
            self.do_without_dump(Error::thread(error))
        });
        let recovery = match successor {
            Successor::Needed(requirement, standby) => {
                bring_up(toolstack, handover, requirement, standby, job)
            }
            Successor::Runs(recovery) => Ok(recovery),
        };
        let recovery = recovery.map(|recovery| Noted::of(recovery, job));
        if let Err(error) = &recovery {
            say_no_recovery(error, job);
        }
        let guarding = recovery.as_ref().ok().map(|recovery| {
            enter(toolstack, job, Phase::Drain);
            Guarding::start(scope, recovery.clone(), pace, handover, log)
        });
        let controlled = recovery.as_ref().ok().map(|recovery| {
            let io_control = &job.io_control;
            io_control.start(scope, pace, Some(recovery.clone()), log)
        });
        // As late as no page is released anyway: hotplug scripts take processors.
        handover.wait_resumed();
        detach_interfaces(toolstack, handover, job);
        if let Some(guarding) = &guarding {
            guarding.watch_here_if_must();
        }
        let dumped = match dumping {
            Ok(dumping) => joined(dumping).unwrap_or_else(|error| {
                let (why, is_told) = (Cause::from(&error), false);
                job.tell_failure(DumpEvent::Incomplete { why, is_told });
                Err(error)
            }),
            Err(no_dump) => no_dump,
        };
        enter(toolstack, job, Phase::Close);
        handover.end();
        if let Ok(recovery) = &recovery {
            close(toolstack, &**recovery, job);
        }
        drop((controlled, guarding));
        (dumped, recovery.is_ok())
    }

    /// Dumps the domain and gives its memory back. A dump that cannot be written is
    /// no reason to keep the service down.
    fn dump(&self) -> Result<(), Error> {
        // Also when nothing can be found out about the domain.
        let _drained = self.handover.drained_at_end();
        let work = Work::HandOver(&self.handover);
        let drained = self
            .prepared()?
            .drain(self.domain, work, self.target, self.job);
        let Some(drained) = drained.transpose() else {
            return Ok(());
        };
        end_dump(drained, self.job)
    }

    fn prepared(&self) -> Result<Prepared, Error> {
        let prepare = self
            .prepare
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let twice = || Error::Internal("a crash is dumped twice".into());
        let prepared = prepare.ok_or_else(twice)?()?;
        self.job.note(&Entry::Understood {
            untouched: prepared.understanding.untouched(),
        });
        Ok(prepared)
    }

    /// Gives the memory back when there cannot be a dump, for this reason.
    fn do_without_dump(&self, why: Error) -> Result<(), Error> {
        let _drained = self.handover.drained_at_end();
        let prepared = self.prepared()?;
        let work = Work::HandOver(&self.handover);
        if let Left::Nothing = prepared.left {
            drain::release_all(self.domain, &prepared.understanding, work, self.job);
            return Ok(());
        }
        let mut understanding = prepared.understanding;
        let start = |_: &mut Understanding| Err(why);
        let drained = drain::run(self.domain, &mut understanding, work, start, self.job);
        end_dump(drained, self.job)
    }
}

/// Says how a dump has ended: to the log, to those who handle the guest's next crash, and
/// to whoever goes on with this one.
pub(super) fn end_dump(drained: Result<Summary, Error>, job: &JobState) -> Result<(), Error> {
    let is_complete = drained.is_ok();
    if let Ok(summary) = &drained {
        let path = summary.path.clone();
        job.count(|count| count.dump(path));
    }
    job.note(&Entry::DumpEnded { is_complete });
    report_dump(drained, job)
}

/// Drains all of a domain into the dump that `target` asks for.
pub(super) fn drain_all(
    domain: &dyn CrashedDomain,
    understanding: &mut Understanding,
    work: Work<'_>,
    target: &Target,
    job: &JobState,
) -> Result<Summary, Error> {
    let start = |understanding: &mut Understanding| start_dump(domain, target, understanding, job);
    drain::run(domain, understanding, work, start, job)
}

/// Says why nothing takes the crashed domain's place. The dump, of which the job's
/// result tells, may be complete all the same.
pub(super) fn say_no_recovery(error: &Error, job: &JobState) {
    let why = Cause::from(error);
    job.log.tell(RecoveryEvent::Failed { why });
}

/// The crashed domain goes, the recovery domain becomes an ordinary one. What
/// fails here does not touch the service, so it is told and left.
pub(super) fn close(toolstack: &mut dyn Toolstack, recovery: &dyn RecoveryDomain, job: &JobState) {
    if let Err(error) = toolstack.destroy_crashed() {
        let total = Size::of_pages(job.counters.total.load(Relaxed));
        let held = Size(total.0.saturating_sub(released(job).0));
        let name = toolstack.crashed_name();
        let told = RecoveryEvent::CrashedNotDestroyed { name, held, error };
        job.log.tell(told);
    }
    if !recovery.exists() {
        let (domid, released) = (recovery.domid(), released(job));
        job.log.tell(RecoveryEvent::Gone { domid, released });
        return;
    }
    let domid = recovery.domid();
    let settled = match toolstack.settle(recovery) {
        Ok(()) => RecoveryEvent::Settled {
            released_pages: job.counters.released.load(Relaxed),
        },
        Err(error) => RecoveryEvent::NotSettled { domid, error },
    };
    job.log.tell(settled);
}
