// SPDX-License-Identifier: LGPL-2.1-or-later
//! Holding the dump back: the writer's pace while recovery uses the same disk.

use std::time::Duration;

use crate::dump::Pacer;
use crate::limits::monitor::Monitor;
use crate::os::priority;
use crate::os::sync::Instant;
use crate::pacing::bucket::Bucket;
use crate::pacing::sample::{WriteLimits, WriterTotals};

struct State {
    limits: WriteLimits,
    /// None: as fast as the disk takes it.
    bucket: Option<Bucket>,
    /// Recovery waits for memory that only the dump can free.
    urgent: bool,
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
        if self.urgent || self.cancelled {
            return Ok(wanted);
        }
        let part = wanted.min(self.limits.piece.unwrap_or(u64::MAX));
        match &mut self.bucket {
            Some(bucket) => bucket.take(now, part),
            None => Ok(part),
        }
    }
}

/// The pace of one job's dump. Shared by the writer, which waits here, and by
/// whoever knows that it must not.
pub(crate) struct WritePace {
    state: Monitor<State>,
    /// The clock's zero.
    started: Instant,
}

impl Default for WritePace {
    /// Unlimited.
    fn default() -> Self {
        Self {
            state: Monitor::new(State {
                limits: WriteLimits::NONE,
                bucket: None,
                urgent: false,
                cancelled: false,
                written: WriterTotals::default(),
                writing: None,
                yields: false,
            }),
            started: Instant::now(),
        }
    }
}

impl WritePace {
    /// The writer keeps to `limits` from now on.
    pub(crate) fn set_limits(&self, limits: WriteLimits) {
        let now = self.now();
        self.state.update(|state| {
            state.limits = limits;
            state.bucket = limits.limit.map(|rate| {
                let mut bucket = state.bucket.take().unwrap_or(Bucket::new(rate, now));
                bucket.change(rate, limits.piece.unwrap_or(0), now);
                bucket
            });
        });
    }

    /// What it was told last.
    #[cfg(test)]
    pub(crate) fn limits(&self) -> WriteLimits {
        self.state.lock().limits
    }

    /// While set, nothing holds the dump back: recovery waits for its memory.
    pub(crate) fn set_urgent(&self, urgent: bool) {
        self.state.update(|state| state.urgent = urgent);
    }

    /// Whether [`WritePace::set_urgent`] is set.
    pub(crate) fn is_urgent(&self) -> bool {
        self.state.lock().urgent
    }

    /// Lets the writer through for good: the job is to end.
    pub(crate) fn cancel(&self) {
        self.state.update(|state| state.cancelled = true);
    }

    /// Time on the clock that everything here goes by.
    pub(crate) fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// What the writer has written by now.
    pub(crate) fn written(&self) -> WriterTotals {
        let state = self.state.lock();
        let now = self.now();
        let under_way = state.writing.map(|since| now.saturating_sub(since));
        WriterTotals {
            bytes: state.written.bytes,
            busy: state.written.busy + under_way.unwrap_or_default(),
        }
    }
}

impl Pacer for WritePace {
    fn acquire(&self, wanted: u64) -> u64 {
        let mut state = self.state.lock();
        let granted = loop {
            match state.grant(self.now(), wanted) {
                Ok(granted) => break granted,
                Err(wait) => {
                    state = self.state.wait(state, Some(wait));
                }
            }
        };
        state.writing = Some(self.now());
        let yields = state.limits.yields && !state.urgent;
        if std::mem::replace(&mut state.yields, yields) != yields {
            // This is the writing thread. Where its disk's scheduler has no
            // priorities, or the kernel forbids them, the pace has to do.
            let _ = priority::yield_disk(yields);
        }
        granted
    }

    fn written(&self, bytes: u64) {
        let mut state = self.state.lock();
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

    fn at_rate(bytes_per_s: u64) -> WriteLimits {
        WriteLimits {
            limit: Some(bytes_per_s),
            ..WriteLimits::NONE
        }
    }

    /// One page an hour, and none left.
    fn stuck() -> Arc<WritePace> {
        let pace = Arc::new(WritePace::default());
        pace.set_limits(at_rate(1));
        assert_eq!(pace.acquire(4096), 4096);
        pace
    }

    /// What a writer that waits is granted once `free` was called.
    fn granted_after(pace: &Arc<WritePace>, free: impl FnOnce(&WritePace)) -> u64 {
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
        assert_eq!(WritePace::default().acquire(u64::MAX), u64::MAX);
    }

    #[test]
    fn urgency_frees_a_waiting_writer_and_its_end_holds_it_back_again() {
        let pace = stuck();
        assert_eq!(granted_after(&pace, |pace| pace.set_urgent(true)), 1 << 20);
        assert_eq!(pace.acquire(1 << 30), 1 << 30);
        pace.set_urgent(false);
        granted_after(&pace, |pace| pace.set_urgent(true));
    }

    #[test]
    fn cancelling_frees_a_waiting_writer_for_good() {
        let pace = stuck();
        assert_eq!(granted_after(&pace, WritePace::cancel), 1 << 20);
        pace.set_urgent(false);
        assert_eq!(pace.acquire(1 << 20), 1 << 20);
    }

    #[test]
    fn another_limit_holds_at_once() {
        let pace = stuck();
        assert_eq!(
            granted_after(&pace, |pace| pace.set_limits(WriteLimits::NONE)),
            1 << 20
        );
    }

    #[test]
    fn a_limited_writer_takes_the_time_it_should() {
        let pace = WritePace::default();
        pace.set_limits(at_rate(4 << 20));
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
            pace.set_limits(at_rate(rate));
            let writer = pace.clone();
            assert!(writer.state.lock().grant(pace.now(), 4096).is_err());
        }
    }

    #[test]
    fn writes_have_the_size_that_is_set_unless_recovery_waits() {
        let pace = WritePace::default();
        pace.set_limits(WriteLimits {
            piece: Some(128 << 10),
            ..WriteLimits::NONE
        });
        assert_eq!(pace.acquire(1 << 20), 128 << 10);
        assert_eq!(pace.acquire(4096), 4096);
        pace.set_urgent(true);
        assert_eq!(pace.acquire(1 << 20), 1 << 20);
    }

    #[test]
    fn what_was_written_is_counted_and_time_runs_while_it_is_written() {
        let pace = WritePace::default();
        assert_eq!(pace.acquire(4096), 4096);
        let began = pace.written();
        assert_eq!(began.bytes, 0);
        while pace.written().busy <= began.busy {
            thread::yield_now();
        }
        Pacer::written(&pace, 4096);
        let done = pace.written();
        assert_eq!(done.bytes, 4096);
        assert!(done.busy > began.busy);
        assert_eq!(pace.written(), done, "the clock stands between writes");
    }
}
