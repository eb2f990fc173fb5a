// SPDX-License-Identifier: LGPL-2.1-or-later
//! Watching the recovery domain while the dump goes on: the memory guard stops it
//! while its populate-on-demand cache would run out, and the head start makes the
//! dump rest while it boots.

use std::sync::Arc;
use std::time::Duration;

use crate::control::write_pace::WritePace;
use crate::drain::handover::Handover;
use crate::host::{Backing, HostError, RecoveryDomain};
use crate::limits::monitor::Monitor;
use crate::os::sync::atomic::{AtomicBool, Ordering::SeqCst};
use crate::os::sync::Instant;
use crate::pacing::guard::{look_again, Guard};
use crate::pacing::headstart::HeadStart;
use crate::told::event::ControlEvent;
use crate::told::log::JobLog;
use crate::units::{Size, Span};

/// How soon a domain is looked at again that could not be looked at.
const TRY_AGAIN: Duration = Duration::from_millis(50);

/// What the guard had to do.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Guarded {
    /// How often the domain was stopped.
    pub pauses: u64,
    /// How long in all.
    pub paused: Duration,
    /// The smallest cache that was seen while memory was missing, in pages.
    pub lowest_cache: Option<u64>,
}

impl Guarded {
    fn note(&mut self, backing: &Backing) {
        if backing.missing() > 0 {
            let lowest = self.lowest_cache.unwrap_or(u64::MAX);
            self.lowest_cache = Some(lowest.min(backing.spare));
        }
    }

    fn end_pause(&mut self, since: &mut Option<Instant>) {
        if let Some(since) = since.take() {
            self.paused += since.elapsed();
        }
    }

    /// Says it in a line.
    pub(crate) fn tell(&self, log: &JobLog) {
        log.tell(ControlEvent::Guarded {
            pauses: self.pauses,
            paused: Span(self.paused),
            lowest_cache: self.lowest_cache.map(Size::of_pages),
        });
    }
}

/// A recovery domain under guard, as its guard and the story see it.
pub(crate) struct Watch {
    recovery: Arc<dyn RecoveryDomain>,
    ended: Monitor<bool>,
    /// The guard has stopped it.
    paused: AtomicBool,
}

impl Watch {
    /// Nobody watches yet.
    pub(crate) fn over(recovery: Arc<dyn RecoveryDomain>) -> Arc<Self> {
        Arc::new(Self {
            recovery,
            ended: Monitor::new(false),
            paused: AtomicBool::new(false),
        })
    }

    /// Ends [`Watch::run`].
    pub(crate) fn end(&self) {
        self.ended.update(|ended| *ended = true);
    }

    /// Blocks for `time`, or until the watch is ended, which it says.
    fn wait_ended(&self, time: Duration) -> bool {
        *self.ended.wait_at_most(time, |ended| !*ended)
    }

    /// Lets the domain run if the guard left it stopped.
    pub(crate) fn let_run(&self, log: &JobLog) {
        if !self.paused.load(SeqCst) || !self.recovery.exists() {
            return;
        }
        match self.recovery.unpause() {
            Ok(()) => self.paused.store(false, SeqCst),
            Err(error) => log.tell(ControlEvent::StaysPaused {
                domid: self.recovery.domid(),
                name: log.name().into(),
                error,
            }),
        }
    }

    /// Guards the domain until the watch is ended, `until` says so, or it is gone.
    /// The dump rests during the head start and keeps its pace afterwards, but
    /// is_urgent while recovery is stopped, and when it is gone: what comes after it
    /// waits for the memory, too.
    pub(crate) fn run(
        &self,
        until: &dyn Fn() -> bool,
        pace: &WritePace,
        handover: &Handover<'_>,
        log: &JobLog,
    ) -> Guarded {
        let _let_go = LetGo {
            watch: self,
            pace,
            handover,
        };
        let mut post = Post::new(self, pace, handover, log);
        pace.set_urgent(false);
        let mut again = Duration::ZERO;
        while !self.wait_ended(again) && !until() {
            match post.look() {
                Ok(next) => again = next,
                // It crashed or was destroyed: its own policy's turn.
                Err(error) if !self.recovery.exists() => {
                    pace.set_urgent(true);
                    log.tell(ControlEvent::GuardEnded { error });
                    break;
                }
                Err(error) => {
                    post.cannot_look(&error);
                    again = TRY_AGAIN;
                }
            }
        }
        post.end()
    }
}

