// SPDX-License-Identifier: LGPL-2.1-or-later
//! A domain that is built before it is needed.

use std::fmt;

use log::Level;
use serde::Serialize;

use crate::host::HostError;
use crate::units::Size;

/// A domain that is built before it is needed.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum StandbyEvent {
    /// A standby waits for the crash.
    Ready {
        /// Its number.
        domid: u32,
        /// Memory that it holds.
        #[serde(rename = "held_bytes")]
        held: Size,
    },
    /// A standby could not be built.
    NotBuilt {
        /// Why not.
        error: HostError,
    },
    /// The guest is not what the standby was built from any more.
    Outdated,
    /// What the standby was built from could not be looked at.
    GuestNotSeen {
        /// Why not.
        error: HostError,
    },
    /// A recovery does without the standby.
    NotUsed {
        /// Why.
        why: String,
    },
    /// The standby is the recovery domain now.
    Adopted {
        /// Its number.
        domid: u32,
    },
    /// A standby could not be destroyed.
    NotDestroyed {
        /// Its number.
        domid: u32,
        /// Memory that it holds.
        #[serde(rename = "held_bytes")]
        held: Size,
        /// Why not.
        error: HostError,
    },
}

impl StandbyEvent {
    pub(super) fn level(&self) -> Level {
        match self {
            Self::NotBuilt { .. } | Self::NotUsed { .. } => Level::Warn,
            Self::GuestNotSeen { .. } => Level::Debug,
            Self::NotDestroyed { .. } => Level::Error,
            _ => Level::Info,
        }
    }
}

impl fmt::Display for StandbyEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ready { domid, held } => {
                write!(f, "standby: domain {domid} is ready and holds {held}")
            }
            Self::NotBuilt { error } => write!(f, "no standby: {error}"),
            Self::Outdated => f.write_str(
                "standby: the guest's configuration or boot files have changed: built anew",
            ),
            Self::GuestNotSeen { error } => write!(f, "standby: looking at the guest: {error}"),
            Self::NotUsed { why } => write!(
                f,
                "standby: not used, a recovery domain is built instead: {why}"
            ),
            Self::Adopted { domid } => write!(f, "standby: domain {domid} has the disks"),
            Self::NotDestroyed { domid, held, error } => write!(
                f,
                "could not destroy standby domain {domid}, which holds {held}: {error}: run \
                 `xl destroy {domid}`"
            ),
        }
    }
}
