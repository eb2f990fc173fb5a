// SPDX-License-Identifier: LGPL-2.1-or-later
//! One crash, from the guest's last instruction to its successor's ordinary
//! life, told in order: understand, detach, seed, recover, drain, close.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, Scope};

use crate::drain::handover::Handover;
use crate::drain::{self, start_dump, Target, Work};
use crate::dump::Summary;
use crate::error::{joined, Error};
use crate::host::contained::{ContainedDomain, ContainedToolstack};
use crate::host::{BuiltStandby, CrashedDomain, HostError, RecoveryDomain, Requirement, Toolstack};
use crate::job::Slot;
use crate::job::{JobState, Outcome, Phase};
use crate::os::thread::{start_in, Signals};
use crate::story::guard_thread::Guarding;
use crate::story::standby::say_if_kept;

use crate::told::event::{Cause, DumpEvent, RecoveryEvent, StandbyEvent};
use crate::told::report::{report_dump, report_times};
use crate::understand::{look, read_registers, understand_beside, Awaited, Understanding};
use crate::units::Size;

/// Dumps a domain's memory and changes nothing else. `done_reading` is called once
/// when the domain will not be looked at any more, unless there is no dump.
pub fn dump_only(
    domain: &dyn CrashedDomain,
    target: &Target,
    done_reading: &(dyn Fn() + Sync),
    job: &JobState,
) -> Result<(), Error> {
    let domain = &ContainedDomain::new(domain);
    // Whatever happens, there is no domain to restart.
    job.decide(Outcome::Untouched, 0);
    job.enter(Phase::Understand);
    let vcpus = read_registers(domain, job)?;
    let seen = look(domain, &vcpus, &target.options, &Awaited::default(), job);
    if job.is_cancelled() {
        // There is no memory to give back, and a dump of nothing is no use.
        return Err(Error::Cancelled);
    }
    let mut understanding = seen.decide(domain, &vcpus, job)?;
    job.enter(Phase::Drain);
    let drained = thread::scope(|scope| {
        let (io_control, pace) = (&job.io_control, &job.pace);
        let _controlled = io_control.start(scope, pace, None, &job.log);
        let work = Work::DumpOnly(done_reading);
        drain(domain, &mut understanding, work, target, job)
    });
    job.enter(Phase::Close);
    report_dump(drained, job)
}

/// Dumps a crashed domain while its successor is built and runs on the memory
/// that the dump gives back. `keeper` is the job that keeps a standby for it, if
/// there is one. An error is the dump's: that there is no recovery shows in the
/// outcome, and its reason in the log.
pub fn recover(
    domain: &dyn CrashedDomain,
    toolstack: Box<dyn Toolstack>,
    keeper: Option<&JobState>,
    target: &Target,
    job: &JobState,
) -> Result<(), Error> {
    // From here on a panic in the host is a refusal.
    let domain = &ContainedDomain::new(domain);
    let toolstack = &mut ContainedToolstack(toolstack);
    // Until recovery runs it waits for the dump, and nothing holds that back.
    job.pace.set_urgent(true);
    enter(toolstack, job, Phase::Understand);
    let vcpus = read_registers(domain, job)?;
    let requirement = toolstack
        .requirement()
        .map_err(Error::host("sizing the recovery domain"))?;

    let standby = keeper.and_then(|keeper| take_standby(toolstack, &keeper.standby, job));

    // The point of no return. Reading memory changes nothing, so it is not
    // waited for: whatever it finds, the devices have to go.
    enter(toolstack, job, Phase::Detach);
    let (understanding, detached) = understand_beside(domain, &vcpus, &target.options, job, || {
        toolstack.detach(standby.as_ref())
    });
    if understanding.is_err() || detached.is_err() {
        forgo(toolstack, standby.as_ref(), job);
    }
    let mut understanding = understanding?;
    if let Err(error) = detached {
        return stay_down(domain, &mut understanding, target, error, job);
    }
    job.log.tell(RecoveryEvent::Detached);

    enter(toolstack, job, Phase::Seed);
    let crash = Crash {
        domain,
        understanding: Mutex::new(understanding),
        handover: Handover::new(domain, &job.log, &job.cancel),
        target,
        job,
    };
    let (dumped, has_recovery) =
        thread::scope(|scope| crash.hand_over(scope, toolstack, requirement, standby.as_ref()));
    report_times(job);
    if !has_recovery {
        job.decide(Outcome::Dirty, 0);
    }
    dumped
}

