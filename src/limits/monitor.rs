// SPDX-License-Identifier: LGPL-2.1-or-later
//! A value that threads share and wait for changes of.

use std::sync::PoisonError;
use std::time::Duration;

use crate::os::sync::{Condvar, Mutex, MutexGuard};

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

    /// Changes the value, and wakes everybody who waits.
    pub(crate) fn update<R>(&self, change: impl FnOnce(&mut T) -> R) -> R {
        let result = change(&mut self.lock());
        self.changed.notify_all();
        result
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
    pub(crate) fn wait_while(&self, busy: impl FnMut(&mut T) -> bool) -> MutexGuard<'_, T> {
        let waited = self.changed.wait_while(self.lock(), busy);
        waited.unwrap_or_else(PoisonError::into_inner)
    }

    /// Blocks as long as `busy` holds, for `most` at most.
    pub(crate) fn wait_at_most(
        &self,
        most: Duration,
        busy: impl FnMut(&mut T) -> bool,
    ) -> MutexGuard<'_, T> {
        let waited = self.changed.wait_timeout_while(self.lock(), most, busy);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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
}
