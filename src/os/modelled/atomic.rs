// SPDX-License-Identifier: LGPL-2.1-or-later
//! Numbers that threads share. Whatever order is asked for, all threads see one.

pub(crate) use std::sync::atomic::Ordering;
use std::sync::atomic::Ordering::SeqCst;

use super::thread::step;

/// A truth value; see [`std::sync::atomic::AtomicBool`].
pub(crate) struct AtomicBool {
    inner: std::sync::atomic::AtomicBool,
}

impl AtomicBool {
    /// With this value.
    pub(crate) fn new(value: bool) -> Self {
        Self {
            inner: std::sync::atomic::AtomicBool::new(value),
        }
    }

    /// The value.
    pub(crate) fn load(&self, _: Ordering) -> bool {
        step();
        self.inner.load(SeqCst)
    }

    /// Another value.
    pub(crate) fn store(&self, value: bool, _: Ordering) {
        step();
        self.inner.store(value, SeqCst);
    }
}

impl Default for AtomicBool {
    fn default() -> Self {
        Self::new(false)
    }
}

/// A number; see [`std::sync::atomic::AtomicUsize`].
pub(crate) struct AtomicUsize {
    inner: std::sync::atomic::AtomicUsize,
}

impl AtomicUsize {
    /// With this value.
    pub(crate) fn new(value: usize) -> Self {
        Self {
            inner: std::sync::atomic::AtomicUsize::new(value),
        }
    }

    /// Takes something off; returns what it was.
    pub(crate) fn fetch_sub(&self, less: usize, _: Ordering) -> usize {
        step();
        self.inner.fetch_sub(less, SeqCst)
    }
}
