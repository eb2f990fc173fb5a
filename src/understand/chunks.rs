// SPDX-License-Identifier: LGPL-2.1-or-later
//! RAM in pieces, in the order in which it is dumped.

use crate::addr::{Gfn, GfnRange};
use crate::guest::plan::Plan;

/// Frames of a chunk: 2 MiB. A mapping cannot be released in part, so this is
/// also what is given back at once.
const CHUNK_FRAMES: u64 = 512;

/// Places of memory that chunks are taken from in turn.
const PLACES: usize = 16;

/// All chunks of RAM: those with the pages to dump first, in the plan's order; then
/// the others with pages to dump, from all over memory, since much of it is alike: a
/// disk would have nothing to do while pages of zeroes are found, and then too much;
/// then the rest.
pub(super) fn in_order(ram: &[GfnRange], plan: &Plan) -> Vec<GfnRange> {
    let all: Vec<GfnRange> = ram.iter().flat_map(|range| chunks_of(*range)).collect();
    let chunk_of = |gfn: Gfn| all.partition_point(|chunk| chunk.end <= gfn);
    let chunks_with = |range: &GfnRange| match range.is_empty() {
        true => 0..0,
        false => chunk_of(range.start)..chunk_of(Gfn(range.end.0 - 1)) + 1,
    };
    let mut taken = vec![false; all.len()];
    let mut not_taken = |index: &usize| !std::mem::replace(&mut taken[*index], true);

    let first = plan.first_parts().iter().flat_map(|(_, ranges)| ranges);
    let mut order: Vec<usize> = first.flat_map(chunks_with).filter(&mut not_taken).collect();
    let others: Vec<usize> = plan
        .kept()
        .flat_map(|range| chunks_with(&range))
        .filter(&mut not_taken)
        .collect();
    order.extend(in_turn(&others, PLACES));
    order.extend((0..all.len()).filter(not_taken));
    order.into_iter().map(|index| all[index]).collect()
}

/// The items, one from each of so many equal parts in turn.
fn in_turn(items: &[usize], parts: usize) -> impl Iterator<Item = usize> + '_ {
    let length = items.len().div_ceil(parts).max(1);
    (0..length).flat_map(move |step| {
        let parts = items.chunks(length);
        parts.filter_map(move |part| part.get(step).copied())
    })
}

/// Cuts a range at multiples of the chunk size.
fn chunks_of(range: GfnRange) -> impl Iterator<Item = GfnRange> {
    let first = range.start.0 / CHUNK_FRAMES;
    let last = range.end.0.div_ceil(CHUNK_FRAMES);
    (first..last).map(move |chunk| {
        let start = (chunk * CHUNK_FRAMES).max(range.start.0);
        let end = (chunk * CHUNK_FRAMES + CHUNK_FRAMES).min(range.end.0);
        GfnRange::new(Gfn(start), Gfn(end))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_in_turn_is_taken_once_and_from_everywhere() {
        for count in [0, 1, 5, 16, 17, 100] {
            let items: Vec<usize> = (0..count).collect();
            let mut order: Vec<usize> = in_turn(&items, 4).collect();
            if count == 100 {
                assert_eq!(order[..5], [0, 25, 50, 75, 1]);
            }
            order.sort_unstable();
            assert_eq!(order, items);
        }
    }

    #[test]
    fn chunks_cover_a_range_exactly_once() {
        let range = GfnRange::new(Gfn(100), Gfn(1500));
        let chunks: Vec<GfnRange> = chunks_of(range).collect();
        assert_eq!(chunks.first().unwrap().start, range.start);
        assert_eq!(chunks.last().unwrap().end, range.end);
        assert!(chunks.windows(2).all(|pair| pair[0].end == pair[1].start));
        assert_eq!(chunks.len(), 3);
    }
}
