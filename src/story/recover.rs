// SPDX-License-Identifier: LGPL-2.1-or-later
//! One crash, from the guest's last instruction to its successor's ordinary
//! life, told in order: understand, detach, seed, recover, drain, close.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, Scope};

use log::Level;

use crate::drain::handover::Handover;
use crate::drain::{self, start_dump, Target, Work};
use crate::dump::Summary;
use crate::error::{joined, Error};
use crate::host::contained::{ContainedDomain, ContainedToolstack};
use crate::host::{BuiltStandby, CrashedDomain, HostError, RecoveryDomain, Requirement, Toolstack};
use crate::job::Slot;
use crate::job::{Outcome, Phase, Shared};
use crate::os::thread::{start_in, Signals};
use crate::story::guard_thread::Guarding;
use crate::story::standby::say_if_kept;

use crate::told::log::job_log;
use crate::told::report::{report_dump, report_times};
use crate::understand::{look, read_registers, understand_beside, Awaited, Understanding};
use crate::units::Size;

/// Dumps a domain's memory and changes nothing else. `done_reading` is called once
/// when the domain will not be looked at any more, unless there is no dump.
pub fn dump_only(
    domain: &dyn CrashedDomain,
    target: &Target,
    done_reading: &(dyn Fn() + Sync),
    shared: &Shared,
) -> Result<(), Error> {
    let domain = &ContainedDomain::new(domain);
    // Whatever happens, there is no domain to restart.
    shared.decide(Outcome::Untouched, 0);
    shared.enter(Phase::Understand);
    let vcpus = read_registers(domain, shared)?;
    let seen = look(domain, &vcpus, &target.options, &Awaited::default(), shared);
    if shared.is_cancelled() {
        // There is no memory to give back, and a dump of nothing is no use.
        return Err(Error::Cancelled);
    }
    let mut known = seen.decide(domain, &vcpus, shared)?;
    shared.enter(Phase::Drain);
    let drained = thread::scope(|scope| {
        let (steering, pace) = (&shared.steering, &shared.pace);
        let _steered = steering.start(scope, pace, None, &shared.log);
        let work = Work::DumpOnly(done_reading);
        drain(domain, &mut known, work, target, shared)
    });
    shared.enter(Phase::Close);
    report_dump(drained, shared)
}

/// Dumps a crashed domain while its successor is built and runs on the memory
/// that the dump gives back. `keeper` is the job that keeps a standby for it, if
/// there is one. An error is the dump's: that there is no recovery shows in the
/// outcome, and its reason in the log.
pub fn recover(
    domain: &dyn CrashedDomain,
    toolstack: Box<dyn Toolstack>,
    keeper: Option<&Shared>,
    target: &Target,
    shared: &Shared,
) -> Result<(), Error> {
    // From here on a panic in the host is a refusal.
    let domain = &ContainedDomain::new(domain);
    let toolstack = &mut ContainedToolstack(toolstack);
    // Until recovery runs it waits for the dump, and nothing holds that back.
    shared.pace.hurry(true);
    enter(toolstack, shared, Phase::Understand);
    let vcpus = read_registers(domain, shared)?;
    let requirement = toolstack
        .requirement()
        .map_err(Error::host("sizing the recovery domain"))?;

    let standby = keeper.and_then(|keeper| take_standby(toolstack, &keeper.standby, shared));

    // The point of no return. Reading memory changes nothing, so it is not
    // waited for: whatever it finds, the devices have to go.
    enter(toolstack, shared, Phase::Detach);
    let (known, detached) = understand_beside(domain, &vcpus, &target.options, shared, || {
        toolstack.detach(standby.as_ref())
    });
    if known.is_err() || detached.is_err() {
        forgo(toolstack, standby.as_ref(), shared);
    }
    let mut known = known?;
    if let Err(error) = detached {
        return stay_down(domain, &mut known, target, error, shared);
    }
    job_log!(
        shared.log,
        Info,
        "detached: no disk of the crashed guest can write any more"
    );

    enter(toolstack, shared, Phase::Seed);
    let crash = Crash {
        domain,
        known: Mutex::new(known),
        handover: Handover::new(domain, &shared.log, &shared.cancel),
        target,
        shared,
    };
    let (dumped, has_recovery) =
        thread::scope(|scope| crash.hand_over(scope, toolstack, requirement, standby.as_ref()));
    report_times(shared);
    if !has_recovery {
        shared.decide(Outcome::Dirty, 0);
    }
    dumped
}

