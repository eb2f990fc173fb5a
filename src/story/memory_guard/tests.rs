// SPDX-License-Identifier: LGPL-2.1-or-later
//! A guard over a domain that goes through a script: it is stopped and let run in time,
//! and what cannot be seen is told.

use super::*;
use crate::drain::handover::tests::waits;
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
            untold: 0,
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
    let ended = |event: &Event| matches!(event, Event::Control(ControlEvent::GuardEnded { .. }));
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
fn a_guest_that_sees_little_of_its_memory_does_not_hold_up_the_dump() {
    let (kept, cancel) = (Kept::default(), Cancel::default());
    let log = kept.log("test");
    let crashed = MemoryHost::new(Arc::new(SyntheticImage::new(1)), 1, Faults::default());
    let handover = Handover::new(&crashed, &log, &cancel);
    let (watch, pace) = (
        Watch::over(Arc::new(Scripted::default())),
        WritePace::default(),
    );
    let mut post = Post::new(&watch, &pace, &handover, &log);
    let sees = |total, untold| Backing {
        total,
        untold,
        ..Backing::default()
    };
    post.give_head_start(&sees(300, 100)).unwrap();
    waits(|| handover.wait_resumed(), || handover.resume_drain());
    post.give_head_start(&sees(299, 101)).unwrap();
    goes_on(&handover);
}

/// Checks that a drain does not wait.
fn goes_on(handover: &Handover<'_>) {
    thread::scope(|scope| {
        let (goes, gone) = std::sync::mpsc::channel();
        scope.spawn(move || {
            handover.wait_resumed();
            goes.send(())
        });
        let waited = gone.recv_timeout(NEVER);
        handover.resume_drain();
        assert!(waited.is_ok(), "the drain still waits");
    });
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
    let blind = |event: &Event| matches!(event, Event::Control(ControlEvent::GuardBlind { .. }));
    assert!(story.log.wait(NEVER, blind).is_some(), "{}", story.log);
    assert_eq!(*story.domain.calls.lock().unwrap(), ["pause"]);
    story.domain.push(Some(200 * MIB));
    while *story.domain.calls.lock().unwrap() != ["pause", "unpause"] {
        thread::yield_now();
    }
    story.watch.end();
    assert_eq!(story.guard.join().unwrap().pauses, 1);
}

#[test]
fn that_a_domain_cannot_be_looked_at_is_told_the_first_time() {
    let story = start(&[Some(MIB), None, Some(200 * MIB)]);
    while *story.domain.calls.lock().unwrap() != ["pause", "unpause"] {
        thread::yield_now();
    }
    story.watch.end();
    story.guard.join().unwrap();
    let blind = |event: &&Event| matches!(event, Event::Control(ControlEvent::GuardBlind { .. }));
    let events = story.log.events();
    assert_eq!(events.iter().filter(blind).count(), 1, "{}", story.log);
}

#[test]
fn what_a_guard_had_to_do_is_told() {
    let kept = Kept::default();
    let guarded = Guarded {
        pauses: 3,
        paused: Duration::from_millis(70),
        lowest_cache: Some(MIB),
    };
    guarded.tell(&kept.log("test"));
    let told = ControlEvent::Guarded {
        pauses: 3,
        paused: Span(Duration::from_millis(70)),
        lowest_cache: Some(Size(1 << 20)),
    };
    assert_eq!(kept.events(), [Event::Control(told)]);
}
