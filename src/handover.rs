//! Memory on its way from the crashed domain to the recovery domain.
//!
//! The rule that makes "no extra memory" true: recovery never gets more pages
//! than the crashed domain has given back.

use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use crate::host::RecoveryDomain;

/// Pages that are worth a call to the hypervisor: one superpage.
const GROW_BATCH: u64 = 512;

#[derive(Default)]
struct State {
    released: u64,
    /// Pages that building the recovery domain took, pool included.
    spent: u64,
    granted: u64,
    recovery: Option<Arc<dyn RecoveryDomain>>,
    held: bool,
    drained: bool,
}

/// The account of released and granted pages.
#[derive(Default)]
pub(crate) struct Handover {
    state: Mutex<State>,
    changed: Condvar,
}

impl Handover {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn wait_while(&self, busy: impl Fn(&State) -> bool) -> MutexGuard<'_, State> {
        let mut state = self.state();
        while busy(&state) {
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(|poisoned| poisoned.into_inner());
        }
        state
    }

    /// Books pages that the hypervisor took back, and passes on what has added
    /// up.
    pub(crate) fn add_released(&self, pages: u64) {
        let mut state = self.state();
        state.released += pages;
        pass_on(&mut state, GROW_BATCH);
        drop(state);
        self.changed.notify_all();
    }

    /// Waits until `pages` are released; false when the drain ended first.
    pub(crate) fn wait_released(&self, pages: u64) -> bool {
        self.wait_while(|state| state.released < pages && !state.drained)
            .released
            >= pages
    }

    /// The recovery domain is there and took `spent` of the released pages.
    pub(crate) fn adopt(&self, recovery: Arc<dyn RecoveryDomain>, spent: u64) {
        let mut state = self.state();
        state.spent = spent;
        state.recovery = Some(recovery);
        pass_on(&mut state, 1);
    }

    /// There is no recovery domain any more.
    pub(crate) fn abandon(&self) {
        self.state().recovery = None;
    }

    /// Makes the drain wait (while recovery is being built or boots, processor
    /// and disk are its), or lets it go on.
    pub(crate) fn hold(&self, held: bool) {
        let before = std::mem::replace(&mut self.state().held, held);
        if before != held {
            self.changed.notify_all();
        }
    }

    /// Blocks while the drain is held.
    pub(crate) fn wait_not_held(&self) {
        drop(self.wait_while(|state| state.held));
    }

    /// Everything that could be released has been.
    pub(crate) fn end_drain(&self) {
        let mut state = self.state();
        state.drained = true;
        pass_on(&mut state, 1);
        drop(state);
        self.changed.notify_all();
    }
}

fn pass_on(state: &mut State, least: u64) {
    let Some(recovery) = state.recovery.clone() else {
        return;
    };
    let surplus = state
        .released
        .saturating_sub(state.spent)
        .saturating_sub(state.granted);
    if surplus < least {
        return;
    }
    // A refusal is no loss: the pages stay in the account for the next try, and
    // whatever is left is granted when the crashed domain is gone.
    if recovery.grow(surplus).is_ok() {
        state.granted += surplus;
    }
}
