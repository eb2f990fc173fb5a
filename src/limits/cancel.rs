// SPDX-License-Identifier: LGPL-2.1-or-later
//! A request to stop, for everybody who might be waiting.

use std::sync::{Arc, PoisonError};

use crate::os::sync::atomic::{AtomicBool, Ordering};
use crate::os::sync::{Mutex, MutexGuard};

/// Called once, by the thread that asks.
type Tell = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct State {
    asked: AtomicBool,
    /// Who is to be told.
    waiting: Mutex<Vec<Tell>>,
}

/// Whether somebody asked to stop. Clones are one request.
#[derive(Clone, Default)]
pub struct Cancel(Arc<State>);

impl Cancel {
    fn waiting(&self) -> MutexGuard<'_, Vec<Tell>> {
        let waiting = self.0.waiting.lock();
        waiting.unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks everybody to stop, for good.
    pub fn ask(&self) {
        let mut waiting = self.waiting();
        // Under the lock: whoever registers later sees it.
        self.0.asked.store(true, Ordering::SeqCst);
        let told = std::mem::take(&mut *waiting);
        drop(waiting);
        told.into_iter().for_each(|tell| tell());
    }

    /// Whether somebody has.
    pub fn is_asked(&self) -> bool {
        self.0.asked.load(Ordering::SeqCst)
    }

    /// Calls `tell` when somebody asks, now if somebody has. It must be quick, and
    /// should hold nothing that is to go before the request does.
    pub(crate) fn when_asked(&self, tell: impl FnOnce() + Send + 'static) {
        let mut waiting = self.waiting();
        if self.is_asked() {
            drop(waiting);
            return tell();
        }
        waiting.push(Box::new(tell));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU32;

    #[test]
    fn everybody_is_told_once_however_late_they_come() {
        let (cancel, told) = (Cancel::default(), Arc::new(AtomicU32::new(0)));
        let tell = || {
            let told = told.clone();
            cancel.when_asked(move || {
                told.fetch_add(1, Ordering::SeqCst);
            });
        };
        tell();
        assert_eq!((cancel.is_asked(), told.load(Ordering::SeqCst)), (false, 0));
        cancel.clone().ask();
        cancel.ask();
        tell();
        assert_eq!((cancel.is_asked(), told.load(Ordering::SeqCst)), (true, 2));
    }
}
