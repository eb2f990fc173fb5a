// SPDX-License-Identifier: LGPL-2.1-or-later
//! What the threads of one execution have done so far, in a number for each: whose steps
//! met at which things, and in which order there. Where these numbers are equal, the
//! threads stand at the same places and see the same values, in whichever order steps
//! were taken that do not meet.

use std::cell::{Cell, RefCell};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

thread_local! {
    /// All threads of an execution are one of the system's.
    static THREADS: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
    /// How often each was chosen.
    static STEPS: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
    /// The next choice is none: nobody else could see a difference.
    static STAYS: Cell<bool> = const { Cell::new(false) };
}

fn mix(a: u64, b: u64) -> u64 {
    let product = u128::from(a ^ 0x9e37_79b9_7f4a_7c15) * u128::from(b ^ 0xd1b5_4a32_d192_ed03);
    (product as u64 ^ (product >> 64) as u64).rotate_left(17)
        ^ a.wrapping_mul(0xff51_afd7_ed55_8ccd)
}

/// The number of the thread that runs; what `change` makes of it is its next one.
fn own(change: impl FnOnce(u64) -> u64) -> u64 {
    let task = usize::from(shuttle::current::me());
    THREADS.with_borrow_mut(|threads| {
        if threads.len() <= task {
            threads.resize(task + 1, 0);
        }
        threads[task] = change(threads[task]);
        threads[task]
    })
}

/// Something that steps of threads meet at.
pub(super) struct Met(AtomicU64);

impl Met {
    /// Made by the thread that runs.
    pub(super) fn new() -> Self {
        Self(AtomicU64::new(own(|own| mix(own, 1))))
    }

    /// The thread that runs has done something to it.
    pub(super) fn touch(&self) {
        let before = self.0.load(Relaxed);
        self.0.store(own(|own| mix(mix(own, 2), before)), Relaxed);
    }
}

/// What a thread that is started now begins with.
pub(super) fn start() -> u64 {
    own(|own| mix(own, 3))
}

/// The thread that runs was started with this.
pub(super) fn started(with: u64) {
    own(|_| mix(with, 4));
}

/// Nothing has been done yet.
pub(super) fn reset() {
    THREADS.with_borrow_mut(Vec::clear);
    STEPS.with_borrow_mut(Vec::clear);
    STAYS.set(false);
}

/// A thread takes a step, which may be one that meets nothing: it wakes, or it ends.
pub(super) fn chosen(task: usize) {
    STEPS.with_borrow_mut(|steps| {
        if steps.len() <= task {
            steps.resize(task + 1, 0);
        }
        steps[task] += 1;
    });
}

/// What all threads have done.
pub(super) fn fingerprint() -> u64 {
    let all = |of: &RefCell<Vec<u64>>| of.borrow().iter().fold(5, |all, own| mix(all, *own));
    mix(THREADS.with(all), STEPS.with(all))
}

/// Does something that the others see no sooner than the thread's next step.
pub(super) fn staying<T>(work: impl FnOnce() -> T) -> T {
    STAYS.set(true);
    let done = work();
    STAYS.set(false);
    done
}

/// Whether the thread that runs goes on, this time.
pub(super) fn stays() -> bool {
    STAYS.take()
}
