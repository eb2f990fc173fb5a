// SPDX-License-Identifier: LGPL-2.1-or-later
//! Going on with a crash whose process was killed: from what its journal says, and from
//! what the hypervisor and the dump's file show.
//!
//! A recovery domain that runs comes first: it is guarded and gets what is free before
//! anything is looked at. One that does not run yet is built anew. What was being done
//! to the devices is done again.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::Mutex;

use crate::addr::GfnRange;
use crate::drain::handover::Handover;
use crate::drain::{Target, Work};
use crate::dump::{self, Changes, Unfinished};
use crate::error::Error;
use crate::host::contained::{ContainedDomain, ContainedToolstack};
use crate::host::{BuiltStandby, CrashedDomain, FoundRecovery, HostError, Requirement, Toolstack};
use crate::job::{JobState, Outcome, Phase};
use crate::journal::{Begun, Past, PastDump, Untouched};
use crate::os::process::boot_id;
use crate::story::bring_up::enter;
use crate::story::hand_over::{close, end_dump, say_no_recovery, Crash, Left, Prepared, Successor};
use crate::story::recover;
use crate::told::event::{ControlEvent, DumpEvent, JobEvent, RecoveryEvent};
use crate::told::report::report_times;
use crate::understand::{nothing_wanted, read_registers, remembered, understand, Awaited};

/// What the journal of a crash begins with: all that [`resume`] needs.
///
/// # Errors
/// Those of the host, and when the machine does not tell its boot id.
pub fn begun(
    domain: &dyn CrashedDomain,
    toolstack: &mut dyn Toolstack,
    target: &Target,
    options: &str,
    job: &JobState,
) -> Result<Begun, Error> {
    let describing = "describing the crashed domain";
    let host = toolstack.describe().map_err(Error::host(describing))?;
    let memory_pages = domain.pages().map_err(Error::host(describing))?;
    let boot_id = boot_id().map_err(|source| Error::Io {
        doing: "reading the machine's boot id".into(),
        source,
    })?;
    Ok(Begun {
        version: Begun::VERSION,
        guest: target.name.clone(),
        uuid: host.uuid,
        domid: host.domid,
        boot_id,
        options: options.into(),
        dump_dir: target.dump_dir.clone(),
        without_dump: !job.is_dump_wanted(),
        memory_pages,
        host: host.text,
    })
}

/// How often something is looked for before nobody is believed to know.
const LOOKS: u32 = 3;

/// Asks until there is an answer, but not for ever.
fn look<T>(mut ask: impl FnMut() -> Result<T, HostError>) -> Result<T, HostError> {
    let mut answer = ask();
    for _ in 1..LOOKS {
        answer = answer.or_else(|_| ask());
    }
    answer
}

/// Goes on with the crash that `past` tells of, whose domain is none when it is gone.
/// An error is the dump's, as of [`recover::recover`].
pub fn resume(
    domain: Option<&dyn CrashedDomain>,
    toolstack: Box<dyn Toolstack>,
    past: &Past,
    target: &Target,
    job: &JobState,
) -> Result<(), Error> {
    let domid = past.begun.domid;
    job.log.tell(JobEvent::Resumed { domid });
    if past.begun.without_dump {
        job.do_without_dump();
    }
    let mut toolstack = ContainedToolstack(toolstack);
    if let (false, Some(domain)) = (past.is_detaching, domain) {
        // Nothing was changed, but for a standby that was taken.
        forgo_standby(&mut toolstack, past);
        return recover::recover(domain, Box::new(toolstack), None, target, job);
    }
    enter(&mut toolstack, job, Phase::Detach);
    let running = running_recovery(&mut toolstack, past).inspect_err(|_| {
        domain.map(give_up_claim);
    })?;
    if let Some(FoundRecovery { domain, .. }) = &running {
        let domid = domain.domid();
        job.decide(Outcome::Adopted, domid);
        if let Err(error) = toolstack.complete_devices(&**domain) {
            job.log.tell(RecoveryEvent::NotSettled { domid, error });
        }
    }
    match domain {
        Some(domain) => {
            let domain = &ContainedDomain::new(domain);
            go_on(domain, &mut toolstack, running, past, target, job)
        }
        None => {
            finish_without_domain(&mut toolstack, running.as_ref(), past, job);
            report_times(job);
            Ok(())
        }
    }
}

