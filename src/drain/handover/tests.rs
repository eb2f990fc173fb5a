// SPDX-License-Identifier: LGPL-2.1-or-later
//! The account of released and granted pages, page by page.

use super::*;
use crate::addr::Gfn;
use crate::host::images::SyntheticImage;
use crate::host::memory::{Faults, MemoryHost};
use crate::host::{Backing, HostError};
use crate::told::event::Event;
use crate::told::kept::Kept;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::Mutex;

/// A recovery domain that takes note of what it gets.
#[derive(Default)]
pub(in crate::drain) struct Grown {
    pages: Mutex<Vec<u64>>,
    refuses: AtomicBool,
    is_gone: AtomicBool,
    /// The next time that it gets any, it panics.
    pub(in crate::drain) panics_once: AtomicBool,
}

impl Grown {
    fn pages(&self) -> Vec<u64> {
        self.pages.lock().unwrap().clone()
    }
}

impl RecoveryDomain for Grown {
    fn domid(&self) -> u32 {
        7
    }
    fn exists(&self) -> bool {
        !self.is_gone.load(SeqCst)
    }
    fn processor_time(&self) -> Result<Duration, HostError> {
        Ok(Duration::ZERO)
    }
    fn backing(&self) -> Result<Backing, HostError> {
        Ok(Backing::default())
    }
    fn grow(&self, pages: u64) -> Result<Backing, HostError> {
        assert!(!self.panics_once.swap(false, SeqCst), "no memory wanted");
        if self.refuses.load(SeqCst) {
            return Err(HostError::new("grow", "refused as asked for"));
        }
        self.pages.lock().unwrap().push(pages);
        self.backing()
    }
    fn pause(&self) -> Result<(), HostError> {
        Ok(())
    }
    fn unpause(&self) -> Result<(), HostError> {
        Ok(())
    }
}

/// A crashed domain, and the account of what it gives back.
struct Crash<'a> {
    host: &'a MemoryHost,
    handover: Handover<'a>,
    kept: &'a Kept,
}

impl Crash<'_> {
    /// Gives back so many pages more.
    fn release(&self, pages: u64) {
        let first = self.host.released();
        let frames: Vec<_> = (first..first + pages).map(Gfn).collect();
        let accepted = self.host.release(&frames).unwrap();
        self.handover.add_released(accepted);
    }

    fn claimed(&self) -> u64 {
        self.host.claimed_pages()
    }
}

