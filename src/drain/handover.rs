// SPDX-License-Identifier: LGPL-2.1-or-later
//! Memory on its way from the crashed domain to the recovery domain.
//!
//! The rule that makes "no extra memory" true: recovery never gets more pages
//! than the crashed domain has given back. And what recovery has not got yet is
//! claimed, so that no other domain grabs it.

use std::sync::Arc;
use std::time::Duration;

use crate::host::{CrashedDomain, RecoveryDomain};
use crate::limits::cancel::Cancel;
use crate::limits::monitor::Monitor;
use crate::told::event::RecoveryEvent;
use crate::told::log::JobLog;

/// Pages that are worth a call to the hypervisor: one superpage.
const GROW_BATCH: u64 = 512;
/// How often a drain that is paused looks whether the caller has cancelled.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Claimed by another process: no number that anybody claims.
const UNKNOWN: u64 = u64::MAX;

#[derive(Default)]
struct State {
    released: u64,
    /// Pages that building the recovery domain took, pool included.
    spent: u64,
    granted: u64,
    claimed: u64,
    /// Nothing is claimed any more: there is nobody to keep it for, or the
    /// hypervisor refused.
    unclaimable: bool,
    recovery: Option<Arc<dyn RecoveryDomain>>,
    /// The account is closed.
    ended: bool,
    /// The drain waits.
    paused: bool,
    /// The crashed domain has no device left.
    detached: bool,
    drained: bool,
    /// Nobody is left who would let the drain go on.
    free: bool,
}

impl State {
    /// Released pages that recovery has not got yet.
    fn surplus(&self) -> u64 {
        self.released
            .saturating_sub(self.spent)
            .saturating_sub(self.granted)
    }
}

/// The account of released and granted pages.
pub(crate) struct Handover<'a> {
    crashed: &'a dyn CrashedDomain,
    log: &'a JobLog,
    cancel: &'a Cancel,
    state: Monitor<State>,
}

impl<'a> Handover<'a> {
    /// The account of what `crashed` gives back. Once the caller has cancelled,
    /// nothing holds that up.
    pub(crate) fn new(crashed: &'a dyn CrashedDomain, log: &'a JobLog, cancel: &'a Cancel) -> Self {
        Self {
            crashed,
            log,
            cancel,
            state: Monitor::default(),
        }
    }

    /// Takes up an account that another process kept: so many pages were released, and
    /// nobody knows how many are claimed.
    pub(crate) fn resume(&self, released: u64) {
        self.state.update(|state| {
            state.released = released;
            state.claimed = UNKNOWN;
        });
    }

    /// Of the pages that were released before, building the recovery domain has taken
    /// `spent`, and it got `granted` since.
    pub(crate) fn account(&self, spent: u64, granted: u64) {
        self.state
            .update(|state| (state.spent, state.granted) = (spent, granted));
    }

    /// Books pages that the hypervisor took back, and passes on what has added
    /// up.
    pub(crate) fn add_released(&self, pages: u64) {
        self.state.update(|state| {
            state.released += pages;
            self.pass_on(state, GROW_BATCH);
        });
    }

    /// Waits until `pages` are released; false when the drain ended first.
    pub(crate) fn wait_released(&self, pages: u64) -> bool {
        self.state
            .wait_while(|state| state.released < pages && !state.drained)
            .released
            >= pages
    }

    /// Building the recovery domain takes `pages` of the released ones from now
    /// on: their claim is given up, since it is not the new domain's.
    pub(crate) fn spend(&self, pages: u64) {
        let mut state = self.state.lock();
        state.spent = pages;
        let surplus = state.surplus();
        self.claim(&mut state, surplus);
    }

    /// The recovery domain is there.
    pub(crate) fn adopt(&self, recovery: Arc<dyn RecoveryDomain>) {
        let mut state = self.state.lock();
        state.recovery = Some(recovery);
        self.pass_on(&mut state, 1);
    }

    /// There is no recovery domain any more.
    pub(crate) fn abandon(&self) {
        let mut state = self.state.lock();
        state.recovery = None;
        self.let_go(&mut state);
    }

