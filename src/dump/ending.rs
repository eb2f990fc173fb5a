// SPDX-License-Identifier: LGPL-2.1-or-later
//! How a dump ended.

use super::error::Error;
use super::progress::Progress;
use std::path::PathBuf;
use std::sync::Arc;

/// How a dump ended.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// What was written.
    pub progress: Progress,
    /// Pages that should have been.
    pub wanted_pages: u64,
    /// Length of the dump in bytes.
    pub length: u64,
    /// Where it is, under its last name, when it is a file.
    pub path: Option<PathBuf>,
}

impl Summary {
    /// Pages that are in the dump.
    fn read_pages(&self) -> u64 {
        let Progress {
            pages,
            unreadable_pages,
            left_out_pages,
            ..
        } = self.progress;
        pages - unreadable_pages - left_out_pages
    }
}

/// A dump that ended incomplete. What was written opens in readers and is
/// marked as incomplete.
#[derive(Debug, thiserror::Error)]
#[error("{} of {} pages written", .summary.read_pages(), .summary.wanted_pages)]
pub struct Failure {
    /// What was written.
    pub summary: Summary,
    /// Why not everything was written.
    #[source]
    pub cause: Arc<Error>,
    /// Whether the cause was a notice when it arose.
    pub told: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_that_are_not_in_the_dump_do_not_count_as_written() {
        let summary = Summary {
            progress: Progress {
                pages: 90,
                zero_pages: 20,
                unreadable_pages: 7,
                left_out_pages: 30,
                bytes: 1,
            },
            wanted_pages: 100,
            ..Summary::default()
        };
        let failure = Failure {
            summary,
            cause: Arc::new(Error::Closed),
            told: false,
        };
        assert_eq!(failure.to_string(), "53 of 100 pages written");
    }
}
