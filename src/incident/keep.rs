// SPDX-License-Identifier: LGPL-2.1-or-later
//! Keeping the record of a crash while it is handled.
//!
//! What is told is added to the record where it is told; a thread writes the record, since
//! its disk may be slow, full, or not answer at all. Whoever handles the crash waits for
//! that thread at the very end only, and no longer once the job is cancelled.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::earlier::earlier;
use super::files::{Files, RECORD};
use super::picture::picture;
use super::screen::screen;
use super::value::{Earlier, Incident};
use crate::drain::Target;
use crate::dump::{make_directory, stem};
use crate::error::Error;
use crate::job::{JobState, Outcome};
use crate::journal::{Entry, Journal};
use crate::limits::cancel::Cancel;
use crate::limits::monitor::Monitor;
use crate::os::sync::OnceLock;
use crate::os::thread::{start, Signals};
use crate::told::event::{DumpEvent, Event, GuestEvent, JobEvent, RecoveryEvent};
use crate::told::log::JobLog;
use crate::units::Span;
use crate::units::Utc;

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
}

/// Events that wait for the record to be begun. Its directory does not answer when there
/// are more.
const MOST_WAITING: usize = 1000;

type Shared = Arc<Monitor<Draft>>;

/// Handles a crash of the guest `uuid` with `handle`, whose result it returns, and keeps
/// the record of it in the target's directory. With `begun`, the path of a record that
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
    let result = handle();
    ending.failure = result.as_ref().err().map(Error::chain);
    result
}

/// Ends the record when it is dropped, also by a panic.
struct Ending<'a> {
    shared: Shared,
    job: &'a JobState,
    /// Why the job failed, if it did.
    failure: Option<String>,
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.job.log.record_with(None);
        self.job
            .decide_at_end(self.failure.is_some() || std::thread::panicking());
        let outcome = self.job.snapshot().outcome;
        let failure = self.failure.take();
        self.shared
            .update(|draft| draft.end = Some(End { outcome, failure }));
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
    fn begin(&mut self, incident: Incident, now: Utc) {
        let since_s = now.0.saturating_sub(incident.crashed_s.0);
        self.before_ms = since_s.saturating_mul(1000);
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

    /// What is to be written now, and the guest's log if it is not.
    fn take(&mut self) -> Option<(Incident, Option<Arc<str>>)> {
        self.is_due = false;
        let mut incident = self.incident.clone()?;
        if let Some(End { outcome, failure }) = self.end.clone() {
            incident.outcome = outcome;
            incident.failure = failure;
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
    now: Utc,
    log: JobLog,
    journal: Arc<Journal>,
    /// Where the job learns the record's path.
    record: Arc<OnceLock<PathBuf>>,
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
            now: Utc::now(),
            log: job.log.clone(),
            journal: job.journal.clone(),
            record: job.record.clone(),
        };
        start("vicover-record", Signals::ToOthers, move || {
            let _written = Written(keeping.shared.clone());
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
        let (files, mut incident) = match self.begin() {
            Ok(begun) => begun,
            Err((path, error)) => return self.tell_not_recorded(path, &error),
        };
        let path = files.path(RECORD);
        // A job is recorded once.
        let _ = self.record.set(path.clone());
        let mut has_looked = incident.earlier.is_some();
        self.shared.update(|draft| draft.begin(incident, self.now));
        if let Err(error) = self.journal.note(&Entry::Recorded { path }) {
            let error = error.to_string();
            self.log.tell(JobEvent::NotNoted { error });
        }
        let (mut is_there, mut is_told) = (false, false);
        loop {
            let is_idle = |draft: &mut Draft| !draft.is_due && draft.end.is_none();
            let taken = self.shared.wait_while(is_idle).take();
            let Some((now, dmesg)) = taken else { return };
            incident = now;
            match write_all(&files, &mut incident, dmesg.as_deref()) {
                Ok(()) => {
                    if !std::mem::replace(&mut is_there, true) {
                        let path = files.path(RECORD);
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
                return;
            }
            // What is known already is not kept waiting for this.
            if let (Some(died), false) = (&incident.died, has_looked) {
                has_looked = true;
                let earlier = earlier(files.directory(), &died.signature, files.id());
                self.shared.update(|draft| draft.add_earlier(earlier));
            }
        }
    }

    /// The files and what is in the record: those that another process has begun, or new
    /// ones.
    fn begin(&self) -> Result<(Files, Incident), (PathBuf, io::Error)> {
        let begun = self.begun.as_deref().and_then(Files::of_record);
        if let Some(files) = begun {
            let text = files.record_text();
            if let Some(incident) = text.ok().and_then(|text| read(&text)) {
                return Ok((files, incident));
            }
        }
        let in_directory = |error| (self.directory.clone(), error);
        let made = make_directory(&self.directory);
        if made.map_err(|error| in_directory(io::Error::other(error.chain())))? {
            let path = self.directory.clone();
            self.log.tell(DumpEvent::DirectoryMade { path });
        }
        let stem = stem(&self.guest, self.now);
        let files = Files::claim(&self.directory, &stem).map_err(in_directory)?;
        let incident = Incident::new(files.id(), &self.guest, &self.uuid, self.now);
        Ok((files, incident))
    }

    fn tell_not_recorded(&self, path: PathBuf, error: &io::Error) {
        let error = error.to_string();
        self.log.tell(JobEvent::NotRecorded { path, error });
    }
}

/// Nothing more is written once this is dropped, also by a panic.
struct Written(Shared);

impl Drop for Written {
    fn drop(&mut self) {
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

/// A record of this version.
fn read(text: &str) -> Option<Incident> {
    let incident: Incident = serde_json::from_str(text).ok()?;
    (incident.version == Incident::VERSION).then_some(incident)
}

fn write_all(
    files: &Files,
    incident: &mut Incident,
    dmesg: Option<&str>,
) -> Result<(), (PathBuf, io::Error)> {
    incident.dump.look_for_sums();
    let put = |end: &str, text: &str| {
        let put = files.replace(end, text, incident.is_over || dmesg.is_some());
        put.map_err(|error| (files.path(end), error))
    };
    let record = serde_json::to_string_pretty(incident).map_err(io::Error::other);
    let record = record.map_err(|error| (files.path(RECORD), error))?;
    put(RECORD, &(record + "\n"))?;
    put("txt", &screen(incident))?;
    if let Some(dmesg) = dmesg {
        put("dmesg", dmesg)?;
    }
    match incident.is_over {
        true => put("svg", &picture(incident)),
        false => Ok(()),
    }
}

#[cfg(test)]
#[cfg(not(shuttle))]
mod tests;
