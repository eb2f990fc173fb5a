// SPDX-License-Identifier: LGPL-2.1-or-later
//! Calls of libxl that go on in threads of their own: its hotplug scripts end long
//! after a device has gone, or after it can be used.

use std::thread::JoinHandle;

use super::libxl::no_thread;
use crate::error::panic_text;
use crate::host::HostError;
use crate::os::thread::{start, Signals};

/// A call under way.
pub(super) struct Call(JoinHandle<Result<(), HostError>>);

impl Call {
    /// Starts a call.
    pub(super) fn start(
        call: impl FnOnce() -> Result<(), HostError> + Send + 'static,
    ) -> Result<Self, HostError> {
        let call = start("vicover-libxl", Signals::AsTheProgram, call);
        call.map(Self).map_err(no_thread)
    }

    /// Whether it is over.
    pub(super) fn is_over(&self) -> bool {
        self.0.is_finished()
    }

    /// What it came to.
    pub(super) fn join(self) -> Result<(), HostError> {
        let joined = self.0.join();
        joined.unwrap_or_else(|panic| Err(HostError::new("libxl", panic_text(&*panic))))
    }
}

/// Calls that somebody will wait for later. Dropping it does, so that none outlives
/// its job.
#[derive(Default)]
pub(super) struct Background(Vec<Call>);

impl Background {
    pub(super) fn push(&mut self, call: Call) {
        self.0.push(call);
    }

    pub(super) fn append(&mut self, mut others: Self) {
        self.0.append(&mut others.0);
    }

    /// Waits for all; the first failure, if any.
    pub(super) fn finish(&mut self) -> Result<(), HostError> {
        let mut result = Ok(());
        for call in self.0.drain(..) {
            result = result.and(call.join());
        }
        result
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        // Nobody has asked what became of them.
        let _ = self.finish();
    }
}
