// SPDX-License-Identifier: LGPL-2.1-or-later
//! Where a job's events go: the caller's callback or the `log` crate, and the socket
//! that the option `events` names.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use super::event::Event;
use super::record::Told;
use super::socket::EventSocket;
use crate::os::sync::{Mutex, MutexGuard};

/// Takes one event.
pub type Listener = Box<dyn FnMut(&Told<'_>) + Send>;

/// The log of one job. Events from its threads arrive one at a time; clones are one
/// log.
#[derive(Clone)]
pub struct JobLog(Arc<Inner>);

struct Inner {
    name: String,
    since: Instant,
    journald: Option<PathBuf>,
    outlets: Mutex<Outlets>,
}

struct Outlets {
    listener: Option<Listener>,
    socket: Option<EventSocket>,
    recorder: Option<Listener>,
}

impl JobLog {
    /// The log of a job that starts now, for the guest `name`. Without a listener,
    /// lines go to the `log` crate's logger, which is nobody unless the program has
    /// set one.
    pub fn new(name: &str, listener: Option<Listener>) -> Self {
        Self::with_sockets(name, listener, None, None)
    }

    /// A log as [`JobLog::new`] makes, whose events are sent to `socket`, too. What a crash
    /// came to goes to the journal of systemd that listens at `journald`.
    pub(crate) fn with_sockets(
        name: &str,
        listener: Option<Listener>,
        socket: Option<EventSocket>,
        journald: Option<PathBuf>,
    ) -> Self {
        Self(Arc::new(Inner {
            name: name.to_owned(),
            since: Instant::now(),
            journald,
            outlets: Mutex::new(Outlets {
                listener,
                socket,
                recorder: None,
            }),
        }))
    }

    /// The guest's name.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Where the journal of systemd listens, if it is to be told of a crash.
    pub(crate) fn journald(&self) -> Option<&Path> {
        self.0.journald.as_deref()
    }

    /// Has every event go to `recorder`, too, from now on: in place of the one before, if
    /// there is one. It must not tell anything itself.
    pub(crate) fn record_with(&self, recorder: Option<Listener>) {
        let mut outlets = self.lock();
        outlets.recorder = recorder;
    }

    fn lock(&self) -> MutexGuard<'_, Outlets> {
        let outlets = self.0.outlets.lock();
        outlets.unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells an event. A listener that panicked before is used again: losing the log
    /// of a crash would be worse.
    pub fn tell(&self, event: impl Into<Event>) {
        let mut outlets = self.lock();
        let told = Told {
            guest: &self.0.name,
            at: self.0.since.elapsed(),
            event: &event.into(),
        };
        let not_taken = outlets
            .socket
            .as_mut()
            .and_then(|socket| socket.send(&told));
        outlets.hear(&told);
        if let Some(not_taken) = not_taken {
            let event = &not_taken.into();
            outlets.hear(&Told { event, ..told });
        }
    }
}

impl Outlets {
    fn hear(&mut self, told: &Told<'_>) {
        if let Some(recorder) = &mut self.recorder {
            recorder(told);
        }
        match &mut self.listener {
            Some(listener) => listener(told),
            None => {
                let (guest, event) = (told.guest, told.event);
                log::log!(target: "vicover", event.level(), "{guest}: {event}");
            }
        }
    }
}