/// A crashed domain without devices, whose memory is about to go to its successor.
struct Crash<'a> {
    domain: &'a ContainedDomain<'a>,
    understanding: Mutex<Understanding>,
    handover: Handover<'a>,
    target: &'a Target,
    job: &'a JobState,
}

impl Crash<'_> {
    /// Builds the successor and lets it run while the domain is dumped. Returns what
    /// became of the dump, and whether there is a successor. Whatever this thread
    /// comes to, the others are let go: by values that are dropped, the last of which
    /// is the first here.
    fn hand_over<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
        toolstack: &mut dyn Toolstack,
        requirement: Requirement,
        standby: Option<&BuiltStandby>,
    ) -> (Result<(), Error>, bool) {
        let (handover, job) = (&self.handover, self.job);
        let (pace, log) = (&*job.pace, &job.log);
        let _freed = handover.freed_at_end();
        let dumping = start_in(scope, "vicover-drain", Signals::ToOthers, || self.dump());
        let dumping = dumping.map_err(|error| {
            detach_interfaces(toolstack, handover, job);
            self.do_without_dump(Error::thread(error))
        });
        let recovery = bring_up(toolstack, handover, requirement, standby, job);
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
        let mut understanding = self
            .understanding
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let work = Work::HandOver(&self.handover);
        let drained = drain(self.domain, &mut understanding, work, self.target, self.job);
        report_dump(drained, self.job)
    }

    /// Gives the memory back when there cannot be a dump, for this reason.
    fn do_without_dump(&self, why: Error) -> Result<(), Error> {
        let mut understanding = self
            .understanding
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let work = Work::HandOver(&self.handover);
        let start = |_: &mut Understanding| Err(why);
        let drained = drain::run(self.domain, &mut understanding, work, start, self.job);
        report_dump(drained, self.job)
    }
}

/// Drains the domain into the dump that `target` asks for.
fn drain(
    domain: &dyn CrashedDomain,
    understanding: &mut Understanding,
    work: Work<'_>,
    target: &Target,
    job: &JobState,
) -> Result<Summary, Error> {
    let start = |understanding: &mut Understanding| start_dump(domain, target, understanding, job);
    drain::run(domain, understanding, work, start, job)
}

fn enter(toolstack: &mut dyn Toolstack, job: &JobState, phase: Phase) {
    job.enter(phase);
    toolstack.publish("phase", phase.name());
}

/// Starts the recovery domain: the standby, or one that is built for it. Meanwhile
/// the drain rests: processor and disk are recovery's. It still does when recovery
/// runs, and it is the guard's to wake it.
fn bring_up(
    toolstack: &mut dyn Toolstack,
    handover: &Handover<'_>,
    requirement: Requirement,
    standby: Option<&BuiltStandby>,
    job: &JobState,
) -> Result<Arc<dyn RecoveryDomain>, Error> {
    let adopted = standby.and_then(|standby| adopt_standby(toolstack, handover, standby, job));
    let recovery = match adopted {
        Some(recovery) => recovery,
        None => {
            detach_interfaces(toolstack, handover, job);
            build(toolstack, handover, requirement, job)?
        }
    };
    handover.adopt(recovery.clone());
    if let Err(error) = toolstack.start(&*recovery) {
        handover.resume_drain();
        handover.abandon();
        if let Err(error) = toolstack.discard(&*recovery) {
            let domid = recovery.domid();
            job.log.tell(RecoveryEvent::NotDestroyed { domid, error });
        }
        return Err(Error::host("starting the recovery domain")(error));
    }
    job.milestones.unpaused.get_or_init(|| job.elapsed());
    let domid = recovery.domid();
    job.decide(Outcome::Adopted, domid);
    job.log.tell(RecoveryEvent::Unpaused { domid });
    Ok(recovery)
}

/// Takes the devices that could stay until recovery runs. Xen keeps what a device
/// has mapped from everybody else, so one that does not go only delays its pages.
fn detach_interfaces(toolstack: &mut dyn Toolstack, handover: &Handover<'_>, job: &JobState) {
    if let Err(error) = toolstack.detach_interfaces() {
        job.log.tell(RecoveryEvent::InterfacesKept { error });
    }
    handover.detached();
}

