//! Holding the dump back: the writer's pace while recovery uses the same disk.

use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::Instant;

use crate::dump::Throttle;
use crate::pacing::bucket::Bucket;

struct State {
    /// None: as fast as the disk takes it.
    bucket: Option<Bucket>,
    /// Recovery waits for memory that only the dump can free.
    hurry: bool,
    cancelled: bool,
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
                bucket: None,
                hurry: false,
                cancelled: false,
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

    /// Limits the dump to a rate in bytes per second, or to none.
    pub(crate) fn limit(&self, bytes_per_s: Option<u64>) {
        let bucket = bytes_per_s.map(|rate| Bucket::new(rate, self.started.elapsed()));
        self.update(|state| state.bucket = bucket);
    }

    /// While set, nothing holds the dump back: recovery waits for its memory.
    pub(crate) fn hurry(&self, hurry: bool) {
        self.update(|state| state.hurry = hurry);
    }

    /// Whether [`Pace::hurry`] is set.
    #[cfg(test)]
    pub(crate) fn hurries(&self) -> bool {
        self.state().hurry
    }

    /// Lets the writer through for good: the job is to end.
    pub(crate) fn cancel(&self) {
        self.update(|state| state.cancelled = true);
    }
}

impl Throttle for Pace {
    fn acquire(&self, wanted: u64) -> u64 {
        let mut state = self.state();
        loop {
            if state.hurry || state.cancelled {
                return wanted;
            }
            let Some(bucket) = &mut state.bucket else {
                return wanted;
            };
            match bucket.take(self.started.elapsed(), wanted) {
                Ok(granted) => return granted,
                Err(wait) => {
                    state = self
                        .changed
                        .wait_timeout(state, wait)
                        .unwrap_or_else(|poisoned| poisoned.into_inner())
                        .0;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{mpsc, Arc};
    use std::thread;
    use std::time::Duration;

    /// Longer than any of these tests may take.
    const NEVER: Duration = Duration::from_secs(20);

    /// One page an hour, and none left.
    fn stuck() -> Arc<Pace> {
        let pace = Arc::new(Pace::default());
        pace.limit(Some(1));
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
        assert_eq!(granted_after(&pace, |pace| pace.limit(None)), 1 << 20);
    }

    #[test]
    fn a_limited_writer_takes_the_time_it_should() {
        let pace = Pace::default();
        pace.limit(Some(4 << 20));
        let began = Instant::now();
        let mut left = 1 << 20;
        while left > 0 {
            left -= pace.acquire(left);
        }
        // The first burst is free: 10 ms of 250.
        assert!(began.elapsed() >= Duration::from_millis(240));
    }
}
