// SPDX-License-Identifier: LGPL-2.1-or-later
//! Where RAM is around the holes that x86 has for devices.

use super::super::libxl::KIB_PER_PAGE;
use crate::addr::{Gfn, GfnRange};

/// 4 GiB, the end of the hole, as a frame.
const HOLE_END: u64 = 1 << 20;

/// RAM of this size from address 0 on, around a hole of `hole_kib` below 4 GiB.
pub(super) fn split(ram_kib: u64, hole_kib: u64) -> Vec<GfnRange> {
    let pages = ram_kib / KIB_PER_PAGE;
    let low = pages.min(HOLE_END.saturating_sub(hole_kib / KIB_PER_PAGE));
    let mut ranges = vec![GfnRange::new(Gfn(0), Gfn(low))];
    if pages > low {
        let high_end = HOLE_END.saturating_add(pages - low);
        ranges.push(GfnRange::new(Gfn(HOLE_END), Gfn(high_end)));
    }
    ranges
}

/// What of ascending ranges lies outside a hole.
pub(super) fn without(hole: GfnRange, ranges: &[GfnRange]) -> Vec<GfnRange> {
    let parts = ranges.iter().flat_map(|range| {
        [
            GfnRange::new(range.start, range.end.min(hole.start)),
            GfnRange::new(range.start.max(hole.end), range.end),
        ]
    });
    parts.filter(|part| !part.is_empty()).collect()
}
