// SPDX-License-Identifier: LGPL-2.1-or-later
//! Why a command has not done what was asked.

use std::io;

/// Why a command has not done what was asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// What was asked is not understood.
    #[error("{0}\nvicover help lists the commands")]
    Usage(String),
    /// It cannot be done.
    #[error("{0}")]
    Refused(String),
    /// Nothing answers to what was asked.
    #[error("{0}")]
    Nothing(String),
    /// Nobody reads what is printed.
    #[error("writing: {0}")]
    Output(#[from] io::Error),
}
