// SPDX-License-Identifier: LGPL-2.1-or-later
//! Holding the dump back: the writer's pace while recovery uses the same disk.

use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crate::dump::Throttle;
use crate::os::priority;
use crate::pacing::bucket::Bucket;
use crate::pacing::sample::{Order, WriterTotals};

struct State {
    order: Order,
    /// None: as fast as the disk takes it.
    bucket: Option<Bucket>,
    /// Recovery waits for memory that only the dump can free.
    hurry: bool,
    cancelled: bool,
    written: WriterTotals,
    /// When the write began that is under way.
    writing: Option<Duration>,
    /// What the writing thread's I/O priority is.
    yields: bool,
}

impl State {
    /// What may be written now of `wanted` bytes, or how long that has to wait.
    fn grant(&mut self, now: Duration, wanted: u64) -> Result<u64, Duration> {
        if self.hurry || self.cancelled {
            return Ok(wanted);
        }
        let part = wanted.min(self.order.piece.unwrap_or(u64::MAX));
        match &mut self.bucket {
            Some(bucket) => bucket.take(now, part),
            None => Ok(part),
        }
    }
}

/// The pace of one job's dump. Shared by the writer, which waits here, and by
/// whoever knows that it must not.
pub(crate) struct Pace {
    state: Mutex<State>,
    changed: Condvar,
    /// The clock's zero.
    started: Instant,
}

impl Default for Pace {
    /// Unlimited.
    fn default() -> Self {
        Self {
            state: Mutex::new(State {
                order: Order::FREE,
                bucket: None,
                hurry: false,
                cancelled: false,
                written: WriterTotals::default(),
                writing: None,
                yields: false,
            }),
            changed: Condvar::new(),
            started: Instant::now(),
        }
    }
}

impl Pace {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn update(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.changed.notify_all();
    }

    /// The writer does as `order` says from now on.
    pub(crate) fn obey(&self, order: Order) {
        let now = self.now();
        self.update(|state| {
            state.order = order;
            state.bucket = order.limit.map(|rate| {
                let mut bucket = state.bucket.take().unwrap_or(Bucket::new(rate, now));
                bucket.change(rate, order.piece.unwrap_or(0), now);
                bucket
            });
        });
    }

    /// What it was told last.
    #[cfg(test)]
    pub(crate) fn order(&self) -> Order {
        self.state().order
    }

    /// While set, nothing holds the dump back: recovery waits for its memory.
    pub(crate) fn hurry(&self, hurry: bool) {
        self.update(|state| state.hurry = hurry);
    }

    /// Whether [`Pace::hurry`] is set.
    pub(crate) fn hurries(&self) -> bool {
        self.state().hurry
    }

    /// Lets the writer through for good: the job is to end.
    pub(crate) fn cancel(&self) {
        self.update(|state| state.cancelled = true);
    }

    /// Time on the clock that everything here goes by.
    pub(crate) fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// What the writer has written by now.
    pub(crate) fn written(&self) -> WriterTotals {
        let state = self.state();
        let now = self.now();
        let under_way = state.writing.map(|since| now.saturating_sub(since));
        WriterTotals {
            bytes: state.written.bytes,
            busy: state.written.busy + under_way.unwrap_or_default(),
        }
    }
}

impl Throttle for Pace {
    fn acquire(&self, wanted: u64) -> u64 {
        let mut state = self.state();
        let granted = loop {
            match state.grant(self.now(), wanted) {
                Ok(granted) => break granted,
                Err(wait) => {
                    state = self
                        .changed
                        .wait_timeout(state, wait)
                        .unwrap_or_else(|poisoned| poisoned.into_inner())
                        .0;
                }
            }
        };
        state.writing = Some(self.now());
        let yields = state.order.yields && !state.hurry;
        if std::mem::replace(&mut state.yields, yields) != yields {
            // This is the writing thread. Where its disk's scheduler has no
            // priorities, or the kernel forbids them, the pace has to do.
            let _ = priority::yield_disk(yields);
        }
        granted
    }

