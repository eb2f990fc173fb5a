// SPDX-License-Identifier: LGPL-2.1-or-later
//! What the in-memory host remembers of each frame of its guest.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::OnceLock;

use crate::addr::Gfn;

/// Words of marks that are there together, or not yet: those of 1 GiB.
const BLOCK: u64 = 4096;

/// One bit for each frame, set once, by any thread, without a lock: pages are
/// read too often for one. Takes memory only where there are marks.
pub(super) struct Marks(Vec<OnceLock<Box<[AtomicU64]>>>);

impl Marks {
    pub(super) fn new(end: Gfn) -> Self {
        let blocks = end.0.div_ceil(64 * BLOCK);
        Self((0..blocks).map(|_| OnceLock::new()).collect())
    }

    pub(super) fn get(&self, gfn: Gfn) -> bool {
        let word = gfn.0 / 64;
        let block = self.0.get((word / BLOCK) as usize).and_then(OnceLock::get);
        let word = block.map(|block| block[(word % BLOCK) as usize].load(Ordering::Acquire));
        word.is_some_and(|word| word >> (gfn.0 % 64) & 1 == 1)
    }

    /// Sets a mark; false when it was set, or there is no such frame.
    pub(super) fn set(&self, gfn: Gfn) -> bool {
        let (word, bit) = (gfn.0 / 64, 1 << (gfn.0 % 64));
        let Some(block) = self.0.get((word / BLOCK) as usize) else {
            return false;
        };
        let block = block.get_or_init(|| (0..BLOCK).map(|_| AtomicU64::new(0)).collect());
        block[(word % BLOCK) as usize].fetch_or(bit, Ordering::AcqRel) & bit == 0
    }

    pub(super) fn count(&self) -> u64 {
        let ones = |word: &AtomicU64| u64::from(word.load(Ordering::Acquire).count_ones());
        let blocks = self.0.iter().filter_map(OnceLock::get);
        blocks.flat_map(|block| block.iter()).map(ones).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_set_once_and_counted_wherever_they_are() {
        let marks = Marks::new(Gfn(3 * 64 * BLOCK + 1));
        let frames = [0, 63, 64, 64 * BLOCK, 3 * 64 * BLOCK].map(Gfn);
        assert!(frames.iter().all(|gfn| !marks.get(*gfn)));
        assert!(frames.iter().all(|gfn| marks.set(*gfn)));
        assert!(frames.iter().all(|gfn| marks.get(*gfn) && !marks.set(*gfn)));
        assert_eq!(marks.count(), 5);
        let beyond = Gfn(4 * 64 * BLOCK);
        assert!(!marks.set(beyond) && !marks.get(beyond));
    }
}
