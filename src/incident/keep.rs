// SPDX-License-Identifier: LGPL-2.1-or-later
//! Keeping the record of a crash while it is handled.
//!
//! What is told is added to the record where it is told; a thread writes the record, since
//! its disk may be slow, full, or not answer at all. Whoever handles the crash waits for
//! that thread at the very end only, and no longer once the job is cancelled.

use std::io;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::Arc;
use std::time::Duration;

use super::earlier::earlier;
use super::files::{Files, RECORD};
use super::journald::{self, Moment};
use super::retention::tidy;
use super::value::{DumpState, Earlier, Incident, ProgressMark};
use super::write::write_all;
use crate::drain::Target;
use crate::dump::{make_directory, stem};
use crate::error::{panic_text, Error};
use crate::job::{Counters, JobState, Outcome, RecordPlace, Snapshot};
use crate::journal::{Entry, Journal};
use crate::limits::cancel::Cancel;
use crate::limits::monitor::Monitor;
use crate::options::Options;
use crate::os::sync::{Instant, MutexGuard};
use crate::os::thread::{start, Signals};
use crate::told::event::{DumpEvent, Event, GuestEvent, JobEvent, RecoveryEvent};
use crate::told::log::JobLog;
use crate::units::{Size, Span, Utc};

/// How often it is looked how far a dump is that is being written: as often as people look.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long the last writing may still take once the caller has cancelled.
const GRACE: Duration = Duration::from_millis(250);

/// The record as it is now.
struct Draft {
    /// None until it is known whether another process has begun it.
    incident: Option<Incident>,
    /// What was told until then, and when.
    waiting: Vec<(Duration, Event)>,
    /// When the job was started, after the crash.
    before_ms: u64,
    /// The guest's log, until it is written.
    dmesg: Option<Arc<str>>,
    /// There is something new that is worth writing.
    is_due: bool,
    /// How the crash ended, once it is handled.
    end: Option<End>,
    /// Nothing will be written any more.
    is_written: bool,
}

/// How the handling of a crash ended.
#[derive(Clone)]
struct End {
    outcome: Outcome,
    failure: Option<String>,
    /// The recovery domain, if there is one: of one that another process has let run
    /// nothing else may tell.
    recovery: Option<u32>,
}

/// Events that wait for the record to be begun. Its directory does not answer when there
/// are more.
const MOST_WAITING: usize = 1000;

type Shared = Arc<Monitor<Draft>>;

/// Handles a crash of the guest `uuid` with `handle`, whose result it returns, and keeps
/// the record of it in the target's directory; dumps that the options do not let stay
/// there are removed afterwards. With `begun`, the path of a record that
/// another process has begun, that one is gone on with.
pub fn kept(
    uuid: &str,
    target: &Target,
    begun: Option<&Path>,
    job: &JobState,
    handle: impl FnOnce() -> Result<(), Error>,
) -> Result<(), Error> {
    if !target.options.record {
        return handle();
    }
    let mut ending = match Keeping::start(uuid, target, begun, job) {
        Ok(ending) => ending,
        Err(error) => {
            job.log.tell(JobEvent::NotRecorded {
                path: target.dump_dir.clone(),
                error: error.to_string(),
            });
            return handle();
        }
    };
    // What a panic says is why the job failed, for the record as for the caller.
    let result = catch_unwind(AssertUnwindSafe(handle))
        .unwrap_or_else(|panic| Err(Error::Internal(panic_text(&*panic))));
    ending.failure = result.as_ref().err().map(Error::chain);
    result
}

/// Ends the record when it is dropped.
struct Ending<'a> {
    shared: Shared,
    job: &'a JobState,
    /// Why the job failed, if it did.
    failure: Option<String>,
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.job.log.record_with(None);
        self.job.decide_at_end(self.failure.is_some());
        let Snapshot {
            outcome,
            recovery_domid,
            ..
        } = self.job.snapshot();
        let end = End {
            outcome,
            failure: self.failure.take(),
            recovery: (recovery_domid != 0).then_some(recovery_domid),
        };
        self.shared.update(|draft| draft.end = Some(end));
        let cancelled = &self.job.cancel;
        let is_busy = |draft: &mut Draft| !draft.is_written;
        drop(
            self.shared
                .wait_while(|draft| is_busy(draft) && !cancelled.is_asked()),
        );
        drop(self.shared.wait_at_most(GRACE, is_busy));
    }
}

impl Draft {
    fn new() -> Self {
        Self {
            incident: None,
            waiting: Vec::new(),
            before_ms: 0,
            dmesg: None,
            is_due: false,
            end: None,
            is_written: false,
        }
    }

    /// Begins with what another process has written, or nothing.
    fn begin(&mut self, mut incident: Incident, now: Utc) {
        let since_s = now.0.saturating_sub(incident.crashed_s.0);
        self.before_ms = since_s.saturating_mul(1000);
        // Its process may have been killed between its last word and its end.
        incident.is_over = false;
        incident.failure = None;
        self.incident = Some(incident);
        for (at, event) in std::mem::take(&mut self.waiting) {
            self.add(at, &event);
        }
    }

