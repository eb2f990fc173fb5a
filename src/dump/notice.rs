// SPDX-License-Identifier: LGPL-2.1-or-later
//! What a dump has to say while it is being written.

use super::error::Error;
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

/// Hears what a dump has to say while it is being written, on the dump's threads.
pub type Notices = Arc<dyn Fn(Notice) + Send + Sync>;
