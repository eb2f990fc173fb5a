// SPDX-License-Identifier: LGPL-2.1-or-later
//! Which frames were looked at, so that each is counted once.

use crate::addr::{Gfn, GfnRange};

/// A set of frames, as ascending ranges that do not touch.
#[derive(Clone, Default)]
pub(super) struct Looked(Vec<GfnRange>);

impl Looked {
    /// Which of the ranges a range touches.
    fn touched(&self, range: GfnRange) -> std::ops::Range<usize> {
        let first = self.0.partition_point(|have| have.end < range.start);
        let after = self.0.partition_point(|have| have.start <= range.end);
        first..after.max(first)
    }

    /// What of a range is not in the set.
    pub(super) fn missing(&self, range: GfnRange) -> Vec<GfnRange> {
        let mut missing = Vec::new();
        let mut next = range.start;
        for have in &self.0[self.touched(range)] {
            missing.push(GfnRange::new(next, have.start.min(range.end)));
            next = next.max(have.end);
        }
        missing.push(GfnRange::new(next, range.end));
        missing.retain(|range| !range.is_empty());
        missing
    }

    pub(super) fn add(&mut self, range: GfnRange) {
        if range.is_empty() {
            return;
        }
        let touched = self.touched(range);
        let mut whole = range;
        for have in &self.0[touched.clone()] {
            whole = GfnRange::new(whole.start.min(have.start), whole.end.max(have.end));
        }
        self.0.splice(touched, [whole]);
    }

    pub(super) fn add_all(&mut self, other: &Self) {
        other.0.iter().for_each(|range| self.add(*range));
    }

    pub(super) fn add_page(&mut self, gfn: Gfn) {
        self.add(GfnRange::new(gfn, Gfn(gfn.0 + 1)));
    }

    /// Number of frames in the set.
    pub(super) fn count(&self) -> u64 {
        self.0.iter().map(GfnRange::len).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_looked_at_counts_once() {
        let mut looked = Looked::default();
        let range = |start, end| GfnRange::new(Gfn(start), Gfn(end));
        for (added, missing, count) in [
            (range(10, 20), vec![range(10, 20)], 10),
            (range(30, 40), vec![range(30, 40)], 20),
            (range(12, 18), vec![], 20),
            (range(20, 30), vec![range(20, 30)], 30),
            (range(50, 60), vec![range(50, 60)], 40),
            (range(7, 7), vec![], 40),
            (
                range(0, 100),
                vec![range(0, 10), range(40, 50), range(60, 100)],
                100,
            ),
        ] {
            assert_eq!(looked.missing(added), missing, "{added:?}");
            looked.add(added);
            assert_eq!(looked.missing(added), []);
            assert_eq!(looked.count(), count, "{added:?}");
        }
        assert_eq!(looked.0, [range(0, 100)]);
    }

    #[test]
    fn ranges_that_touch_become_one() {
        let range = |start, end| GfnRange::new(Gfn(start), Gfn(end));
        let mut looked = Looked::default();
        for part in [range(10, 20), range(30, 40), range(50, 60)] {
            looked.add(part);
        }
        looked.add(range(20, 22));
        looked.add(range(28, 30));
        assert_eq!(looked.0, [range(10, 22), range(28, 40), range(50, 60)]);
        looked.add_page(Gfn(41));
        looked.add_page(Gfn(40));
        assert_eq!(looked.0, [range(10, 22), range(28, 42), range(50, 60)]);
        let mut other = Looked::default();
        other.add(range(0, 5));
        other.add(range(22, 28));
        looked.add_all(&other);
        assert_eq!(looked.0, [range(0, 5), range(10, 42), range(50, 60)]);
        looked.add(range(45, 45));
        assert_eq!(looked.0.len(), 3);
    }
}
