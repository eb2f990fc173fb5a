// SPDX-License-Identifier: LGPL-2.1-or-later
//! The guard of a recovery domain at work: in a thread of its own, or, where there
//! cannot be one, in the story's.

use std::sync::Arc;

use crate::control::write_pace::WritePace;
use crate::drain::handover::Handover;
use crate::host::RecoveryDomain;
use crate::os::sync::thread::{Scope, ScopedJoinHandle};
use crate::os::thread::{start_in, Signals};
use crate::story::memory_guard::{Guarded, Watch};
use crate::told::event::{ControlEvent, Instead};
use crate::told::log::JobLog;

/// The guard of a recovery domain while its story goes on. Dropping it ends the
/// watch, and lets the domain run.
pub(crate) struct Guarding<'scope> {
    watch: Arc<Watch>,
    /// None when there cannot be one: then the story's own thread has to watch.
    thread: Option<ScopedJoinHandle<'scope, Guarded>>,
    pace: &'scope WritePace,
    handover: &'scope Handover<'scope>,
    log: &'scope JobLog,
}

impl<'scope> Guarding<'scope> {
    /// Starts to guard `recovery`.
    pub(crate) fn start(
        scope: &'scope Scope<'scope, '_>,
        recovery: Arc<dyn RecoveryDomain>,
        pace: &'scope WritePace,
        handover: &'scope Handover<'scope>,
        log: &'scope JobLog,
    ) -> Self {
        let watch = Watch::over(recovery);
        let watched = watch.clone();
        let run = move || watched.run(&|| false, pace, handover, log);
        let thread = start_in(scope, "vicover-guard", Signals::ToOthers, run)
            .inspect_err(|error| {
                handover.resume_drain();
                log.tell(ControlEvent::NoThread {
                    instead: Instead::GuardInStory,
                    error: error.to_string(),
                });
            })
            .ok();
        Self {
            watch,
            thread,
            pace,
            handover,
            log,
        }
    }

    /// Where there is no thread for it, guards the domain here until the drain is over.
    pub(crate) fn watch_here_if_must(&self) {
        if self.thread.is_none() {
            let until = || self.handover.is_drained();
            let guarded = self.watch.run(&until, self.pace, self.handover, self.log);
            guarded.tell(self.log);
        }
    }
}

impl Drop for Guarding<'_> {
    fn drop(&mut self) {
        self.watch.end();
        if let Some(Ok(guarded)) = self.thread.take().map(ScopedJoinHandle::join) {
            guarded.tell(self.log);
        }
        self.watch.let_run(self.log);
    }
}
