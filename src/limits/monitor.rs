// SPDX-License-Identifier: LGPL-2.1-or-later
//! A value that threads share and wait for changes of.

use std::sync::PoisonError;
use std::time::Duration;

use crate::os::sync::{Condvar, Instant, Mutex, MutexGuard};

/// A value under a lock, with those who wait until it changes. A thread that panicked
/// while it held the lock left plain values behind, each valid by itself.
#[derive(Default)]
pub(crate) struct Monitor<T> {
    value: Mutex<T>,
    changed: Condvar,
}

impl<T> Monitor<T> {
    /// Nobody waits yet.
    pub(crate) fn new(value: T) -> Self {
        Self {
            value: Mutex::new(value),
            changed: Condvar::new(),
        }
    }

    /// The value, to look at. Whoever changes it here wakes nobody.
    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.value.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the value, and wakes everybody who waits; also when `change` panics, since
    /// what it did until then is there to be seen.
    pub(crate) fn update<R>(&self, change: impl FnOnce(&mut T) -> R) -> R {
        let _woken = WakesAll(&self.changed);
        let mut value = self.lock();
        change(&mut value)
    }

    /// Wakes everybody who waits, without a change here of what they wait for.
    pub(crate) fn wake(&self) {
        // Under the lock, so that nobody is between a look and a wait.
        let _value = self.lock();
        self.changed.notify_all();
    }

    /// Lets go of the value until it has changed, or somebody says so, or for `most` at
    /// most.
    pub(crate) fn wait<'a>(
        &self,
        value: MutexGuard<'a, T>,
        most: Option<Duration>,
    ) -> MutexGuard<'a, T> {
        match most {
            None => self
                .changed
                .wait(value)
                .unwrap_or_else(PoisonError::into_inner),
            Some(most) => {
                let waited = self.changed.wait_timeout(value, most);
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
        }
    }

    /// Blocks as long as `busy` holds.
    pub(crate) fn wait_while(&self, mut busy: impl FnMut(&mut T) -> bool) -> MutexGuard<'_, T> {
        let mut value = self.lock();
        loop {
            // After a panic under the lock the standard library lets go of who waits at
            // the first word, `busy` or not.
            match self.changed.wait_while(value, &mut busy) {
                Ok(value) => return value,
                Err(poisoned) => value = poisoned.into_inner(),
            }
        }
    }

    /// Blocks as long as `busy` holds, for `most` at most.
    pub(crate) fn wait_at_most(
        &self,
        most: Duration,
        mut busy: impl FnMut(&mut T) -> bool,
    ) -> MutexGuard<'_, T> {
        let began = Instant::now();
        let mut value = self.lock();
        loop {
            let left = most.saturating_sub(began.elapsed());
            match self.changed.wait_timeout_while(value, left, &mut busy) {
                Ok((value, _)) => return value,
                Err(poisoned) => (value, _) = poisoned.into_inner(),
            }
        }
    }
}

/// Wakes everybody who waits when it is dropped.
struct WakesAll<'a>(&'a Condvar);

impl Drop for WakesAll<'_> {
    fn drop(&mut self) {
        self.0.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::sync::Arc;
    use std::thread;

    #[test]
    fn a_change_and_a_word_wake_who_waits_and_a_panic_does_not_close_it() {
        let monitor = Arc::new(Monitor::new(0));
        let inside = monitor.clone();
        let broken = thread::spawn(move || inside.update(|_| panic!("on purpose")));
        assert!(broken.join().is_err());
        let inside = monitor.clone();
        let waiting = thread::spawn(move || *inside.wait_while(|value| *value < 2));
        monitor.update(|value| *value = 1);
        monitor.wake();
        monitor.update(|value| *value = 2);
        assert_eq!(waiting.join().unwrap(), 2);
        assert_eq!(*monitor.wait_at_most(Duration::ZERO, |_| true), 2);
        assert_eq!(*monitor.wait(monitor.lock(), Some(Duration::ZERO)), 2);
    }

    /// A monitor whose lock was held by a thread that panicked, and a thread that waits
    /// for its value to be 2.
    fn waited_for(
        wait: impl Fn(&Monitor<u32>, &mut dyn FnMut(&mut u32) -> bool) -> u32 + Send + 'static,
    ) -> (
        Arc<Monitor<u32>>,
        mpsc::Receiver<u32>,
        thread::JoinHandle<u32>,
    ) {
        let monitor = Arc::new(Monitor::new(0));
        let (looked, looks) = mpsc::channel();
        let inside = monitor.clone();
        let waiting = thread::spawn(move || {
            wait(&inside, &mut |value| {
                looked.send(*value).unwrap();
                *value < 2
            })
        });
        assert_eq!(looks.recv(), Ok(0));
        let inside = monitor.clone();
        let broken = thread::spawn(move || {
            inside.update(|value| {
                *value = 1;
                panic!("on purpose");
            })
        });
        assert!(broken.join().is_err());
        (monitor, looks, waiting)
    }

    #[test]
    fn who_waits_sees_what_a_change_did_before_it_panicked_and_waits_on() {
        const LONG: Duration = Duration::from_secs(20);
        let forever = waited_for(|monitor, busy| *monitor.wait_while(busy));
        let long = waited_for(|monitor, busy| *monitor.wait_at_most(LONG, busy));
        for (monitor, looks, waiting) in [forever, long] {
            assert_eq!(looks.recv_timeout(LONG), Ok(1));
            monitor.update(|value| *value = 2);
            assert_eq!(waiting.join().unwrap(), 2);
        }
    }
}