/// A crashed domain without devices, whose memory is about to go to its successor.
struct Crash<'a> {
    domain: &'a ContainedDomain<'a>,
    known: Mutex<Understanding>,
    handover: Handover<'a>,
    target: &'a Target,
    shared: &'a Shared,
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
        let (handover, shared) = (&self.handover, self.shared);
        let (pace, log) = (&*shared.pace, &shared.log);
        let _freed = handover.freed_at_end();
        let dumping = start_in(scope, "vicover-drain", Signals::ToOthers, || self.dump());
        let dumping = dumping.map_err(|error| {
            detach_interfaces(toolstack, handover, shared);
            self.do_without_dump(Error::thread(error))
        });
        let recovery = bring_up(toolstack, handover, requirement, standby, shared);
        if let Err(error) = &recovery {
            say_no_recovery(error, shared);
        }
        let guarding = recovery.as_ref().ok().map(|recovery| {
            enter(toolstack, shared, Phase::Drain);
            Guarding::start(scope, recovery.clone(), pace, handover, log)
        });
        let steered = recovery.as_ref().ok().map(|recovery| {
            let steering = &shared.steering;
            steering.start(scope, pace, Some(recovery.clone()), log)
        });
        // As late as no page is released anyway: hotplug scripts take processors.
        handover.wait_not_held();
        detach_interfaces(toolstack, handover, shared);
        if let Some(guarding) = &guarding {
            guarding.watch_here_if_must();
        }
        let dumped = match dumping {
            Ok(dumping) => joined(dumping).unwrap_or_else(|error| {
                shared.tell_failure(Level::Error, format_args!("dump incomplete: {error}"));
                Err(error)
            }),
            Err(no_dump) => no_dump,
        };
        enter(toolstack, shared, Phase::Close);
        handover.end();
        if let Ok(recovery) = &recovery {
            close(toolstack, &**recovery, shared);
        }
        drop((steered, guarding));
        (dumped, recovery.is_ok())
    }

    /// Dumps the domain and gives its memory back. A dump that cannot be written is
    /// no reason to keep the service down.
    fn dump(&self) -> Result<(), Error> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let work = Work::HandOver(&self.handover);
        let drained = drain(self.domain, &mut known, work, self.target, self.shared);
        report_dump(drained, self.shared)
    }

    /// Gives the memory back when there cannot be a dump, for this reason.
    fn do_without_dump(&self, why: Error) -> Result<(), Error> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let work = Work::HandOver(&self.handover);
        let start = |_: &mut Understanding| Err(why);
        let drained = drain::run(self.domain, &mut known, work, start, self.shared);
        report_dump(drained, self.shared)
    }
}

/// Drains the domain into the dump that `target` asks for.
fn drain(
    domain: &dyn CrashedDomain,
    known: &mut Understanding,
    work: Work<'_>,
    target: &Target,
    shared: &Shared,
) -> Result<Summary, Error> {
    let start = |known: &mut Understanding| start_dump(domain, target, known, shared);
    drain::run(domain, known, work, start, shared)
}

fn enter(toolstack: &mut dyn Toolstack, shared: &Shared, phase: Phase) {
    shared.enter(phase);
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
    shared: &Shared,
) -> Result<Arc<dyn RecoveryDomain>, Error> {
    let adopted = standby.and_then(|standby| adopt_standby(toolstack, handover, standby, shared));
    let recovery = match adopted {
        Some(recovery) => recovery,
        None => {
            detach_interfaces(toolstack, handover, shared);
            build(toolstack, handover, requirement, shared)?
        }
    };
    handover.adopt(recovery.clone());
    if let Err(error) = toolstack.start(&*recovery) {
        handover.hold(false);
        handover.abandon();
        if let Err(error) = toolstack.discard(&*recovery) {
            let domid = recovery.domid();
            job_log!(
                shared.log,
                Error,
                "could not destroy recovery domain {domid}, which does not run: {error}: \
                 run `xl destroy {domid}`"
            );
        }
        return Err(Error::host("starting the recovery domain")(error));
    }
    shared.milestones.unpaused.get_or_init(|| shared.elapsed());
    shared.decide(Outcome::Adopted, recovery.domid());
    job_log!(
        shared.log,
        Info,
        "recovery unpaused: domain {}",
        recovery.domid()
    );
    Ok(recovery)
}

/// Takes the devices that could stay until recovery runs. Xen keeps what a device
/// has mapped from everybody else, so one that does not go only delays its pages.
fn detach_interfaces(toolstack: &mut dyn Toolstack, handover: &Handover<'_>, shared: &Shared) {
    if let Err(error) = toolstack.detach_interfaces() {
        job_log!(
            shared.log,
            Error,
            "the crashed domain keeps interfaces until it is destroyed: {error}"
        );
    }
    handover.detached();
}

/// The standby, if it is there and still good.
fn take_standby(
    toolstack: &mut dyn Toolstack,
    slot: &Slot,
    shared: &Shared,
) -> Option<BuiltStandby> {
    toolstack
        .recipe()
        .map_err(|error| error.to_string())
        .and_then(|recipe| slot.take(&recipe).map_err(Into::into))
        .inspect_err(|why| say_not_used(why, shared))
        .ok()
}