    fn written(&self, bytes: u64) {
        let mut state = self.state();
        state.written.bytes += bytes;
        if let Some(since) = state.writing.take() {
            state.written.busy += self.now().saturating_sub(since);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{mpsc, Arc};
    use std::thread;
    /// Longer than any of these tests may take.
    const NEVER: Duration = Duration::from_secs(20);

    fn at_rate(bytes_per_s: u64) -> Order {
        Order {
            limit: Some(bytes_per_s),
            ..Order::FREE
        }
    }

    /// One page an hour, and none left.
    fn stuck() -> Arc<Pace> {
        let pace = Arc::new(Pace::default());
        pace.obey(at_rate(1));
        assert_eq!(pace.acquire(4096), 4096);
        pace
    }

    /// What a writer that waits is granted once `free` was called.
    fn granted_after(pace: &Arc<Pace>, free: impl FnOnce(&Pace)) -> u64 {
        let (done, granted) = mpsc::channel();
        let writer = pace.clone();
        let waits = thread::spawn(move || done.send(writer.acquire(1 << 20)).unwrap());
        let early = granted.recv_timeout(Duration::from_millis(20));
        assert!(early.is_err(), "the writer was not held back");
        free(pace);
        let bytes = granted.recv_timeout(NEVER).expect("still held back");
        waits.join().unwrap();
        bytes
    }

    #[test]
    fn without_a_limit_nobody_waits() {
        assert_eq!(Pace::default().acquire(u64::MAX), u64::MAX);
    }

    #[test]
    fn hurry_frees_a_waiting_writer_and_its_end_holds_it_back_again() {
        let pace = stuck();
        assert_eq!(granted_after(&pace, |pace| pace.hurry(true)), 1 << 20);
        assert_eq!(pace.acquire(1 << 30), 1 << 30);
        pace.hurry(false);
        granted_after(&pace, |pace| pace.hurry(true));
    }

    #[test]
    fn cancelling_frees_a_waiting_writer_for_good() {
        let pace = stuck();
        assert_eq!(granted_after(&pace, Pace::cancel), 1 << 20);
        pace.hurry(false);
        assert_eq!(pace.acquire(1 << 20), 1 << 20);
    }

    #[test]
    fn another_limit_holds_at_once() {
        let pace = stuck();
        assert_eq!(granted_after(&pace, |pace| pace.obey(Order::FREE)), 1 << 20);
    }

    #[test]
    fn a_limited_writer_takes_the_time_it_should() {
        let pace = Pace::default();
        pace.obey(at_rate(4 << 20));
        let began = Instant::now();
        let mut left = 1 << 20;
        while left > 0 {
            left -= pace.acquire(left);
        }
        // The first burst is free: 10 ms of 250.
        assert!(began.elapsed() >= Duration::from_millis(240));
    }

    #[test]
    fn orders_that_follow_each_other_grant_nothing_extra() {
        let pace = stuck();
        for rate in [2, 1, 3] {
            pace.obey(at_rate(rate));
            let writer = pace.clone();
            assert!(writer.state().grant(pace.now(), 4096).is_err());
        }
    }

    #[test]
    fn writes_have_the_size_that_was_ordered_unless_recovery_waits() {
        let pace = Pace::default();
        pace.obey(Order {
            piece: Some(128 << 10),
            ..Order::FREE
        });
        assert_eq!(pace.acquire(1 << 20), 128 << 10);
        assert_eq!(pace.acquire(4096), 4096);
        pace.hurry(true);
        assert_eq!(pace.acquire(1 << 20), 1 << 20);
    }

    #[test]
    fn what_was_written_is_counted_and_time_runs_while_it_is_written() {
        let pace = Pace::default();
        assert_eq!(pace.acquire(4096), 4096);
        let began = pace.written();
        assert_eq!(began.bytes, 0);
        while pace.written().busy <= began.busy {
            thread::yield_now();
        }
        Throttle::written(&pace, 4096);
        let done = pace.written();
        assert_eq!(done.bytes, 4096);
        assert!(done.busy > began.busy);
        assert_eq!(pace.written(), done, "the clock stands between writes");
    }
}
