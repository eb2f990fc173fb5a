// SPDX-License-Identifier: LGPL-2.1-or-later
//! Where a dump is.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Where a dump is at any moment, for everybody who asks. Clones are one place; who
/// writes the dump moves it when the dump has moved, so that no name is ever told of
/// a file that is not there.
#[derive(Clone, Debug, Default)]
pub struct DumpPlace(Arc<Mutex<Option<PathBuf>>>);

impl DumpPlace {
    /// A dump that is at `path`, or nowhere.
    pub fn new(path: Option<PathBuf>) -> Self {
        Self(Arc::new(Mutex::new(path)))
    }

    fn lock(&self) -> MutexGuard<'_, Option<PathBuf>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The dump's path, if it has one now.
    pub fn path(&self) -> Option<PathBuf> {
        self.lock().clone()
    }

    /// The dump has moved.
    pub(super) fn set(&self, path: Option<PathBuf>) {
        *self.lock() = path;
    }
}