fn say_not_used(why: &str, shared: &Shared) {
    job_log!(
        shared.log,
        Warn,
        "standby: not used, a recovery domain is built instead: {why}"
    );
}

/// The recovery cannot go on, so nobody will want the standby.
fn forgo(toolstack: &mut dyn Toolstack, standby: Option<&BuiltStandby>, shared: &Shared) {
    let Some(standby) = standby else { return };
    say_if_kept(toolstack.forgo(standby), standby, shared);
}

/// Makes the standby the recovery domain.
fn adopt_standby(
    toolstack: &mut dyn Toolstack,
    handover: &Handover<'_>,
    standby: &BuiltStandby,
    shared: &Shared,
) -> Option<Arc<dyn RecoveryDomain>> {
    handover.hold(true);
    enter(toolstack, shared, Phase::Recover);
    match toolstack.adopt(standby) {
        Ok(recovery) => {
            job_log!(
                shared.log,
                Info,
                "standby: domain {} has the disks",
                recovery.domid()
            );
            Some(recovery)
        }
        Err(error) => {
            handover.hold(false);
            say_not_used(&error.to_string(), shared);
            None
        }
    }
}

/// Builds the recovery domain as soon as there is memory for it.
fn build(
    toolstack: &mut dyn Toolstack,
    handover: &Handover<'_>,
    requirement: Requirement,
    shared: &Shared,
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
                        released(shared),
                        Size::of_pages(need)
                    ),
                ),
            });
        }
        handover.hold(true);
        enter(toolstack, shared, Phase::Recover);
        job_log!(
            shared.log,
            Info,
            "seeded: {} released, building the recovery domain with {} of {}",
            released(shared),
            Size::of_pages(requirement.backed_pages),
            Size::of_pages(requirement.full_pages)
        );
        tries_left -= 1;
        handover.spend(need);
        match toolstack.create() {
            Ok(recovery) => {
                let domid = recovery.domid();
                job_log!(shared.log, Info, "recovery created: domain {domid}");
                return Ok(recovery);
            }
            Err(error) => {
                handover.spend(0);
                handover.hold(false);
                let error = Error::host("creating the recovery domain")(error);
                if tries_left == 0 {
                    return Err(error);
                }
                job_log!(
                    shared.log,
                    Warn,
                    "{}; once more with more memory",
                    error.chain()
                );
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
    known: &mut Understanding,
    target: &Target,
    error: HostError,
    shared: &Shared,
) -> Result<(), Error> {
    let error = Error::host("detaching the crashed domain's devices")(error);
    say_no_recovery(&error, shared);
    shared.enter(Phase::Drain);
    let drained = drain(domain, known, Work::DumpOnly(&|| ()), target, shared);
    let dumped = report_dump(drained, shared);
    shared.decide(Outcome::Dirty, 0);
    dumped
}

/// Says why nothing takes the crashed domain's place. The dump, of which the job's
/// result tells, may be complete all the same.
fn say_no_recovery(error: &Error, shared: &Shared) {
    job_log!(
        shared.log,
        Error,
        "recovery failed ({}): the guest stays down until the dump is written, then it \
         restarts",
        error.chain()
    );
}

/// What the hypervisor has back.
fn released(shared: &Shared) -> Size {
    Size::of_pages(shared.counters.released.load(Relaxed))
}

/// The crashed domain goes, the recovery domain becomes an ordinary one. What
/// fails here does not touch the service, so it is told and left.
fn close(toolstack: &mut dyn Toolstack, recovery: &dyn RecoveryDomain, shared: &Shared) {
    if let Err(error) = toolstack.destroy_crashed() {
        let total = Size::of_pages(shared.counters.total.load(Relaxed));
        let held = Size(total.0.saturating_sub(released(shared).0));
        let name = toolstack.crashed_name();
        job_log!(
            shared.log,
            Error,
            "could not destroy {name}, which holds {held}: {error}: run `xl destroy {name}`"
        );
    }
    if !recovery.exists() {
        job_log!(
            shared.log,
            Info,
            "recovery domain {} is gone: {} released for what comes after it",
            recovery.domid(),
            released(shared)
        );
        return;
    }
    match toolstack.settle(recovery) {
        Ok(()) => job_log!(
            shared.log,
            Info,
            "settled: recovery has its full memory, {} pages ({}) released",
            shared.counters.released.load(Relaxed),
            released(shared)
        ),
        Err(error) => job_log!(
            shared.log,
            Error,
            "recovery domain {} runs, but may lack memory or devices: {error}",
            recovery.domid()
        ),
    }
}
