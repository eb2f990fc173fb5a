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
        self.handover
            .set_drain_paused(start.look(now, used, backing.spare, backing.missing()));
        if start.is_over(now) {
            self.head_start = None;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dump::Pacer;
    use crate::host::images::SyntheticImage;
    use crate::host::memory::{Faults, MemoryHost};
    use crate::limits::cancel::Cancel;
    use crate::pacing::sample::WriteLimits;
    use crate::told::event::Event;
    use crate::told::kept::Kept;
    use std::collections::VecDeque;
    use std::sync::Mutex;
    use std::thread;

    /// Longer than any of these tests may take.
    const NEVER: Duration = Duration::from_secs(20);
    const MIB: u64 = 256;
    const PAGE: u64 = 4096;

    /// A recovery domain that goes through a list of caches, stays at the last
    /// one, and is gone where the list says so.
    #[derive(Default)]
    struct Scripted {
        caches: Mutex<VecDeque<Option<u64>>>,
        calls: Mutex<Vec<&'static str>>,
        dying: AtomicBool,
    }

    impl Scripted {
        fn push(&self, cache: Option<u64>) {
            self.caches.lock().unwrap().push_back(cache);
        }

        fn call(&self, name: &'static str) -> Result<(), HostError> {
            self.calls.lock().unwrap().push(name);
            Ok(())
        }
    }

    impl RecoveryDomain for Scripted {
        fn domid(&self) -> u32 {
            7
        }
        fn exists(&self) -> bool {
            !self.dying.load(SeqCst)
        }
        fn processor_time(&self) -> Result<Duration, HostError> {
            Ok(Duration::ZERO)
        }
        fn backing(&self) -> Result<Backing, HostError> {
            let mut caches = self.caches.lock().unwrap();
            let next = match caches.len() {
                1 => caches[0],
                _ => caches.pop_front().expect("a script has an entry"),
            };
            let spare = next.ok_or_else(|| HostError::new("backing", "no such domain"))?;
            Ok(Backing {
                total: spare,
                spare,
                unbacked: 512 * MIB,
            })
        }
        fn grow(&self, _pages: u64) -> Result<Backing, HostError> {
            self.backing()
        }
        fn pause(&self) -> Result<(), HostError> {
            self.call("pause")
        }
        fn unpause(&self) -> Result<(), HostError> {
            self.call("unpause")
        }
    }

    struct Story {
        domain: Arc<Scripted>,
        pace: Arc<WritePace>,
        watch: Arc<Watch>,
        log: Kept,
        guard: thread::JoinHandle<Guarded>,
    }

    /// Starts a guard over `domain` while the dump may write one page an hour.
    fn start(caches: &[Option<u64>]) -> Story {
        let domain = Arc::new(Scripted::default());
        caches.iter().for_each(|cache| domain.push(*cache));
        let pace = Arc::new(WritePace::default());
        pace.set_limits(WriteLimits {
            limit: Some(1),
            ..WriteLimits::NONE
        });
        let watch = Watch::over(domain.clone());
        let log = Kept::default();
        let (watched, paced) = (watch.clone(), pace.clone());
        let kept = log.clone();
        let guard = thread::spawn(move || {
            let (log, cancel) = (kept.log("test"), Cancel::default());
            let crashed = MemoryHost::new(Arc::new(SyntheticImage::new(1)), 1, Faults::default());
            let handover = Handover::new(&crashed, &log, &cancel);
            let guarded = watched.run(&|| false, &paced, &handover, &log);
            watched.let_run(&log);
            guarded
        });
        Story {
            domain,
            pace,
            watch,
            log,
            guard,
        }
    }

    #[test]
    fn a_guest_short_of_memory_makes_the_dump_urgent_until_it_runs_again() {
        let story = start(&[Some(100 * MIB), Some(MIB)]);
        // So much is granted only because the guard makes the dump urgent.
        while story.pace.acquire(PAGE * 1000) < PAGE * 1000 {
            thread::yield_now();
        }
        story.domain.push(Some(200 * MIB));
        while *story.domain.calls.lock().unwrap() != ["pause", "unpause"] {
            thread::yield_now();
        }
        while story.pace.is_urgent() {
            thread::yield_now();
        }
        story.watch.end();
        let guarded = story.guard.join().unwrap();
        assert_eq!(guarded.pauses, 1);
        assert_eq!(guarded.lowest_cache, Some(MIB));
        assert!(guarded.paused > Duration::ZERO);
    }

    #[test]
    fn a_domain_that_is_gone_ends_the_guard_and_makes_the_dump_urgent() {
        let story = start(&[Some(MIB)]);
        while story.domain.calls.lock().unwrap().is_empty() {
            thread::yield_now();
        }
        story.domain.dying.store(true, SeqCst);
        story.domain.push(None);
        let guarded = story.guard.join().unwrap();
        assert_eq!(guarded.pauses, 1);
        assert_eq!(*story.domain.calls.lock().unwrap(), ["pause"]);
        assert!(story.pace.is_urgent());
        let ended =
            |event: &Event| matches!(event, Event::Control(ControlEvent::GuardEnded { .. }));
        assert!(story.log.has(ended), "{}", story.log);
    }

    #[test]
    fn a_dying_domain_is_not_taken_for_one_in_need() {
        let story = start(&[Some(200 * MIB)]);
        story.domain.dying.store(true, SeqCst);
        story.domain.push(Some(0));
        let guarded = story.guard.join().unwrap();
        assert_eq!(guarded.pauses, 0);
        assert_ne!(guarded.lowest_cache, Some(0));
        assert!(story.pace.is_urgent());
    }

    #[test]
    fn what_is_spare_of_a_domain_that_lacks_nothing_is_no_measure_of_need() {
        let mut guarded = Guarded::default();
        let whole = Backing {
            spare: 5,
            unbacked: 5,
            ..Backing::default()
        };
        guarded.note(&whole);
        assert_eq!(guarded.lowest_cache, None);
        guarded.note(&Backing {
            unbacked: 6,
            ..whole
        });
        assert_eq!(guarded.lowest_cache, Some(5));
    }

    #[test]
    fn a_guard_that_is_stopped_lets_its_domain_run() {
        let story = start(&[Some(MIB)]);
        while story.domain.calls.lock().unwrap().is_empty() {
            thread::yield_now();
        }
        story.watch.end();
        story.guard.join().unwrap();
        assert_eq!(*story.domain.calls.lock().unwrap(), ["pause", "unpause"]);
    }
    #[test]
    fn a_domain_that_cannot_be_looked_at_for_a_while_stays_guarded() {
        let story = start(&[Some(MIB), None]);
        let blind =
            |event: &Event| matches!(event, Event::Control(ControlEvent::GuardBlind { .. }));
        assert!(story.log.wait(NEVER, blind).is_some(), "{}", story.log);
        assert_eq!(*story.domain.calls.lock().unwrap(), ["pause"]);
        story.domain.push(Some(200 * MIB));
        while *story.domain.calls.lock().unwrap() != ["pause", "unpause"] {
            thread::yield_now();
        }
        story.watch.end();
        assert_eq!(story.guard.join().unwrap().pauses, 1);
    }
}
