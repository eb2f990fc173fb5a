// SPDX-License-Identifier: LGPL-2.1-or-later
//! All that can be told of a job: each thing that happened is one [`Event`].
//!
//! An event's [`Display`](fmt::Display) is the line that people read in the log; its
//! serialisation is what programs read (see [`crate::told::record`]). Both come from
//! the same value, and tests compare values.
//!
//! An event is added in the file of the group that it belongs to: the variant, its
//! line, and its level where that is not [`Level::Info`].

mod control;
mod dump;
mod guest;
mod job;
#[cfg(test)]
mod lines;
mod recovery;
mod standby;

use std::fmt;

use log::Level;
use serde::Serialize;

use crate::error::{Error, ErrorKind};

pub use control::{ControlEvent, Instead};
pub use dump::{DumpEvent, RemovedFor, Step};
pub use guest::GuestEvent;
pub use job::JobEvent;
pub use recovery::RecoveryEvent;
pub use standby::StandbyEvent;

/// Something that happened in a job.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(tag = "about", rename_all = "snake_case")]
pub enum Event {
    /// What was found out about the guest.
    Guest(GuestEvent),
    /// The way from the crashed domain to the recovery domain.
    Recovery(RecoveryEvent),
    /// The dump.
    Dump(DumpEvent),
    /// The dump's pace, and the guard of recovery's memory.
    Control(ControlEvent),
    /// A domain that is built before it is needed.
    Standby(StandbyEvent),
    /// The job as a whole.
    Job(JobEvent),
}

impl Event {
    /// The two names of what happened, as `about` and `event` of its record.
    pub fn names(&self) -> (String, String) {
        let event = serde_json::to_value(self).unwrap_or_default();
        let name = |member: &str| event[member].as_str().unwrap_or_default().to_owned();
        (name("about"), name("event"))
    }

    /// How much an operator has to care.
    pub fn level(&self) -> Level {
        match self {
            Self::Guest(event) => event.level(),
            Self::Recovery(event) => event.level(),
            Self::Dump(event) => event.level(),
            Self::Control(event) => event.level(),
            Self::Standby(event) => event.level(),
            Self::Job(event) => event.level(),
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Guest(event) => event.fmt(f),
            Self::Recovery(event) => event.fmt(f),
            Self::Dump(event) => event.fmt(f),
            Self::Control(event) => event.fmt(f),
            Self::Standby(event) => event.fmt(f),
            Self::Job(event) => event.fmt(f),
        }
    }
}

macro_rules! event_of_group {
    ($($group:ident($events:ident)),*) => {$(
        impl From<$events> for Event {
            fn from(event: $events) -> Self {
                Self::$group(event)
            }
        }
    )*};
}
event_of_group!(
    Guest(GuestEvent),
    Recovery(RecoveryEvent),
    Dump(DumpEvent),
    Control(ControlEvent),
    Standby(StandbyEvent),
    Job(JobEvent)
);

/// Why something failed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Cause {
    /// The kind of failure, for programs.
    pub kind: ErrorKind,
    /// The error and what led to it, in one line.
    pub text: String,
}

impl From<&Error> for Cause {
    fn from(error: &Error) -> Self {
        Self {
            kind: error.kind(),
            text: error.chain(),
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Serialises a value as the text that people read.
fn as_text<T: fmt::Display, S: serde::Serializer>(value: &T, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(value)
}

/// Serialises a path as text; bytes that are not UTF-8 are replaced.
fn as_path<S: serde::Serializer>(path: &std::path::Path, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(&path.display())
}

/// Serialises a path that may not be there: see [`as_path`].
fn as_maybe_path<S: serde::Serializer>(
    path: &Option<std::path::PathBuf>,
    to: S,
) -> Result<S::Ok, S::Error> {
    match path {
        Some(path) => as_path(path, to),
        None => to.serialize_none(),
    }
}