    /// The crashed domain has lost its last device: its memory may go.
    pub(crate) fn detached(&self) {
        self.state.update(|state| state.detached = true);
    }

    /// Blocks until the crashed domain has lost its last device.
    pub(crate) fn wait_detached(&self) {
        drop(
            self.state
                .wait_while(|state| !state.detached && !state.free),
        );
    }

    /// Makes the drain wait: while recovery is being built or boots, processor and
    /// disk are recovery's.
    pub(crate) fn pause_drain(&self) {
        self.set_drain_paused(true);
    }

    /// Lets the drain go on.
    pub(crate) fn resume_drain(&self) {
        self.set_drain_paused(false);
    }

    /// Makes the drain wait or lets it go on.
    pub(crate) fn set_drain_paused(&self, paused: bool) {
        self.state.update(|state| state.paused = paused);
    }

    /// Blocks while the drain is paused, unless the caller cancels.
    pub(crate) fn wait_resumed(&self) {
        let mut state = self.state.lock();
        while state.paused && !state.free && !self.cancel.is_asked() {
            state = self.state.wait(state, Some(LOOK_AGAIN));
        }
    }

    /// Lets the drain go for good when it is dropped: whoever could have paused it, or
    /// have let it go, is no more.
    pub(crate) fn freed_at_end(&self) -> FreedAtEnd<'_> {
        FreedAtEnd(self)
    }

    /// Says when it is dropped that everything that could be released has been.
    pub(crate) fn drained_at_end(&self) -> DrainedAtEnd<'_> {
        DrainedAtEnd(self)
    }

    /// Whether everything that could be released has been.
    pub(crate) fn is_drained(&self) -> bool {
        self.state.lock().drained
    }

    /// Nothing is passed on any more: the claim is given up, while the crashed domain
    /// is there to give it up for.
    pub(crate) fn end(&self) {
        let mut state = self.state.lock();
        // Once: what is refused ends with the crashed domain, which may be gone later.
        if !std::mem::replace(&mut state.ended, true) {
            self.let_go(&mut state);
        }
    }

    /// Gives recovery what has been released since, once that is worth a call;
    /// until then it is claimed.
    fn pass_on(&self, state: &mut State, least: u64) {
        let surplus = state.surplus();
        let Some(recovery) = state.recovery.clone().filter(|_| surplus >= least) else {
            return self.claim(state, surplus);
        };
        self.claim(state, 0);
        if recovery.grow(surplus).is_ok() {
            state.granted += surplus;
        } else if recovery.exists() {
            // The pages stay in the account for the next try, and whatever is left
            // is granted when the crashed domain is gone.
            self.claim(state, surplus);
        } else {
            // What comes after it needs them free.
            self.let_go(state);
        }
    }

    fn let_go(&self, state: &mut State) {
        self.claim(state, 0);
        state.unclaimable = true;
    }

    /// Sees to it that `pages` are claimed, no more and no less.
    fn claim(&self, state: &mut State, pages: u64) {
        // What is claimed can be given up also when no more can be claimed.
        if state.claimed == pages || state.unclaimable && pages > 0 {
            return;
        }
        match self.crashed.claim(pages) {
            Ok(()) => state.claimed = pages,
            Err(error) => {
                if !std::mem::replace(&mut state.unclaimable, true) {
                    self.log.tell(RecoveryEvent::NotReserved { error });
                }
            }
        }
    }
}

impl Drop for Handover<'_> {
    fn drop(&mut self) {
        self.end();
    }
}

/// See [`Handover::freed_at_end`].
pub(crate) struct FreedAtEnd<'a>(&'a Handover<'a>);

impl Drop for FreedAtEnd<'_> {
    fn drop(&mut self) {
        self.0.state.update(|state| state.free = true);
    }
}

/// See [`Handover::drained_at_end`].
pub(crate) struct DrainedAtEnd<'a>(&'a Handover<'a>);

impl Drop for DrainedAtEnd<'_> {
    fn drop(&mut self) {
        self.0.state.update(|state| {
            state.drained = true;
            self.0.pass_on(state, 1);
        });
    }
}

#[cfg(test)]
pub(crate) mod tests;
