// SPDX-License-Identifier: LGPL-2.1-or-later
//! Calls of libxl that go on in threads of their own: its hotplug scripts end long
//! after a device has gone, or after it can be used.

use std::thread::JoinHandle;
use std::time::Duration;

use super::libxl::no_thread;
use super::look::{look_until, Patience};
use crate::error::panic_text;
use crate::host::HostError;
use crate::os::thread::{start, Signals};

/// How long a backend may take for a step. sysfs cannot be waited on, so it and
/// xenstore are looked at.
const PATIENCE: Patience = Patience {
    most: Duration::from_secs(10),
    between: Duration::from_millis(5),
};

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

    /// Waits until what the call does shows, not beyond its failure.
    pub(super) fn wait_for<T>(
        &self,
        why_not: &str,
        look: impl Fn() -> Result<Option<T>, HostError>,
    ) -> Result<T, HostError> {
        let found = look_until(PATIENCE, || {
            // Asked before the look: what a call has done when it ends is seen.
            let is_over = self.0.is_finished();
            Ok(match look()? {
                None if is_over => Some(None),
                None => None,
                found => Some(found),
            })
        })?;
        found
            .flatten()
            .ok_or_else(|| HostError::new("attach", why_not))
    }

    /// What the call came to.
    pub(super) fn join(self) -> Result<(), HostError> {
        let joined = self.0.join();
        joined.unwrap_or_else(|panic| Err(HostError::new("libxl", panic_text(&*panic))))
    }
}

/// Calls that somebody will wait for later. To drop them is to wait for them, so that
/// none outlives its job.
#[derive(Default)]
pub(super) struct Background(Vec<Call>);

impl Background {
    pub(super) fn push(&mut self, call: Call) {
        self.0.push(call);
    }

    pub(super) fn append(&mut self, mut others: Self) {
        self.0.append(&mut others.0);
    }

    /// Waits for all calls; the first failure, if any.
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
