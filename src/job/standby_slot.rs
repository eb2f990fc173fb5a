// SPDX-License-Identifier: LGPL-2.1-or-later
//! Where the thread that keeps a standby and a recovery meet.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::host::BuiltStandby;

#[derive(Default)]
enum State {
    /// There is none yet, or none any more.
    #[default]
    Absent,
    /// It waits for the crash.
    Ready(BuiltStandby),
    /// A recovery has it.
    Taken,
}

/// Where the thread that keeps a standby and a recovery meet.
#[derive(Default)]
pub struct Slot {
    state: Mutex<State>,
    changed: Condvar,
}

impl Slot {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn offer(&self, standby: BuiltStandby) {
        *self.state() = State::Ready(standby);
    }

    /// Takes the standby for a recovery, when it was built from `recipe`; else says
    /// why not, and leaves it to its keeper.
    pub(crate) fn take(&self, recipe: &str) -> Result<BuiltStandby, &'static str> {
        let mut state = self.state();
        let taken = match &*state {
            State::Ready(standby) if standby.recipe == recipe => Ok(standby.clone()),
            State::Ready(_) => Err("the guest's configuration or boot files have changed"),
            State::Absent => Err("it is not built yet"),
            State::Taken => Err("an earlier crash took it"),
        };
        if taken.is_ok() {
            *state = State::Taken;
            drop(state);
            self.changed.notify_all();
        }
        taken
    }

    /// Takes it back from whoever could still take it; none when it is gone.
    pub(crate) fn withdraw(&self) -> Option<BuiltStandby> {
        let mut state = self.state();
        match std::mem::take(&mut *state) {
            State::Ready(standby) => Some(standby),
            other => {
                *state = other;
                None
            }
        }
    }

    /// Wakes the thread that keeps it, which looks whether it is still wanted.
    pub(crate) fn wake(&self) {
        // Under the lock, so that it is not between its look and its wait.
        let _state = self.state();
        self.changed.notify_all();
    }

    /// Blocks for `time` at most; whether somebody has taken it.
    pub(crate) fn wait_taken(&self, time: Duration, stop: impl Fn() -> bool) -> bool {
        let waiting = |state: &mut State| !matches!(state, State::Taken) && !stop();
        let waited = self.changed.wait_timeout_while(self.state(), time, waiting);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        matches!(*state, State::Taken)
    }
}
