// SPDX-License-Identifier: LGPL-2.1-or-later
//! The job as a whole, and a domain that goes on running afterwards.

use std::fmt;
use std::path::PathBuf;

use log::Level;
use serde::Serialize;

use super::{as_path, as_text, Cause};
use crate::error::Error;
use crate::host::HostError;
use crate::options::{AtMost, OnCrashLoop};
use crate::units::Span;

/// The job as a whole, and a domain that goes on running afterwards.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum JobEvent {
    /// An earlier crash of the guest comes first.
    Queued,
    /// The domain to be dumped stands still.
    Paused,
    /// The domain runs again.
    RunsAgain {
        /// How long it stood.
        #[serde(rename = "paused_ms")]
        paused: Span,
    },
    /// The domain could not be let run again.
    StaysPaused {
        /// Its name.
        name: String,
        /// Why not.
        error: HostError,
    },
    /// The caller asked to stop.
    Cancelled,
    /// The job failed, for a reason that has not been told before.
    Failed {
        /// Why.
        why: Cause,
    },
    /// What an earlier process has begun is gone on with.
    Resumed {
        /// The crashed domain's number.
        domid: u32,
    },
    /// Should this process be killed, nobody can go on.
    NotNoted {
        /// Why.
        error: String,
    },
    /// The host's options are not taken: nothing but the guest's own counts.
    HostOptionsRefused {
        /// Why.
        error: String,
    },
    /// The guest has crashed before, of late.
    CrashedAgain {
        /// How often, this crash among them.
        crashes: usize,
        /// So often it is recovered.
        #[serde(serialize_with = "as_text")]
        limit: AtMost,
    },
    /// The guest keeps crashing, and is not recovered any more.
    GivenUp {
        /// How often it has crashed of late.
        crashes: usize,
        /// So often it is recovered.
        #[serde(serialize_with = "as_text")]
        limit: AtMost,
        /// What is done instead.
        action: OnCrashLoop,
    },
    /// What was known of the guest's earlier crashes cannot be made use of.
    HistoryLost {
        /// Why.
        error: String,
    },
    /// A crash, or a dump, of the guest is not known to those who handle its next crash.
    NotCounted {
        /// Why.
        error: String,
    },
    /// What is known of the crash so far is in its record.
    Recorded {
        /// The record.
        #[serde(serialize_with = "as_path")]
        path: PathBuf,
    },
    /// The record of the crash is not what it should be, or not there.
    NotRecorded {
        /// The file, or the directory.
        #[serde(serialize_with = "as_path")]
        path: PathBuf,
        /// Why.
        error: String,
    },
    /// Nobody takes events where the option `events` says, or not fast enough.
    EventsNotTaken {
        /// The socket.
        #[serde(serialize_with = "as_path")]
        path: PathBuf,
        /// What the system says.
        error: String,
    },
}

impl JobEvent {
    pub(super) fn level(&self) -> Level {
        match self {
            Self::Cancelled
            | Self::EventsNotTaken { .. }
            | Self::NotRecorded { .. }
            | Self::NotNoted { .. }
            | Self::HostOptionsRefused { .. }
            | Self::CrashedAgain { .. }
            | Self::HistoryLost { .. }
            | Self::NotCounted { .. } => Level::Warn,
            Self::StaysPaused { .. } | Self::Failed { .. } | Self::GivenUp { .. } => Level::Error,
            Self::Queued
            | Self::Paused
            | Self::RunsAgain { .. }
            | Self::Resumed { .. }
            | Self::Recorded { .. } => Level::Info,
        }
    }
}

impl fmt::Display for JobEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Queued => f.write_str("queued: the dump of an earlier crash comes first"),
            Self::Paused => f.write_str("paused"),
            Self::RunsAgain { paused } => {
                write!(f, "runs again after {:.2} s", paused.0.as_secs_f64())
            }
            Self::StaysPaused { name, error } => write!(
                f,
                "the domain stays paused: {error}: run `xl unpause {name}`"
            ),
            Self::Cancelled => Error::Cancelled.fmt(f),
            Self::Failed { why } => why.fmt(f),
            Self::Resumed { domid } => write!(
                f,
                "resumed: going on with the crash of domain {domid}, whose process is gone"
            ),
            Self::NotNoted { error } => write!(
                f,
                "no journal, so nobody can go on should this process be killed: {error}"
            ),
            Self::HostOptionsRefused { error } => {
                write!(f, "the host's options are not taken: {error}")
            }
            Self::CrashedAgain { crashes, limit } => write!(
                f,
                "crash {crashes} of the guest of late (max_crashes={limit})"
            ),
            Self::GivenUp {
                crashes,
                limit,
                action,
            } => write!(
                f,
                "the guest keeps crashing: crash {crashes} of late, max_crashes={limit}: \
                 {action}"
            ),
            Self::HistoryLost { error } => {
                write!(f, "earlier crashes of the guest are forgotten: {error}")
            }
            Self::NotCounted { error } => write!(
                f,
                "the next crash of the guest is handled as if this one had not been: {error}"
            ),
            Self::Recorded { path } => {
                write!(f, "what is known of the crash is in {}", path.display())
            }
            Self::NotRecorded { path, error } => {
                write!(f, "no record of the crash in {}: {error}", path.display())
            }
            Self::EventsNotTaken { path, error } => {
                write!(f, "events are not sent to {}: {error}", path.display())
            }
        }
    }
}