    fn add(&mut self, at: Duration, event: &Event) {
        if self.is_written {
            return;
        }
        let Some(incident) = &mut self.incident else {
            if self.waiting.len() < MOST_WAITING {
                self.waiting.push((at, event.clone()));
            }
            return;
        };
        incident.add(event, self.before_ms.saturating_add(Span(at).millis()));
        if let Event::Guest(GuestEvent::LogRead { text, .. }) = event {
            self.dmesg = Some(text.clone());
        }
        self.is_due |= is_worth_writing(event);
    }

    fn add_earlier(&mut self, earlier: Option<Earlier>) {
        if let (Some(incident), Some(earlier)) = (&mut self.incident, earlier) {
            incident.earlier = Some(earlier);
            self.is_due = true;
        }
    }

    /// Whether a dump is being written.
    fn is_dumping(&self) -> bool {
        let incident = self.incident.as_ref();
        incident.is_some_and(|incident| incident.dump.state == DumpState::Written)
    }

    /// Whether there is nothing new to be written.
    fn is_idle(&self) -> bool {
        !self.is_due && self.end.is_none()
    }

    /// What is to be written now, and the guest's log if it is not.
    fn take(&mut self) -> Option<(Incident, Option<Arc<str>>)> {
        self.is_due = false;
        let mut incident = self.incident.clone()?;
        if let Some(End {
            outcome,
            failure,
            recovery,
        }) = self.end.clone()
        {
            incident.outcome = outcome;
            incident.failure = failure;
            incident.recovery.domid = incident.recovery.domid.or(recovery);
            incident.is_over = true;
        }
        Some((incident, self.dmesg.take()))
    }
}

/// Whether the record is written anew when this happens: what somebody may wait for.
fn is_worth_writing(event: &Event) -> bool {
    matches!(
        event,
        Event::Guest(
            GuestEvent::Died { .. } | GuestEvent::LogRead { .. } | GuestEvent::Planned { .. }
        ) | Event::Recovery(
            RecoveryEvent::Unpaused { .. }
                | RecoveryEvent::Settled { .. }
                | RecoveryEvent::Failed { .. }
        ) | Event::Dump(
            DumpEvent::Started { .. }
                | DumpEvent::Progress { .. }
                | DumpEvent::Complete { .. }
                | DumpEvent::Incomplete { .. }
                | DumpEvent::NotMade { .. }
                | DumpEvent::NotWanted { .. }
        )
    )
}

/// The thread that writes a record.
struct Keeping {
    shared: Shared,
    guest: String,
    uuid: String,
    directory: PathBuf,
    /// The record that another process has begun.
    begun: Option<PathBuf>,
    crashed: Utc,
    since: Instant,
    counters: Arc<Counters>,
    options: Options,
    log: JobLog,
    cancel: Cancel,
    journal: Arc<Journal>,
    /// Where the job learns the record's path.
    record: Arc<RecordPlace>,
}