/// Whatever ends a guard, the drain is not held for the domain's sake any more; and
/// is_urgent, unless the story has ended it.
struct LetGo<'a> {
    watch: &'a Watch,
    pace: &'a WritePace,
    handover: &'a Handover<'a>,
}

impl Drop for LetGo<'_> {
    fn drop(&mut self) {
        self.handover.resume_drain();
        if std::thread::panicking() || self.watch.paused.load(SeqCst) {
            self.pace.set_urgent(true);
        }
    }
}

/// A guard at its post.
struct Post<'a> {
    watch: &'a Watch,
    pace: &'a WritePace,
    handover: &'a Handover<'a>,
    log: &'a JobLog,
    began: Instant,
    head_start: Option<HeadStart>,
    guard: Guard,
    guarded: Guarded,
    paused_at: Option<Instant>,
    /// That the domain cannot be looked at has been said.
    complained: bool,
}

impl<'a> Post<'a> {
    fn new(
        watch: &'a Watch,
        pace: &'a WritePace,
        handover: &'a Handover<'_>,
        log: &'a JobLog,
    ) -> Self {
        Self {
            watch,
            pace,
            handover,
            log,
            began: Instant::now(),
            head_start: Some(HeadStart::new(Duration::ZERO)),
            guard: Guard::default(),
            guarded: Guarded::default(),
            paused_at: None,
            complained: false,
        }
    }

    /// Looks at the domain and does what has to be done; says when to look again.
    fn look(&mut self) -> Result<Duration, HostError> {
        let recovery = &*self.watch.recovery;
        let backing = recovery.backing()?;
        // The cache of a domain that is destroyed is emptied: no guest in need.
        // One that has crashed may still be there, waiting for its dump.
        if !recovery.exists() {
            return Err(HostError::new("watching", "it has ended"));
        }
        self.guarded.note(&backing);
        self.give_head_start(&backing)?;
        self.guard.look(backing.spare, backing.missing());
        // Also what could not be done at an earlier look.
        match (self.guard.is_paused(), self.watch.paused.load(SeqCst)) {
            (true, false) => {
                recovery.pause()?;
                self.watch.paused.store(true, SeqCst);
                self.paused_at = Some(Instant::now());
                let domid = recovery.domid();
                self.log.tell(ControlEvent::RecoveryPaused { domid });
            }
            (false, true) => {
                recovery.unpause()?;
                self.watch.paused.store(false, SeqCst);
                self.guarded.end_pause(&mut self.paused_at);
            }
            _ => {}
        }
        self.pace.set_urgent(self.guard.is_paused());
        Ok(look_again(backing.spare, backing.missing()))
    }

    /// Nobody knows how much memory the domain has left: it gets what there is.
    fn cannot_look(&mut self, error: &HostError) {
        self.pace.set_urgent(true);
        self.handover.resume_drain();
        if !std::mem::replace(&mut self.complained, true) {
            let error = error.clone();
            self.log.tell(ControlEvent::GuardBlind { error });
        }
    }

    fn end(mut self) -> Guarded {
        self.guarded.end_pause(&mut self.paused_at);
        self.guarded.pauses = self.guard.pauses();
        self.guarded
    }

    /// Makes the drain rest while recovery boots, until that is over.
    fn give_head_start(&mut self, backing: &Backing) -> Result<(), HostError> {
        let Some(start) = &mut self.head_start else {
            return Ok(());
        };
        let (now, used) = (self.began.elapsed(), self.watch.recovery.processor_time()?);
        let held = start.look(now, used, backing.spare, backing.missing());
        self.handover.set_drain_paused(held && !backing.is_small());
        if start.is_over(now) {
            self.head_start = None;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