/// The recovery domain, if it has been let run. One that has not is removed, and so is
/// a standby that was to become it.
fn running_recovery(
    toolstack: &mut dyn Toolstack,
    past: &Past,
) -> Result<Option<FoundRecovery>, Error> {
    let find = |toolstack: &mut dyn Toolstack| {
        // A second domain beside one that runs would be worse than anything.
        let found = look(|| toolstack.find_recovery());
        found.map_err(Error::host("looking for the recovery domain"))
    };
    match find(toolstack)? {
        Some(found) if found.is_running || past.runs => return Ok(Some(found)),
        _ => forgo_standby(toolstack, past),
    }
    if let Some(unfinished) = find(toolstack)? {
        let discarded = toolstack.discard(&*unfinished.domain);
        discarded.map_err(Error::host("removing an unfinished recovery domain"))?;
    }
    Ok(None)
}

/// Removes the standby that was taken for this crash, if it still is one.
fn forgo_standby(toolstack: &mut dyn Toolstack, past: &Past) {
    let Some(domid) = past.standby else { return };
    let standby = BuiltStandby {
        domid,
        pages: 0,
        recipe: String::new(),
    };
    // One that stays holds memory, and is removed before the next one is built.
    let _ = toolstack.forgo(&standby);
}

/// Goes on with a crash whose domain is there.
fn go_on(
    domain: &ContainedDomain<'_>,
    toolstack: &mut dyn Toolstack,
    running: Option<FoundRecovery>,
    past: &Past,
    target: &Target,
    job: &JobState,
) -> Result<(), Error> {
    job.counters
        .total
        .store(domain.ram().iter().map(GfnRange::len).sum(), Relaxed);
    job.pace.set_urgent(running.is_none());
    let successor = match &running {
        Some(recovery) => Successor::Runs(recovery.domain.clone()),
        None => match detach_again(toolstack, job) {
            Ok(requirement) => Successor::Needed(requirement, None),
            Err(error) => return stay_down(domain, past, target, &error, job),
        },
    };
    let crash = Crash {
        domain,
        prepare: Mutex::new(Some(Box::new(move || prepare(domain, past, target, job)))),
        handover: Handover::new(domain, &job.log, &job.cancel),
        target,
        job,
    };
    // Where nobody tells what the domain still has, nothing counts as given back:
    // recovery must not get others' memory.
    let had = past.begun.memory_pages;
    let released = had.saturating_sub(look(|| domain.pages()).unwrap_or(had));
    job.counters.released.store(released, Relaxed);
    crash.handover.resume(released);
    if let Some(recovery) = &running {
        take_charge(&crash.handover, recovery, released, past, job);
    }
    crash.finish(toolstack, successor)
}

/// Does once more what the earlier process had begun to do to the devices; then a recovery
/// domain can be built.
fn detach_again(toolstack: &mut dyn Toolstack, job: &JobState) -> Result<Requirement, Error> {
    let detached = toolstack.detach(None);
    detached.map_err(Error::host("detaching the crashed domain's devices"))?;
    job.log.tell(RecoveryEvent::Detached);
    let requirement = toolstack.requirement();
    let requirement = requirement.map_err(Error::host("sizing the recovery domain"))?;
    enter(toolstack, job, Phase::Seed);
    Ok(requirement)
}

/// There cannot be a recovery domain. The dump is finished, and the caller restarts the
/// hard way.
fn stay_down(
    domain: &ContainedDomain<'_>,
    past: &Past,
    target: &Target,
    error: &Error,
    job: &JobState,
) -> Result<(), Error> {
    say_no_recovery(error, job);
    give_up_claim(domain);
    job.enter(Phase::Drain);
    let prepared = prepare(domain, past, target, job);
    let drained =
        prepared.and_then(|prepared| prepared.drain(domain, Work::DumpOnly(&|| ()), target, job));
    let dumped = drained
        .transpose()
        .map_or(Ok(()), |drained| end_dump(drained, job));
    job.decide(Outcome::Dirty, 0);
    dumped
}

/// The process that was killed may have claimed memory for a recovery that there will not
/// be. Of a domain that is gone nothing is claimed.
fn give_up_claim(domain: &dyn CrashedDomain) {
    let _ = domain.claim(0);
}

/// Takes charge of a recovery domain that runs: gives it what is free, and lets it run
/// if its guard had stopped it.
fn take_charge(
    handover: &Handover<'_>,
    found: &FoundRecovery,
    released: u64,
    past: &Past,
    job: &JobState,
) {
    let recovery = &found.domain;
    // Of a domain of which it is not known what it got, no more than what comes.
    let account = past.recovery.filter(|was| was.domid == recovery.domid());
    let now = recovery.backing().map(|backing| backing.total);
    let (spent, granted) = match (account, now) {
        (Some(was), Ok(now)) => (was.spent_pages, now.saturating_sub(was.backed_pages)),
        _ => (released, 0),
    };
    handover.account(spent, granted);
    handover.adopt(recovery.clone());
    let_run(found, past, job);
    job.milestones.unpaused.get_or_init(|| job.elapsed());
}

