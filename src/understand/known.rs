// SPDX-License-Identifier: LGPL-2.1-or-later
//! What is known about a guest before anything is changed.

use std::sync::Arc;

use crate::addr::{Gfn, GfnRange, Pfn};
use crate::dump::{Bitmap, Bitmaps, Facts};
use crate::error::Error;
use crate::guest::plan::Plan;
use crate::guest::verdict::Verdict;
use crate::host::{Access, CrashedDomain};
use crate::journal::Untouched;

/// What is known about the guest before anything is changed.
pub(crate) struct Understanding {
    /// What the dump says beside memory.
    pub facts: Facts,
    /// Which pages there are and which to dump.
    pub bitmaps: Arc<Bitmaps>,
    /// All of RAM in pieces, in the order in which it is dumped.
    pub chunks: Vec<GfnRange>,
    /// The verdict on every page.
    pub(crate) plan: Plan,
    /// What an earlier process has found out about pages, in place of the plan.
    pub(super) before: Option<Before>,
}

/// What an earlier process has found out about pages.
pub(super) struct Before {
    pub(super) untouched: Untouched,
    /// Which pages that process wanted in the dump.
    pub(super) bitmaps: Arc<Bitmaps>,
}

impl Understanding {
    /// Pages of `range` that are to be dumped.
    pub(crate) fn wanted_in(&self, range: GfnRange) -> u64 {
        self.bitmaps
            .wanted()
            .count_range(range.start.as_pfn(), range.end.as_pfn())
    }

    /// Whether a page may be written to. Broken memory may not: it may bring the host
    /// down.
    pub(crate) fn may_touch(&self, gfn: Gfn) -> bool {
        match &self.before {
            None => self.plan.verdict(gfn) != Verdict::Poisoned,
            Some(before) => {
                let was_wanted = before.bitmaps.wanted().get(gfn.as_pfn());
                !before.untouched.has(gfn, was_wanted)
            }
        }
    }

    /// The pages that may not be written to.
    pub(crate) fn untouched(&self) -> Untouched {
        match &self.before {
            None => Untouched::of(self.plan.runs_of(Verdict::Poisoned)),
            Some(before) => before.untouched.clone(),
        }
    }

    /// Leaves pages out that are not there any more.
    pub(crate) fn forget_absent(&mut self, domain: &dyn CrashedDomain) -> Result<(), Error> {
        let mut wanted = self.bitmaps.wanted().clone();
        for range in &self.chunks {
            let Ok(mapping) = domain.map(*range, Access::Read) else {
                continue;
            };
            for (index, gfn) in range.iter().enumerate() {
                if !mapping.is_present(index) {
                    let pfn = gfn.as_pfn();
                    wanted.clear_range(pfn, Pfn(pfn.0 + 1));
                }
            }
        }
        let present = self.bitmaps.present().clone();
        self.bitmaps = Arc::new(Bitmaps::new(present, wanted).map_err(Error::DumpStart)?);
        Ok(())
    }

    /// Dumps no more than so many pages, the most useful ones. The dump's level says
    /// what kinds of pages are not all in it.
    pub(crate) fn keep_most_useful(&mut self, pages: u64) -> Result<(), Error> {
        let before = self.bitmaps.wanted();
        let mut wanted = Bitmap::new(before.limit()).map_err(Error::DumpStart)?;
        let mut level = self.plan.level();
        let mut left = pages;
        for range in self.plan.by_usefulness() {
            let (start, end) = (range.start.as_pfn(), range.end.as_pfn());
            let count = before.count_range(start, end);
            let cut = before.nth_in_range(start, end, left);
            wanted.copy_range(before, start, cut.unwrap_or(end));
            left = left.saturating_sub(count);
            if cut.is_some() {
                level = level.with(self.plan.verdict(range.start).part().unwrap_or(0));
            }
        }
        let present = self.bitmaps.present().clone();
        self.facts.dump_level = u32::from(level.get());
        self.bitmaps = Arc::new(Bitmaps::new(present, wanted).map_err(Error::DumpStart)?);
        Ok(())
    }
}
