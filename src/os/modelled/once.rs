// SPDX-License-Identifier: LGPL-2.1-or-later
//! A value that is set once.

use super::thread::step;

/// A value that is set once; see [`std::sync::OnceLock`].
pub(crate) struct OnceLock<T> {
    inner: std::sync::OnceLock<T>,
}

impl<T> OnceLock<T> {
    /// Not set yet.
    pub(crate) fn new() -> Self {
        Self {
            inner: std::sync::OnceLock::new(),
        }
    }

    /// The value, if it is set.
    pub(crate) fn get(&self) -> Option<&T> {
        step();
        self.inner.get()
    }

    /// Sets it, unless it is set.
    pub(crate) fn set(&self, value: T) -> Result<(), T> {
        step();
        self.inner.set(value)
    }
}
