// SPDX-License-Identifier: LGPL-2.1-or-later
//! A lock, and waiting for a change of what it protects.

use std::ops::{Deref, DerefMut};
use std::sync::{LockResult, PoisonError};
use std::time::Duration;

use super::thread::staying;
use super::time::{passes, timers_run};

/// A lock; see [`std::sync::Mutex`].
pub(crate) struct Mutex<T> {
    inner: shuttle::sync::Mutex<T>,
}

/// A lock that is held.
pub(crate) struct MutexGuard<'a, T> {
    /// None while it is given back.
    inner: Option<shuttle::sync::MutexGuard<'a, T>>,
    lock: &'a Mutex<T>,
}

impl<T> Mutex<T> {
    /// Nobody holds it.
    pub(crate) fn new(value: T) -> Self {
        Self {
            inner: shuttle::sync::Mutex::new(value),
        }
    }

    /// Waits for it. Whoever panicked while it was held makes it an error.
    pub(crate) fn lock(&self) -> LockResult<MutexGuard<'_, T>> {
        self.held(self.inner.lock())
    }

    fn held<'a>(
        &'a self,
        inner: LockResult<shuttle::sync::MutexGuard<'a, T>>,
    ) -> LockResult<MutexGuard<'a, T>> {
        let guard = |inner| MutexGuard {
            inner: Some(inner),
            lock: self,
        };
        match inner {
            Ok(inner) => Ok(guard(inner)),
            Err(poisoned) => Err(PoisonError::new(guard(poisoned.into_inner()))),
        }
    }
}

impl<T: Default> Default for Mutex<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        self.inner.as_ref().expect("it is held")
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.inner.as_mut().expect("it is held")
    }
}

impl<T> Drop for MutexGuard<'_, T> {
    fn drop(&mut self) {
        // Who waits for the lock can as well have come later.
        staying(|| drop(self.inner.take()));
    }
}

/// Waiting for a change; see [`std::sync::Condvar`]. A wait with a deadline ends when the
/// scheduler lets it: before the change, or after it.
pub(crate) struct Condvar {
    inner: shuttle::sync::Condvar,
}

impl Default for Condvar {
    fn default() -> Self {
        Self::new()
    }
}

impl Condvar {
    /// Nobody waits.
    pub(crate) fn new() -> Self {
        Self {
            inner: shuttle::sync::Condvar::new(),
        }
    }

    /// Lets go of the lock until somebody says that there is a change.
    pub(crate) fn wait<'a, T>(
        &self,
        mut guard: MutexGuard<'a, T>,
    ) -> LockResult<MutexGuard<'a, T>> {
        let (lock, inner) = (guard.lock, guard.inner.take().expect("it is held"));
        drop(guard);
        let inner = staying(|| self.inner.wait(inner));
        lock.held(inner)
    }

    /// Waits as long as `busy` holds.
    pub(crate) fn wait_while<'a, T>(
        &self,
        mut guard: MutexGuard<'a, T>,
        mut busy: impl FnMut(&mut T) -> bool,
    ) -> LockResult<MutexGuard<'a, T>> {
        while busy(&mut guard) {
            guard = self.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
        Ok(guard)
    }

    /// Waits for a change, or until the time is over.
    pub(crate) fn wait_timeout<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        most: Duration,
    ) -> LockResult<(MutexGuard<'a, T>, ())> {
        self.wait_timeout_while(guard, most, |_| true)
    }

    /// Waits as long as `busy` holds, or until the time is over.
    pub(crate) fn wait_timeout_while<'a, T>(
        &self,
        mut guard: MutexGuard<'a, T>,
        most: Duration,
        mut busy: impl FnMut(&mut T) -> bool,
    ) -> LockResult<(MutexGuard<'a, T>, ())> {
        let lock = guard.lock;
        while busy(&mut guard) {
            if !timers_run() {
                guard = self.wait(guard).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            drop(guard);
            shuttle::thread::yield_now();
            guard = lock.lock().unwrap_or_else(PoisonError::into_inner);
            if busy(&mut guard) {
                passes(most);
                break;
            }
        }
        Ok((guard, ()))
    }

    /// Somebody who waits goes on.
    pub(crate) fn notify_one(&self) {
        self.inner.notify_one();
    }

    /// Everybody who waits goes on.
    pub(crate) fn notify_all(&self) {
        self.inner.notify_all();
    }
}
