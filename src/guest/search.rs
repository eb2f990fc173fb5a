// SPDX-License-Identifier: LGPL-2.1-or-later
//! Looking for a kernel's description of itself page by page: the last resort.

use crate::addr::{Gfn, GfnRange, PAGE_SHIFT};

use super::candidate::{Candidate, PROBE};
use super::looked::Looked;
use super::memory::GuestMemory;

/// Frames at which Linux's zones DMA32 and Normal begin (16 MiB and 4 GiB,
/// `arch/x86/include/asm/dma.h`). Early in boot it takes memory from the start
/// of the highest zone, so a copy is likely to be soon after one of these.
const ZONE_STARTS: [u64; 2] = [1 << (32 - PAGE_SHIFT), 1 << (24 - PAGE_SHIFT)];

/// Frames from there on that are probed before all others (64 MiB).
const LIKELY: u64 = 1 << (26 - PAGE_SHIFT);

/// Frames that are probed before it is the next place's turn (2 MiB).
const TURN: u64 = 1 << (21 - PAGE_SHIFT);

/// Runs of RAM of which the ends count as likely, at most.
const LIKELY_RUNS: usize = 16;

/// Frames that are probed before the caller is asked again.
const BETWEEN: u64 = 256;

/// What a search came to.
pub(super) struct Searched {
    /// Pages that were looked at.
    pub(super) looked: Looked,
    /// Whether the search was ended before all of memory was looked at, and nothing found.
    pub(super) ended: bool,
}

/// Looks at the starts of pages where a copy is likely, then at those of all others
/// in ascending order, each once. Ends when `found` says so of a page that looks like
/// a description, or `stop` says so.
pub(super) fn search(
    mem: &dyn GuestMemory,
    stop: &dyn Fn() -> bool,
    found: &mut dyn FnMut(Candidate) -> bool,
) -> Searched {
    let mut looked = Looked::default();
    let everything = GfnRange::new(Gfn(0), mem.end());
    for part in likely(mem.ram()).chain([everything]) {
        for range in mem.ram() {
            let common = GfnRange::new(range.start.max(part.start), range.end.min(part.end));
            for missing in looked.missing(common) {
                let mut next = missing.start;
                while next < missing.end {
                    if stop() {
                        return Searched {
                            looked,
                            ended: true,
                        };
                    }
                    let end = missing.end.min(Gfn(next.0.saturating_add(BETWEEN)));
                    let frames = GfnRange::new(next, end);
                    let hit = frames
                        .iter()
                        .find(|&gfn| probe(mem, gfn).is_some_and(&mut *found));
                    let end = hit.map_or(end, |gfn| Gfn(gfn.0 + 1));
                    looked.add(GfnRange::new(next, end));
                    if hit.is_some() {
                        return Searched {
                            looked,
                            ended: false,
                        };
                    }
                    next = end;
                }
            }
        }
    }
    Searched {
        looked,
        ended: false,
    }
}

fn probe(mem: &dyn GuestMemory, gfn: Gfn) -> Option<Candidate> {
    let mut start = [0; PROBE];
    mem.read(gfn.as_pfn().address()?, &mut start).ok()?;
    Candidate::judge(gfn, &start)
}

/// Frames where a copy is likely, the likeliest first: from the start of a zone on,
/// or, in Xen's PVH guests, from the end of RAM back. Nothing tells which of these
/// places it is, so they take turns.
fn likely(ram: &[GfnRange]) -> impl Iterator<Item = GfnRange> + '_ {
    (0..LIKELY / TURN).flat_map(move |nth| {
        let ends = ram.iter().rev().take(LIKELY_RUNS).map(move |range| {
            let end = Gfn(range.end.0.saturating_sub(nth * TURN));
            GfnRange::new(Gfn(end.0.saturating_sub(TURN)), end)
        });
        let starts = ZONE_STARTS.map(|zone| {
            let start = zone + nth * TURN;
            GfnRange::new(Gfn(start), Gfn(start + TURN))
        });
        ends.chain(starts)
    })
}
