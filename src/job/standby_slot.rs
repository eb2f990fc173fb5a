// SPDX-License-Identifier: LGPL-2.1-or-later
//! Where the thread that keeps a standby and a recovery meet.

use std::time::Duration;

use crate::host::BuiltStandby;
use crate::limits::monitor::Monitor;

#[derive(Default)]
enum State {
    /// There is none yet, or none any more.
    #[default]
    Absent,
    /// A standby waits for the crash.
    Ready(BuiltStandby),
    /// A recovery has it.
    Taken,
}

/// Where the thread that keeps a standby and a recovery meet.
#[derive(Default)]
pub struct Slot {
    state: Monitor<State>,
}

impl Slot {
    pub(crate) fn offer(&self, standby: BuiltStandby) {
        self.state.update(|state| *state = State::Ready(standby));
    }

    /// Takes the standby for a recovery, when it was built from `recipe`; else says
    /// why not, and leaves it to its keeper.
    pub(crate) fn take(&self, recipe: &str) -> Result<BuiltStandby, &'static str> {
        self.state.update(|state| {
            let taken = match state {
                State::Ready(standby) if standby.recipe == recipe => standby.clone(),
                State::Ready(_) => {
                    return Err("the guest's configuration or boot files have changed")
                }
                State::Absent => return Err("it is not built yet"),
                State::Taken => return Err("an earlier crash took it"),
            };
            *state = State::Taken;
            Ok(taken)
        })
    }

    /// Takes it back from whoever could still take it; none when it is gone.
    pub(crate) fn withdraw(&self) -> Option<BuiltStandby> {
        self.state.update(|state| match std::mem::take(state) {
            State::Ready(standby) => Some(standby),
            other => {
                *state = other;
                None
            }
        })
    }

    /// Wakes the thread that keeps it, which looks whether it is still wanted.
    pub(crate) fn wake(&self) {
        self.state.wake();
    }

    /// Blocks for `time` at most; whether somebody has taken it.
    pub(crate) fn wait_taken(&self, time: Duration, stop: impl Fn() -> bool) -> bool {
        let waiting = |state: &mut State| !matches!(state, State::Taken) && !stop();
        let state = self.state.wait_at_most(time, waiting);
        matches!(*state, State::Taken)
    }
}
