// SPDX-License-Identifier: LGPL-2.1-or-later
//! What an earlier process has found out about a guest, from what it left.

use std::sync::Arc;

use super::chunks::in_order;
use super::known::{Before, Understanding};
use super::mapped::MappedMemory;
use crate::addr::Gfn;
use crate::dump::{Bitmap, Bitmaps, Facts, Unfinished};
use crate::error::Error;
use crate::guest::doubt::Doubt;
use crate::guest::plan::Plan;
use crate::guest::verdict::DumpLevel;
use crate::host::CrashedDomain;
use crate::journal::Untouched;

/// What is left to do with a guest of which a part is in `dump`.
pub(crate) fn remembered(
    domain: &dyn CrashedDomain,
    dump: &Unfinished,
    untouched: Untouched,
) -> Result<Understanding, Error> {
    let bitmaps = dump.bitmaps();
    let mut wanted = bitmaps.wanted().clone();
    for (start, end) in dump.stored().runs() {
        wanted.clear_range(start, end);
    }
    with(domain, bitmaps, wanted, untouched)
}

/// What is left to do with a guest of which nothing more is to be dumped.
pub(crate) fn nothing_wanted(
    domain: &dyn CrashedDomain,
    untouched: Untouched,
) -> Result<Understanding, Error> {
    let end = domain.ram().last().map_or(Gfn(0), |range| range.end);
    let mut present = Bitmap::new(end.as_pfn()).map_err(Error::DumpStart)?;
    for range in domain.ram() {
        present.set_range(range.start.as_pfn(), range.end.as_pfn());
    }
    let none = Bitmap::new(end.as_pfn()).map_err(Error::DumpStart)?;
    let bitmaps = Bitmaps::new(present, none.clone()).map_err(Error::DumpStart)?;
    with(domain, &Arc::new(bitmaps), none, untouched)
}

fn with(
    domain: &dyn CrashedDomain,
    before: &Arc<Bitmaps>,
    wanted: Bitmap,
    untouched: Untouched,
) -> Result<Understanding, Error> {
    let doubt = Doubt::Failed("the kernel was found by an earlier process".into());
    let plan = Plan::everything(&MappedMemory::new(domain), DumpLevel::ALL_PAGES, doubt);
    let present = before.present().clone();
    Ok(Understanding {
        facts: Facts::default(),
        bitmaps: Arc::new(Bitmaps::new(present, wanted).map_err(Error::DumpStart)?),
        chunks: in_order(domain.ram(), &plan),
        plan,
        before: Some(Before {
            untouched,
            bitmaps: before.clone(),
        }),
    })
}
