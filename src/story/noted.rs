// SPDX-License-Identifier: LGPL-2.1-or-later
//! A recovery domain whose stops are written down: one that is stopped when the process
//! is killed must be let run by whoever goes on.

use std::sync::Arc;
use std::time::Duration;

use crate::host::{Backing, HostError, RecoveryDomain};
use crate::job::JobState;
use crate::journal::{Entry, Journal};
use crate::pacing::sample::DiskTotals;

/// A recovery domain whose stops are written down.
pub(super) struct Noted {
    inner: Arc<dyn RecoveryDomain>,
    journal: Arc<Journal>,
}

impl Noted {
    /// The domain, with its stops in the job's journal.
    pub(super) fn of(inner: Arc<dyn RecoveryDomain>, job: &JobState) -> Arc<dyn RecoveryDomain> {
        let journal = job.journal.clone();
        Arc::new(Self { inner, journal })
    }

    fn note(&self, is_stopped: bool) {
        // Whoever goes on without it finds a domain that does not run, and says so.
        let _ = self.journal.note(&Entry::Stopped { is_stopped });
    }
}

impl RecoveryDomain for Noted {
    fn domid(&self) -> u32 {
        self.inner.domid()
    }

    fn exists(&self) -> bool {
        self.inner.exists()
    }

    fn processor_time(&self) -> Result<Duration, HostError> {
        self.inner.processor_time()
    }

    fn backing(&self) -> Result<Backing, HostError> {
        self.inner.backing()
    }

    fn grow(&self, pages: u64) -> Result<Backing, HostError> {
        self.inner.grow(pages)
    }

    fn pause(&self) -> Result<(), HostError> {
        self.note(true);
        self.inner.pause()
    }

    fn unpause(&self) -> Result<(), HostError> {
        let unpaused = self.inner.unpause();
        if unpaused.is_ok() {
            self.note(false);
        }
        unpaused
    }

    fn disk_totals(&self) -> Option<DiskTotals> {
        self.inner.disk_totals()
    }
}
