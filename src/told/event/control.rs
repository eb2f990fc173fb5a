// SPDX-License-Identifier: LGPL-2.1-or-later
//! The dump's pace, and the guard of the recovery domain's memory.

use std::fmt;

use log::Level;
use serde::Serialize;

use super::as_text;
use crate::host::HostError;
use crate::pacing::policy::Policy;
use crate::units::{Size, Span};

/// What is done in place of something that a thread was wanted for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Instead {
    /// Memory is read after the devices have gone, not meanwhile.
    ReadAfterwards,
    /// The story's own thread guards recovery's memory.
    GuardInStory,
    /// The disk I/O policy is followed without looking at recovery.
    NoIoControl,
}

/// The dump's pace, and the guard of the recovery domain's memory.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum ControlEvent {
    /// A thread could not be started.
    NoThread {
        /// What is done instead.
        instead: Instead,
        /// Why it could not.
        error: String,
    },
    /// Another disk I/O policy holds.
    Policy {
        /// Which.
        #[serde(serialize_with = "as_text")]
        policy: Policy,
    },
    /// What disk I/O control cost.
    Looked {
        /// How often dump and recovery were looked at.
        looks: u64,
        /// Processor time that took.
        #[serde(rename = "used_ms")]
        used: Span,
        /// How long control lasted.
        #[serde(rename = "lasted_ms")]
        lasted: Span,
    },
    /// The guard has stopped the recovery domain, which would run out of memory.
    RecoveryPaused {
        /// Its number.
        domid: u32,
    },
    /// The guard could not let the recovery domain run again.
    StaysPaused {
        /// Its number.
        domid: u32,
        /// The guest's name.
        name: String,
        /// Why not.
        error: HostError,
    },
    /// The guard cannot see how much memory the recovery domain has.
    GuardBlind {
        /// Why not.
        error: HostError,
    },
    /// The recovery domain has ended, and so does its guard.
    GuardEnded {
        /// How that was noticed.
        error: HostError,
    },
    /// What the guard had to do.
    Guarded {
        /// How often the domain was stopped.
        pauses: u64,
        /// How long in all.
        #[serde(rename = "paused_ms")]
        paused: Span,
        /// The least that the domain could still touch while memory was missing.
        #[serde(rename = "lowest_cache_bytes")]
        lowest_cache: Option<Size>,
    },
}

impl ControlEvent {
    pub(super) fn level(&self) -> Level {
        match self {
            Self::NoThread { .. } | Self::GuardBlind { .. } => Level::Warn,
            Self::StaysPaused { .. } => Level::Error,
            Self::Looked { .. } => Level::Debug,
            _ => Level::Info,
        }
    }
}

impl fmt::Display for ControlEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoThread { instead, error } => {
                let instead = match instead {
                    Instead::ReadAfterwards => "memory is read after the devices have gone",
                    Instead::GuardInStory => "the story's own thread guards recovery's memory",
                    Instead::NoIoControl => "disk I/O is not controlled",
                };
                write!(f, "cannot start a thread, {instead}: {error}")
            }
            Self::Policy { policy } => write!(f, "disk I/O policy: {policy}"),
            Self::Looked {
                looks,
                used,
                lasted,
            } => write!(
                f,
                "disk I/O control: {looks} looks, {used} of processor time in {lasted}"
            ),
            Self::RecoveryPaused { domid } => {
                write!(f, "recovery domain {domid} is paused until memory is there")
            }
            Self::StaysPaused { domid, name, error } => write!(
                f,
                "recovery domain {domid} stays paused: {error}: run `xl unpause {name}`"
            ),
            Self::GuardBlind { error } => write!(f, "memory guard cannot look: {error}"),
            Self::GuardEnded { error } => write!(f, "memory guard ends with its domain: {error}"),
            Self::Guarded {
                pauses,
                paused,
                lowest_cache,
            } => {
                write!(f, "memory guard: {pauses} pauses, {paused} in all, ")?;
                match lowest_cache {
                    Some(cache) => write!(f, "lowest cache {cache}"),
                    None => f.write_str("no memory was missing"),
                }
            }
        }
    }
}