impl Keeping {
    /// Starts the thread, and has it hear of everything from here on.
    fn start<'a>(
        uuid: &str,
        target: &Target,
        begun: Option<&Path>,
        job: &'a JobState,
    ) -> io::Result<Ending<'a>> {
        let shared = Arc::new(Monitor::new(Draft::new()));
        let keeping = Self {
            shared: shared.clone(),
            guest: target.name.clone(),
            uuid: uuid.into(),
            directory: target.dump_dir.clone(),
            begun: begun.map(Into::into),
            crashed: Utc::now(),
            since: Instant::now(),
            counters: job.counters.clone(),
            options: target.options.clone(),
            log: job.log.clone(),
            cancel: job.cancel.clone(),
            journal: job.journal.clone(),
            record: job.record.clone(),
        };
        match begun {
            Some(path) => job.record.set(path.into()),
            None => job.record.expect(),
        }
        let written = Written(shared.clone(), job.record.clone());
        start("vicover-record", Signals::ToOthers, move || {
            let _written = written;
            keeping.write();
        })?;
        wake_when_cancelled(&job.cancel, &shared);
        let hearing = shared.clone();
        job.log.record_with(Some(Box::new(move |told| {
            hearing.update(|draft| draft.add(told.at, told.event));
        })));
        Ok(Ending {
            shared,
            job,
            failure: None,
        })
    }

    /// Writes the record whenever there is more to say, and at the end.
    fn write(&self) {
        let (files, incident) = match self.begin() {
            Ok(begun) => begun,
            Err((path, error)) => return self.tell_not_recorded(path, &error),
        };
        let path = files.path(RECORD);
        self.record.set(path.clone());
        let mut has_looked = incident.earlier.is_some();
        self.shared
            .update(|draft| draft.begin(incident, self.crashed));
        if let Err(error) = self.journal.note(&Entry::Recorded { path }) {
            let error = error.to_string();
            self.log.tell(JobEvent::NotNoted { error });
        }
        let (mut is_there, mut is_told) = (false, false);
        let mut shown = None;
        while let Some((mut incident, dmesg)) = self.next(&mut shown) {
            match write_all(&files, &mut incident, dmesg.as_deref()) {
                Ok(()) => {
                    if !std::mem::replace(&mut is_there, true) {
                        let path = files.path(RECORD);
                        // Who has begun the record has told it.
                        if self.begun.is_none() {
                            self.tell_journald(Moment::Crashed, &incident, &path);
                        }
                        self.log.tell(JobEvent::Recorded { path });
                    }
                }
                Err((path, error)) if !is_told => {
                    is_told = true;
                    self.tell_not_recorded(path, &error);
                }
                Err(_) => {}
            }
            if incident.is_over {
                if !is_there {
                    files.give_up();
                }
                let path = files.path(RECORD);
                self.tell_journald(Moment::Over, &incident, &path);
                return tidy(&files, &self.uuid, &self.options, &self.log, &self.cancel);
            }
            // What is known already is not kept waiting for this.
            if let (Some(died), false) = (&incident.died, has_looked) {
                has_looked = true;
                let earlier = earlier(files.directory(), &died.signature, files.id());
                self.shared.update(|draft| draft.add_earlier(earlier));
            }
        }
    }

    /// The record when there is something to be written, and the guest's log if it is not;
    /// `shown` is how far the dump was in the record before. None where there is no record.
    fn next(&self, shown: &mut Option<[u64; 4]>) -> Option<(Incident, Option<Arc<str>>)> {
        loop {
            let mut draft = self.wait();
            let (is_idle, before_ms, taken) = (draft.is_idle(), draft.before_ms, draft.take());
            drop(draft);
            let (mut incident, dmesg) = taken?;
            incident.now = self.now(&incident, before_ms);
            let before = std::mem::replace(shown, incident.now.map(ProgressMark::pages));
            if !is_idle || before != *shown {
                return Some((incident, dmesg));
            }
        }
    }

    /// Waits until there is something to be written; while a dump is, also for how far it
    /// is.
    fn wait(&self) -> MutexGuard<'_, Draft> {
        let is_dumping = self.shared.lock().is_dumping();
        let is_idle = |draft: &mut Draft| draft.is_idle();
        match is_dumping {
            true => self.shared.wait_at_most(LOOK_EVERY, is_idle),
            false => self.shared.wait_while(is_idle),
        }
    }

    /// How far the dump is, while it is written.
    fn now(&self, incident: &Incident, before_ms: u64) -> Option<ProgressMark> {
        let is_written = incident.dump.state == DumpState::Written && !incident.is_over;
        let counters = &self.counters;
        is_written.then(|| ProgressMark {
            at_ms: before_ms.saturating_add(Span(self.since.elapsed()).millis()),
            dumped_pages: counters.dumped.load(Relaxed),
            planned_pages: counters.planned.load(Relaxed),
            written_bytes: counters.dump_bytes.load(Relaxed),
            released_bytes: Size::of_pages(counters.released.load(Relaxed)).0,
        })
    }

    /// The files and what is in the record: those that another process has begun, or new
    /// ones.
    fn begin(&self) -> Result<(Files, Incident), (PathBuf, io::Error)> {
        let begun = self.begun.as_deref().and_then(Files::of_record);
        if let Some(files) = begun {
            if let Ok(incident) = files.read() {
                return Ok((files, incident));
            }
        }
        let in_directory = |error| (self.directory.clone(), error);
        let made = make_directory(&self.directory);
        if made.map_err(|error| in_directory(io::Error::other(error.chain())))? {
            let path = self.directory.clone();
            self.log.tell(DumpEvent::DirectoryMade { path });
        }
        let stem = stem(&self.guest, self.crashed);
        let files = Files::claim(&self.directory, &stem).map_err(in_directory)?;
        let incident = Incident::new(files.id(), &self.guest, &self.uuid, self.crashed);
        Ok((files, incident))
    }

    fn tell_journald(&self, moment: Moment, incident: &Incident, path: &Path) {
        if let Some(socket) = self.log.journald() {
            journald::tell(socket, moment, incident, path);
        }
    }

    fn tell_not_recorded(&self, path: PathBuf, error: &io::Error) {
        let error = error.to_string();
        self.log.tell(JobEvent::NotRecorded { path, error });
    }
}

/// Nothing more is written once this is dropped, also by a panic.
struct Written(Shared, Arc<RecordPlace>);

impl Drop for Written {
    fn drop(&mut self) {
        self.1.give_up();
        self.0.update(|draft| draft.is_written = true);
    }
}

fn wake_when_cancelled(cancel: &Cancel, shared: &Shared) {
    let shared = Arc::downgrade(shared);
    cancel.when_asked(move || {
        if let Some(shared) = shared.upgrade() {
            shared.wake();
        }
    });
}

#[cfg(test)]
#[cfg(not(shuttle))]
mod tests;