/// Lets a recovery domain run that its guard had stopped; not one that an operator has.
fn let_run(found: &FoundRecovery, past: &Past, job: &JobState) {
    if found.is_running || !past.is_stopped {
        return;
    }
    if let Err(error) = found.domain.unpause() {
        job.log.tell(ControlEvent::StaysPaused {
            domid: found.domain.domid(),
            name: job.log.name().into(),
            error,
        });
    }
}

/// Ends a crash whose domain is gone: there is nothing more to dump or to give back.
fn finish_without_domain(
    toolstack: &mut dyn Toolstack,
    running: Option<&FoundRecovery>,
    past: &Past,
    job: &JobState,
) {
    enter(toolstack, job, Phase::Close);
    match running {
        Some(found) => {
            close(toolstack, &*found.domain, job);
            let_run(found, past, job);
        }
        None => job.decide(Outcome::Dirty, 0),
    }
}

/// Finds out what is left to dump.
fn prepare(
    domain: &dyn CrashedDomain,
    past: &Past,
    target: &Target,
    job: &JobState,
) -> Result<Prepared, Error> {
    let untouched = past.untouched.clone();
    match (&past.dump, untouched) {
        (PastDump::Ended, Some(untouched)) => nothing_left(domain, untouched),
        (_, Some(untouched)) if !job.is_dump_wanted() => nothing_left(domain, untouched),
        (
            PastDump::Begun {
                path: Some(path),
                changes,
            },
            Some(untouched),
        ) => match reopened(path, changes) {
            Ok(Reopened::Unfinished(dump)) => Ok(Prepared {
                understanding: remembered(domain, &dump, untouched)?,
                left: Left::Rest(dump),
            }),
            Ok(Reopened::Empty) => look_again(domain, past, target, job),
            Ok(Reopened::Complete) => {
                job.count(|count| count.dump_of_earlier_process(path.with_extension("")));
                nothing_left(domain, untouched)
            }
            Err(error) => {
                say_not_gone_on(Some(path.clone()), error.chain(), job);
                look_again(domain, past, target, job)
            }
        },
        (PastDump::Begun { path: None, .. }, _) => {
            say_not_gone_on(None, "it was a stream".into(), job);
            look_again(domain, past, target, job)
        }
        _ => look_again(domain, past, target, job),
    }
}

fn nothing_left(domain: &dyn CrashedDomain, untouched: Untouched) -> Result<Prepared, Error> {
    Ok(Prepared {
        understanding: nothing_wanted(domain, untouched)?,
        left: Left::Nothing,
    })
}

/// A dump that another process has begun.
enum Reopened {
    /// Pages are missing.
    Unfinished(Box<Unfinished>),
    /// There was nothing in it: it is gone.
    Empty,
    /// It was complete in the end.
    Complete,
}

fn reopened(path: &Path, changes: &Changes) -> Result<Reopened, dump::Error> {
    match Unfinished::open(path) {
        Ok(Some(dump)) => {
            let dump = dump.with_changes(changes.clone());
            Ok(Reopened::Unfinished(Box::new(dump)))
        }
        Ok(None) => {
            // Should it stay, it says of itself that it is incomplete.
            let _ = std::fs::remove_file(path);
            Ok(Reopened::Empty)
        }
        Err(_) if !path.exists() && path.with_extension("").exists() => Ok(Reopened::Complete),
        Err(error) => Err(error),
    }
}

fn say_not_gone_on(path: Option<PathBuf>, why: String, job: &JobState) {
    job.log.tell(DumpEvent::NotGoneOn { path, why });
}

/// Looks at the domain as it is now: what it has lost already is not wanted any more.
fn look_again(
    domain: &dyn CrashedDomain,
    past: &Past,
    target: &Target,
    job: &JobState,
) -> Result<Prepared, Error> {
    let vcpus = read_registers(domain, job)?;
    let awaited = Awaited::default();
    let mut understanding = understand(domain, &vcpus, &target.options, &awaited, job)?;
    if past.untouched.is_some() {
        // From then on pages were given back.
        understanding.forget_absent(domain)?;
    }
    let left = match understanding.bitmaps.wanted_total() {
        0 => Left::Nothing,
        _ => Left::All,
    };
    Ok(Prepared {
        understanding,
        left,
    })
}

#[cfg(test)]
#[cfg(not(shuttle))]
mod tests;
