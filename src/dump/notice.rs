// SPDX-License-Identifier: LGPL-2.1-or-later
//! What a dump has to say while it is being written.

use super::error::Error;
use std::fmt;
use std::sync::Arc;

/// What a dump in progress has to say at once.
#[derive(Debug)]
pub enum Notice {
    /// Nothing more is written; why.
    Stopped(Arc<Error>),
    /// The dump is incomplete, and even what was written may get lost.
    NotSynced(Error),
    /// The dump is complete and has its name, but may get lost with the power.
    NotLasting(Error),
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stopped(error) => write!(f, "dump stopped: {}", error.chain()),
            Self::NotSynced(error) => write!(
                f,
                "the incomplete dump may not be on the disk: {}",
                error.chain()
            ),
            Self::NotLasting(error) => write!(
                f,
                "the dump is complete, but may not outlast a power cut: {}",
                error.chain()
            ),
        }
    }
}

/// Hears what a dump has to say while it is being written, on the dump's threads.
pub type Notices = Arc<dyn Fn(Notice) + Send + Sync>;
