// SPDX-License-Identifier: LGPL-2.1-or-later
//! One crash, from the guest's last instruction to its successor's ordinary
//! life, told in order: understand, detach, seed, recover, drain, close.

use std::sync::Mutex;

use crate::drain::handover::Handover;
use crate::drain::{Target, Work};
use crate::error::Error;
use crate::host::contained::{ContainedDomain, ContainedToolstack};
use crate::host::{BuiltStandby, CrashedDomain, HostError, Toolstack};
use crate::job::{JobState, Outcome, Phase, Slot};
use crate::journal::Entry;
use crate::os::sync::thread;
use crate::story::bring_up::{enter, say_not_used};
use crate::story::hand_over::{
    drain_all, end_dump, say_no_recovery, Crash, Left, Prepared, Successor,
};
use crate::story::standby::say_if_kept;
use crate::told::event::RecoveryEvent;
use crate::told::report::report_dump;
use crate::understand::{look, read_registers, understand_beside, Awaited, Understanding};

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
        drain_all(domain, &mut understanding, work, target, job)
    });
    job.enter(Phase::Close);
    report_dump(drained, job)
}

/// Dumps a crashed domain while its successor is built and runs on the memory
/// that the dump gives back. `keeper` is the job that keeps a standby for it, if
/// there is one. An error is the dump's: that there is no recovery shows in the
/// outcome, and its reason in the log. Without a dump, where the job says so, memory is
/// only given back.
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
    if let Some(BuiltStandby { domid, .. }) = standby {
        job.note(&Entry::Standby { domid });
    }
    job.note(&Entry::Detaching);

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
        prepare: Mutex::new(Some(Box::new(move || {
            Ok(Prepared {
                understanding,
                left: match job.is_dump_wanted() {
                    true => Left::All,
                    false => Left::Nothing,
                },
            })
        }))),
        handover: Handover::new(domain, &job.log, &job.cancel),
        target,
        job,
    };
    crash.finish(toolstack, Successor::Needed(requirement, standby.as_ref()))
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

/// The recovery cannot go on, so nobody will want the standby.
fn forgo(toolstack: &mut dyn Toolstack, standby: Option<&BuiltStandby>, job: &JobState) {
    let Some(standby) = standby else { return };
    say_if_kept(toolstack.forgo(standby), standby, job);
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
    let dumped = match job.is_dump_wanted() {
        true => {
            let work = Work::DumpOnly(&|| ());
            end_dump(drain_all(domain, understanding, work, target, job), job)
        }
        false => Ok(()),
    };
    job.decide(Outcome::Dirty, 0);
    dumped
}