fn with_crash(test: impl FnOnce(Crash<'_>)) -> MemoryHost {
    let host = MemoryHost::new(Arc::new(SyntheticImage::new(2048)), 1, Faults::default());
    let (kept, cancel) = (Kept::default(), Cancel::default());
    let log = kept.log("test");
    test(Crash {
        host: &host,
        handover: Handover::new(&host, &log, &cancel),
        kept: &kept,
    });
    host
}

#[test]
fn released_memory_is_claimed_until_the_account_is_closed() {
    let host = with_crash(|crash| {
        crash.release(8);
        assert_eq!(crash.claimed(), 8);
    });
    assert_eq!(host.claimed_pages(), 0);
}

#[test]
fn what_was_claimed_is_given_up_although_more_was_refused() {
    let host = with_crash(|crash| {
        crash.release(8);
        // Somebody else has these.
        crash.handover.add_released(8);
        crash.handover.add_released(8);
        assert_eq!(crash.claimed(), 8);
        let events = crash.kept.events();
        let [Event::Recovery(RecoveryEvent::NotReserved { .. })] = &events[..] else {
            panic!("{}", crash.kept);
        };
    });
    assert_eq!(host.claimed_pages(), 0);
}

#[test]
fn recovery_gets_every_page_once_and_none_again_that_it_was_built_of() {
    let recovery = Arc::new(Grown::default());
    with_crash(|crash| {
        crash.release(100);
        assert_eq!(crash.claimed(), 100);
        crash.handover.spend(60);
        assert_eq!(crash.claimed(), 40);
        crash.handover.adopt(recovery.clone());
        assert_eq!((recovery.pages(), crash.claimed()), (vec![40], 0));
        // Not worth a call yet.
        crash.release(GROW_BATCH - 1);
        let still = (recovery.pages(), crash.claimed());
        assert_eq!(still, (vec![40], GROW_BATCH - 1));
        crash.release(1);
        let grown = vec![40, GROW_BATCH];
        assert_eq!((recovery.pages(), crash.claimed()), (grown, 0));
        crash.release(5);
        assert!(!crash.handover.is_drained());
        drop(crash.handover.drained_at_end());
        assert!(crash.handover.is_drained());
        assert_eq!(recovery.pages(), [40, GROW_BATCH, 5]);
        drop(crash.handover.drained_at_end());
        assert_eq!(recovery.pages(), [40, GROW_BATCH, 5]);
    });
}

#[test]
fn what_recovery_refuses_is_kept_for_its_next_try() {
    let recovery = Arc::new(Grown::default());
    recovery.refuses.store(true, SeqCst);
    with_crash(|crash| {
        crash.release(10);
        crash.handover.adopt(recovery.clone());
        assert_eq!((recovery.pages(), crash.claimed()), (vec![], 10));
        recovery.refuses.store(false, SeqCst);
        crash.release(GROW_BATCH);
        let grown = vec![GROW_BATCH + 10];
        assert_eq!((recovery.pages(), crash.claimed()), (grown, 0));
    });
}

#[test]
fn nothing_is_claimed_for_a_recovery_that_is_gone() {
    let recovery = Arc::new(Grown::default());
    recovery.refuses.store(true, SeqCst);
    recovery.is_gone.store(true, SeqCst);
    with_crash(|crash| {
        crash.release(10);
        crash.handover.adopt(recovery.clone());
        assert_eq!(crash.claimed(), 0);
        crash.release(GROW_BATCH);
        assert_eq!(crash.claimed(), 0);
    });
    with_crash(|crash| {
        crash.handover.adopt(Arc::new(Grown::default()));
        crash.release(10);
        crash.handover.abandon();
        assert_eq!(crash.claimed(), 0);
        crash.release(GROW_BATCH);
        assert_eq!(crash.claimed(), 0);
    });
}

#[test]
fn an_account_that_another_process_kept_is_taken_up() {
    let recovery = Arc::new(Grown::default());
    let host = with_crash(|crash| {
        let frames: Vec<_> = (0..100).map(Gfn).collect();
        crash.host.release(&frames).unwrap();
        crash.host.claim(30).unwrap();
        crash.handover.resume(100);
        crash.handover.account(60, 33);
        crash.handover.adopt(recovery.clone());
        assert_eq!((recovery.pages(), crash.claimed()), (vec![7], 0));
    });
    assert_eq!(host.claimed_pages(), 0);
    // Also when nothing of it is left to be passed on.
    let host = with_crash(|crash| {
        let frames: Vec<_> = (0..100).map(Gfn).collect();
        crash.host.release(&frames).unwrap();
        crash.host.claim(30).unwrap();
        crash.handover.resume(100);
        crash.handover.account(60, 40);
    });
    assert_eq!(host.claimed_pages(), 0);
}

#[test]
fn whoever_waits_for_memory_learns_that_there_is_enough_or_no_more() {
    with_crash(|crash| {
        crash.release(8);
        assert!(crash.handover.wait_released(8));
        drop(crash.handover.drained_at_end());
        assert!(crash.handover.wait_released(8));
        assert!(!crash.handover.wait_released(9));
    });
}

/// Checks that a thread waits in `wait` until `let_go` is called.
pub(crate) fn waits(wait: impl FnOnce() + Send, let_go: impl FnOnce()) {
    let is_let_go = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (is_there, there) = std::sync::mpsc::channel();
        let is_let_go = &is_let_go;
        let waiter = scope.spawn(move || {
            is_there.send(()).unwrap();
            wait();
            assert!(is_let_go.load(SeqCst), "it did not wait");
        });
        there.recv().unwrap();
        // Time enough to go on in, for one that does not wait.
        (0..1000).for_each(|_| std::thread::yield_now());
        is_let_go.store(true, SeqCst);
        let_go();
        waiter.join().unwrap();
    });
}

#[test]
fn a_drain_waits_until_the_devices_are_gone_or_nobody_would_say_so() {
    with_crash(|Crash { handover, .. }| {
        waits(|| handover.wait_detached(), || handover.detached());
        handover.wait_detached();
    });
    with_crash(|Crash { handover, .. }| {
        let freed = handover.freed_at_end();
        waits(|| handover.wait_detached(), || drop(freed));
    });
}

#[test]
fn a_drain_rests_while_it_is_paused_unless_nobody_would_let_it_go_on() {
    with_crash(|Crash { handover, .. }| {
        handover.wait_resumed();
        handover.pause_drain();
        waits(|| handover.wait_resumed(), || handover.resume_drain());
        handover.pause_drain();
        let freed = handover.freed_at_end();
        waits(|| handover.wait_resumed(), || drop(freed));
    });
    with_crash(|Crash { handover, .. }| {
        handover.pause_drain();
        waits(|| handover.wait_resumed(), || handover.cancel.ask());
    });
}
