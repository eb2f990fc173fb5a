// SPDX-License-Identifier: LGPL-2.1-or-later
//! How the jobs on a domain begin: each in a thread of its own, and in its turn when
//! another job on the guest is still at work.

use std::sync::Arc;

use super::{live, recover, repeated, resume, standby};
use crate::drain::Target;
use crate::error::Error;
use crate::host::{CrashedDomain, Pausable, StandbyHost, Toolstack};
use crate::incident;
use crate::job::back_off::Treatment;
use crate::job::recrash::{self, Recoveries};
use crate::job::{Count, Job, JobState};
use crate::journal::{Entry, JournalFile, Notes, Past};
use crate::options::{Recrash, Standby};
use crate::os::clock::since_boot;
use crate::told::event::{GuestEvent, JobEvent};
use crate::told::log::JobLog;

/// The recoveries of this process.
static RECOVERIES: Recoveries = Recoveries::new();

/// Begins to dump a domain that goes on running.
///
/// # Errors
/// When there cannot be a thread for the job.
pub(crate) fn dump(
    domain: impl CrashedDomain + Pausable + 'static,
    target: Target,
    log: JobLog,
) -> Result<Job, Error> {
    Job::start(log, move |job| live::dump(&domain, &target, job))
}

/// Begins to keep a standby for `guest`, which is anything that stays the same over
/// its crashes; none when the options do not ask for one. `open` opens the host that
/// the guest runs on. While an earlier crash of the guest is being handled, the job
/// waits.
///
/// # Errors
/// Those of `open`, and when there cannot be a thread for the job.
pub(crate) fn keep<H: StandbyHost + Send + 'static>(
    guest: String,
    asked: Standby,
    open: impl FnOnce() -> Result<H, Error>,
    log: JobLog,
) -> Result<Option<Job>, Error> {
    let boot = match asked {
        Standby::No => return Ok(None),
        Standby::Built => false,
        Standby::Booted => true,
    };
    let mut host = open()?;
    let keeping = Job::start(log, move |job| {
        RECOVERIES.wait_for_guest(&guest, job);
        standby::keep(&mut host, boot, standby::LOOK_EVERY, job)
    });
    keeping.map(Some)
}

/// Begins the journal of a crash. Without one the crash is handled all the same.
fn write_down(
    domain: &dyn CrashedDomain,
    toolstack: &mut dyn Toolstack,
    target: &Target,
    notes: &Notes,
    job: &JobState,
) {
    let begun = resume::begun(domain, toolstack, target, &notes.options, job);
    let file = begun.map_err(|error| error.chain()).and_then(|begun| {
        JournalFile::begin(&notes.directory, begun)
            .map_err(|error| format!("{}: {error}", notes.directory.display()))
    });
    match file {
        Ok(file) => {
            job.journal.open(Box::new(file));
            // Who has made the record has noted it: maybe before there was a journal.
            if let Some(path) = job.record.path() {
                job.note(&Entry::Recorded { path });
            }
        }
        Err(error) => job.log.tell(JobEvent::NotNoted { error }),
    }
}

/// Begins to go on with a crash that `past` tells of and another process has begun;
/// `open` opens the crashed domain, if it is there, and its toolstack.
///
/// # Errors
/// [`Error::Busy`] when this process handles another crash of the guest, those of
/// `open`, and when there cannot be a thread for the job.
pub(crate) fn resumption<D: CrashedDomain + 'static>(
    past: Past,
    open: impl FnOnce() -> Result<(Option<D>, Box<dyn Toolstack>), Error>,
    file: JournalFile,
    target: Target,
    log: JobLog,
) -> Result<Job, Error> {
    let guest = past.begun.uuid.clone();
    // The crash itself was counted by who handled it first.
    let count = Count::of(file.directory(), &guest, Box::new(since_boot));
    RECOVERIES.start(&guest, Recrash::Restart, |_| {
        let (domain, toolstack) = open()?;
        let started = Job::start(log, move |job| {
            job.journal.open(Box::new(file));
            // A job begins once.
            let _ = job.count.set(count);
            let domain = domain.as_ref().map(|domain| domain as &dyn CrashedDomain);
            let (uuid, record) = (&past.begun.uuid, past.record.as_deref());
            incident::kept(uuid, &target, record, job, || {
                resume::resume(domain, toolstack, &past, &target, job)
            })
        })?;
        Ok((started.shared.clone(), started))
    })
}

/// Begins to recover a crash of `guest`, with the standby that `keeper` keeps. `open`
/// opens the crashed domain and its toolstack: at once, or, when an earlier crash of
/// the guest is still being handled and the options say so, once that is over. While
/// the earlier one runs, the domain lacks memory, and the host's is not what it was. The
/// crash is counted, also when it is refused; a guest that keeps crashing gets less done
/// about it, down to nothing but an outcome. With a `panic_line` the guest has asked for a
/// restart, and that is in its log.
///
/// # Errors
/// Those of `open` when it is called at once; [`Error::Busy`] when the options do not
/// let a crash wait for an earlier one; and when there cannot be a thread for the job.
pub(crate) fn recovery<D: CrashedDomain + 'static>(
    guest: &str,
    open: impl FnOnce() -> Result<(D, Box<dyn Toolstack>), Error> + Send + 'static,
    keeper: Option<Arc<JobState>>,
    target: Target,
    notes: Notes,
    panic_line: Option<String>,
    log: JobLog,
) -> Result<Job, Error> {
    let uuid = guest.to_owned();
    let count = Count::of(&notes.directory, guest, Box::new(since_boot));
    let counted = count.crash(&target.options);
    let is_given_up = matches!(counted.treatment, Treatment::GiveUp { .. });
    // What is done about such a crash takes no memory, and does not depend on an earlier one.
    let policy = match is_given_up {
        true => Recrash::Queue,
        false => target.options.on_recrash,
    };
    RECOVERIES.start(guest, policy, |earlier| {
        let opened = match earlier {
            None if !is_given_up => Ok(open()?),
            earlier => Err((earlier, open)),
        };
        let handle = move |target: &Target, job: &JobState| {
            if let Some(line) = panic_line {
                job.log.tell(GuestEvent::Panicked { line });
            }
            if !repeated::begin(count, &counted, &target.options, job) {
                return Ok(());
            }
            let (domain, mut toolstack) = match opened {
                Ok(opened) => {
                    repeated::set_dump(&counted.treatment, job);
                    opened
                }
                Err((earlier, open)) => {
                    earlier.map_or(Ok(()), |earlier| recrash::wait_for(&earlier, job))?;
                    repeated::set_dump_after_wait(&target.options, job);
                    open()?
                }
            };
            write_down(&domain, &mut *toolstack, target, &notes, job);
            recover::recover(&domain, toolstack, keeper.as_deref(), target, job)
        };
        let started = Job::start(log, move |job| {
            incident::kept(&uuid, &target, None, job, || handle(&target, job))
        })?;
        Ok((started.shared.clone(), started))
    })
}
