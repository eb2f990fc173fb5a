// SPDX-License-Identifier: LGPL-2.1-or-later
//! Bringing up the recovery domain: the standby, or one that is built on memory that the
//! crashed domain gives back.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::Arc;

use crate::drain::handover::Handover;
use crate::error::Error;
use crate::host::{BuiltStandby, HostError, RecoveryDomain, Requirement, Toolstack};
use crate::job::{JobState, Outcome, Phase};
use crate::journal::Entry;
use crate::told::event::{Cause, RecoveryEvent, StandbyEvent};
use crate::units::Size;

/// Starts the recovery domain: the standby, or one that is built for it. Meanwhile
/// the drain rests: processor and disk are recovery's. It still does when recovery
/// runs, and it is the guard's to wake it.
pub(super) fn bring_up(
    toolstack: &mut dyn Toolstack,
    handover: &Handover<'_>,
    requirement: Requirement,
    standby: Option<&BuiltStandby>,
    job: &JobState,
) -> Result<Arc<dyn RecoveryDomain>, Error> {
    let adopted = standby.and_then(|standby| adopt_standby(toolstack, handover, standby, job));
    let (recovery, spent) = match adopted {
        Some(recovery) => (recovery, 0),
        None => {
            detach_interfaces(toolstack, handover, job);
            build(toolstack, handover, requirement, job)?
        }
    };
    // Before it gets any more.
    note_built(&*recovery, spent, job);
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
    job.note(&Entry::Runs { domid });
    job.decide(Outcome::Adopted, domid);
    job.log.tell(RecoveryEvent::Unpaused { domid });
    Ok(recovery)
}

/// Writes down what a recovery domain that does not run yet has, so that whoever goes on
/// with the crash knows what it has got since.
fn note_built(recovery: &dyn RecoveryDomain, spent_pages: u64, job: &JobState) {
    let domid = recovery.domid();
    if let Ok(backing) = recovery.backing() {
        job.note(&Entry::Built {
            domid,
            spent_pages,
            backed_pages: backing.total,
        });
    }
}

/// Takes the devices that could stay until recovery runs. Xen keeps what a device
/// has mapped from everybody else, so one that does not go only delays its pages.
pub(super) fn detach_interfaces(
    toolstack: &mut dyn Toolstack,
    handover: &Handover<'_>,
    job: &JobState,
) {
    if let Err(error) = toolstack.detach_interfaces() {
        job.log.tell(RecoveryEvent::InterfacesKept { error });
    }
    handover.detached();
}

pub(super) fn say_not_used(why: &str, job: &JobState) {
    job.log.tell(StandbyEvent::NotUsed { why: why.into() });
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

/// Builds the recovery domain as soon as there is memory for it; says how many of the
/// released pages that took.
fn build(
    toolstack: &mut dyn Toolstack,
    handover: &Handover<'_>,
    requirement: Requirement,
    job: &JobState,
) -> Result<(Arc<dyn RecoveryDomain>, u64), Error> {
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
                return Ok((recovery, need));
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

pub(super) fn enter(toolstack: &mut dyn Toolstack, job: &JobState, phase: Phase) {
    job.enter(phase);
    toolstack.publish("phase", phase.name());
}

/// What the hypervisor has back.
pub(super) fn released(job: &JobState) -> Size {
    Size::of_pages(job.counters.released.load(Relaxed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::Gfn;
    use crate::host::memory::Faults;
    use crate::host::CrashedDomain;
    use crate::story::noted::tests::{Done, Lines};
    use crate::story::tests::guest_of;
    use crate::told::kept::Kept;

    #[test]
    fn what_a_recovery_domain_was_built_with_is_written_down_before_it_runs() {
        let mut host = guest_of(1024, Faults::default());
        let (kept, done) = (Kept::default(), Done::default());
        let job = JobState::new(kept.log("guest"));
        job.journal.open(Box::new(Lines(done.clone())));
        let crashed = host.clone();
        let handover = Handover::new(&crashed, &job.log, &job.cancel);
        let frames: Vec<_> = (0..300).map(Gfn).collect();
        handover.add_released(crashed.release(&frames).unwrap());
        let requirement = host.requirement().unwrap();
        let built = bring_up(&mut host, &handover, requirement, None, &job).map(drop);
        assert!(built.is_ok(), "{kept}");
        let built = r#"{"entry":"built","domid":0,"spent_pages":256,"backed_pages":256}"#;
        let runs = r#"{"entry":"runs","domid":0}"#;
        assert_eq!(*done.lock().unwrap(), [built, runs]);
        assert_eq!(job.snapshot().phase, Phase::Recover);
    }
}
