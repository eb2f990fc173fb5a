// SPDX-License-Identifier: LGPL-2.1-or-later
//! The way from the crashed domain to the recovery domain.

use std::fmt;

use log::Level;
use serde::Serialize;

use super::Cause;
use crate::host::HostError;
use crate::units::{Size, Span};

/// The way from the crashed domain to the recovery domain.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum RecoveryEvent {
    /// No disk of the crashed domain can write any more.
    Detached,
    /// The crashed domain keeps interfaces for now.
    InterfacesKept {
        /// Why.
        error: HostError,
    },
    /// There is memory to build the recovery domain with.
    Seeded {
        /// Given back by the crashed domain so far.
        #[serde(rename = "released_bytes")]
        released: Size,
        /// What the recovery domain has of its own when it starts.
        #[serde(rename = "backed_bytes")]
        backed: Size,
        /// What it will have in the end.
        #[serde(rename = "full_bytes")]
        full: Size,
    },
    /// The recovery domain has been built.
    Created {
        /// Its number.
        domid: u32,
    },
    /// The recovery domain could not be built, and is tried once more with more memory.
    CreatingAgain {
        /// Why not.
        why: Cause,
    },
    /// The recovery domain runs.
    Unpaused {
        /// Its number.
        domid: u32,
    },
    /// Nothing takes the crashed domain's place.
    Failed {
        /// Why.
        why: Cause,
    },
    /// A recovery domain that does not run could not be destroyed.
    NotDestroyed {
        /// Its number.
        domid: u32,
        /// Why not.
        error: HostError,
    },
    /// Freed memory cannot be kept for the recovery domain.
    NotReserved {
        /// Why not.
        error: HostError,
    },
    /// The crashed domain could not be destroyed.
    CrashedNotDestroyed {
        /// Its name.
        name: String,
        /// Memory that it still has.
        #[serde(rename = "held_bytes")]
        held: Size,
        /// Why not.
        error: HostError,
    },
    /// The recovery domain has ended before the dump.
    Gone {
        /// Its number.
        domid: u32,
        /// Given back by the crashed domain.
        #[serde(rename = "released_bytes")]
        released: Size,
    },
    /// The recovery domain is an ordinary one.
    Settled {
        /// Pages that the crashed domain gave back.
        released_pages: u64,
    },
    /// The recovery domain runs, and is not quite an ordinary one.
    NotSettled {
        /// Its number.
        domid: u32,
        /// Why not.
        error: HostError,
    },
    /// When what matters to the service happened, since the job was started.
    Times {
        /// The first page was given back.
        #[serde(rename = "first_release_ms")]
        first_release: Option<Span>,
        /// The recovery domain was let run.
        #[serde(rename = "unpaused_ms")]
        unpaused: Option<Span>,
        /// All was done.
        #[serde(rename = "over_ms")]
        over: Span,
    },
}

impl RecoveryEvent {
    pub(super) fn level(&self) -> Level {
        match self {
            Self::CreatingAgain { .. } | Self::NotReserved { .. } => Level::Warn,
            Self::InterfacesKept { .. }
            | Self::Failed { .. }
            | Self::NotDestroyed { .. }
            | Self::CrashedNotDestroyed { .. }
            | Self::NotSettled { .. } => Level::Error,
            _ => Level::Info,
        }
    }

    /// The lines that tell of what went wrong.
    fn trouble(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InterfacesKept { error } => write!(
                f,
                "the crashed domain keeps interfaces until it is destroyed: {error}"
            ),
            Self::CreatingAgain { why } => write!(f, "{why}; once more with more memory"),
            Self::Failed { why } => write!(
                f,
                "recovery failed ({why}): the guest stays down until the dump is written, then \
                 it restarts"
            ),
            Self::NotReserved { error } => write!(
                f,
                "cannot reserve freed memory for recovery, another domain may take it: {error}"
            ),
            Self::NotSettled { domid, error } => write!(
                f,
                "recovery domain {domid} runs, but may lack memory or devices: {error}"
            ),
            Self::NotDestroyed { domid, error } => write!(
                f,
                "could not destroy recovery domain {domid}, which does not run: {error}: run \
                 `xl destroy {domid}`"
            ),
            Self::CrashedNotDestroyed { name, held, error } => write!(
                f,
                "could not destroy {name}, which holds {held}: {error}: run `xl destroy {name}`"
            ),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for RecoveryEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Detached => {
                f.write_str("detached: no disk of the crashed guest can write any more")
            }
            Self::Seeded {
                released,
                backed,
                full,
            } => write!(
                f,
                "seeded: {released} released, building the recovery domain with {backed} of {full}"
            ),
            Self::Created { domid } => write!(f, "recovery created: domain {domid}"),
            Self::Unpaused { domid } => write!(f, "recovery unpaused: domain {domid}"),
            Self::Gone { domid, released } => write!(
                f,
                "recovery domain {domid} is gone: {released} released for what comes after it"
            ),
            Self::Settled { released_pages } => write!(
                f,
                "settled: recovery has its full memory, {released_pages} pages ({}) released",
                Size::of_pages(*released_pages)
            ),
            Self::Times {
                first_release,
                unpaused,
                over,
            } => write!(
                f,
                "times: first page released {}, recovery unpaused {}, all over {}",
                After(*first_release),
                After(*unpaused),
                After(Some(*over))
            ),
            _ => self.trouble(f),
        }
    }
}

/// When something happened, if it did.
struct After(Option<Span>);

impl fmt::Display for After {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(at) => write!(f, "after {at}"),
            None => f.write_str("never"),
        }
    }
}
