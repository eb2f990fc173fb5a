// SPDX-License-Identifier: LGPL-2.1-or-later
//! A value that is set once.

use super::thread::step;
use super::trace::Met;

/// A value that is set once; see [`std::sync::OnceLock`].
pub(crate) struct OnceLock<T> {
    inner: std::sync::OnceLock<T>,
    met: Met,
}

impl<T> OnceLock<T> {
    /// Not set yet.
    pub(crate) fn new() -> Self {
        Self {
            inner: std::sync::OnceLock::new(),
            met: Met::new(),
        }
    }

    /// The value, if it is set.
    pub(crate) fn get(&self) -> Option<&T> {
        step();
        self.met.touch();
        self.inner.get()
    }

    /// Sets it, unless it is set.
    pub(crate) fn set(&self, value: T) -> Result<(), T> {
        step();
        self.met.touch();
        self.inner.set(value)
    }
}
