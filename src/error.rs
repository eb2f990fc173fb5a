// SPDX-License-Identifier: LGPL-2.1-or-later
//! Why a job failed, as a chain of causes.

pub mod text;

use serde::Serialize;

use crate::host::HostError;
use crate::options::OptionError;
use crate::os::sync::thread::ScopedJoinHandle;

pub use text::{chain, panic_text};

/// Anything that can stop a job or one of its steps.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The option text was refused.
    #[error(transparent)]
    Options(#[from] OptionError),
    /// A file could not be read or written.
    #[error("{doing}")]
    Io {
        /// What was being done, with the path.
        doing: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The dump could not be started.
    #[error("starting the dump")]
    DumpStart(#[source] crate::dump::Error),
    /// The dump could not be finished; what there is opens in readers.
    #[error(transparent)]
    Dump(#[from] crate::dump::Failure),
    /// Xen or libxl refused a step.
    #[error("{step}")]
    Host {
        /// The step of the story.
        step: &'static str,
        /// The call and its answer.
        source: HostError,
    },
    /// The caller asked to stop.
    #[error("cancelled by the caller")]
    Cancelled,
    /// Not possible in this build or for this guest.
    #[error("{0}")]
    Unsupported(String),
    /// Another job is in the way.
    #[error("{0}")]
    Busy(String),
    /// A domain that was to be handled only if its kernel has panicked.
    #[error("no panic stands at the end of the kernel's log: an ordinary restart")]
    NotCrashed,
    /// A thread of the job panicked; a bug of ours.
    #[error("internal error: {0}")]
    Internal(String),
}

/// The kinds of [`Error`], for programs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// An option or another thing that the caller said.
    Option,
    /// A file, a directory or a disk.
    Io,
    /// Xen or libxl.
    Host,
    /// The caller asked to stop.
    Cancelled,
    /// Not possible in this build or for this guest.
    Unsupported,
    /// Another job is in the way.
    Busy,
    /// There was nothing to handle.
    NotCrashed,
    /// A bug of ours.
    Internal,
}

impl Error {
    /// What kind of error it is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Options(_) => ErrorKind::Option,
            Self::Io { .. } | Self::DumpStart(_) | Self::Dump(_) => ErrorKind::Io,
            Self::Host { .. } => ErrorKind::Host,
            Self::Cancelled => ErrorKind::Cancelled,
            Self::Unsupported(_) => ErrorKind::Unsupported,
            Self::Busy(_) => ErrorKind::Busy,
            Self::NotCrashed => ErrorKind::NotCrashed,
            Self::Internal(_) => ErrorKind::Internal,
        }
    }

    /// Attaches the step of the story to a refusal of the host.
    pub fn host(step: &'static str) -> impl FnOnce(HostError) -> Self {
        move |source| Self::Host { step, source }
    }

    /// For `map_err`: a thread could not be started.
    pub(crate) fn thread(source: std::io::Error) -> Self {
        let doing = "cannot start a thread".into();
        Self::Io { doing, source }
    }

    /// The error and its causes in one line, outermost first.
    pub fn chain(&self) -> String {
        chain(self)
    }
}

/// What a thread came to, or that it panicked.
pub(crate) fn joined<T>(thread: ScopedJoinHandle<'_, T>) -> Result<T, Error> {
    let panicked = |panic: Box<dyn std::any::Any + Send>| Error::Internal(panic_text(&*panic));
    thread.join().map_err(panicked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chain_names_every_cause() {
        let error = Error::Io {
            doing: "writing /d/x.kdump".into(),
            source: std::io::Error::from_raw_os_error(libc::ENOSPC),
        };
        assert!(error
            .chain()
            .starts_with("writing /d/x.kdump: No space left on device"));
    }
}