/// The standby, if it is there and still good.
fn take_standby(
    toolstack: &mut dyn Toolstack,
    slot: &Slot,
    job: &JobState,
) -> Option<BuiltStandby> {
    toolstack
        .recipe()
        .map_err(|error| error.to_string())
        .and_then(|recipe| slot.take(&recipe).map_err(Into::into))
        .inspect_err(|why| say_not_used(why, job))
        .ok()
}

fn say_not_used(why: &str, job: &JobState) {
    job.log.tell(StandbyEvent::NotUsed { why: why.into() });
}

/// The recovery cannot go on, so nobody will want the standby.
fn forgo(toolstack: &mut dyn Toolstack, standby: Option<&BuiltStandby>, job: &JobState) {
    let Some(standby) = standby else { return };
    say_if_kept(toolstack.forgo(standby), standby, job);
}

/// Makes the standby the recovery domain.
fn adopt_standby(
    toolstack: &mut dyn Toolstack,
    handover: &Handover<'_>,
    standby: &BuiltStandby,
    job: &JobState,
) -> Option<Arc<dyn RecoveryDomain>> {
    handover.pause_drain();
    enter(toolstack, job, Phase::Recover);
    match toolstack.adopt(standby) {
        Ok(recovery) => {
            let domid = recovery.domid();
            job.log.tell(StandbyEvent::Adopted { domid });
            Some(recovery)
        }
        Err(error) => {
            handover.resume_drain();
            say_not_used(&error.to_string(), job);
            None
        }
    }
}

/// Builds the recovery domain as soon as there is memory for it.
fn build(
    toolstack: &mut dyn Toolstack,
    handover: &Handover<'_>,
    requirement: Requirement,
    job: &JobState,
) -> Result<Arc<dyn RecoveryDomain>, Error> {
    let mut need = requirement.free_pages;
    let mut tries_left = 2;
    loop {
        if !handover.wait_released(need) {
            return Err(Error::Host {
                step: "freeing memory for the recovery domain",
                source: HostError::new(
                    "release",
                    format!(
                        "{} of the {} that recovery needs could be freed",
                        released(job),
                        Size::of_pages(need)
                    ),
                ),
            });
        }
        handover.pause_drain();
        enter(toolstack, job, Phase::Recover);
        job.log.tell(RecoveryEvent::Seeded {
            released: released(job),
            backed: Size::of_pages(requirement.backed_pages),
            full: Size::of_pages(requirement.full_pages),
        });
        tries_left -= 1;
        handover.spend(need);
        match toolstack.create() {
            Ok(recovery) => {
                let domid = recovery.domid();
                job.log.tell(RecoveryEvent::Created { domid });
                return Ok(recovery);
            }
            Err(error) => {
                handover.spend(0);
                handover.resume_drain();
                let error = Error::host("creating the recovery domain")(error);
                if tries_left == 0 {
                    return Err(error);
                }
                let why = Cause::from(&error);
                job.log.tell(RecoveryEvent::CreatingAgain { why });
                need += need / 4;
            }
        }
    }
}

/// The devices did not let go: a successor would share the disk with requests
/// still on their way. The dump is finished, and the caller restarts the hard
/// way.
fn stay_down(
    domain: &dyn CrashedDomain,
    understanding: &mut Understanding,
    target: &Target,
    error: HostError,
    job: &JobState,
) -> Result<(), Error> {
    let error = Error::host("detaching the crashed domain's devices")(error);
    say_no_recovery(&error, job);
    job.enter(Phase::Drain);
    let drained = drain(domain, understanding, Work::DumpOnly(&|| ()), target, job);
    let dumped = report_dump(drained, job);
    job.decide(Outcome::Dirty, 0);
    dumped
}

/// Says why nothing takes the crashed domain's place. The dump, of which the job's
/// result tells, may be complete all the same.
fn say_no_recovery(error: &Error, job: &JobState) {
    let why = Cause::from(error);
    job.log.tell(RecoveryEvent::Failed { why });
}

/// What the hypervisor has back.
fn released(job: &JobState) -> Size {
    Size::of_pages(job.counters.released.load(Relaxed))
}

/// The crashed domain goes, the recovery domain becomes an ordinary one. What
/// fails here does not touch the service, so it is told and left.
fn close(toolstack: &mut dyn Toolstack, recovery: &dyn RecoveryDomain, job: &JobState) {
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
