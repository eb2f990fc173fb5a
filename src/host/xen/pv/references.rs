// SPDX-License-Identifier: LGPL-2.1-or-later
//! What holds a PV guest's pages: Xen counts every entry of a page table that is in force
//! as a use of the page, and gives back none that is used.

use super::super::control::Control;
use super::tables::PageType;
use crate::addr::Mfn;
use crate::host::HostError;
use crate::limits::bounded::MOST_VCPUS;

/// How many page tables Xen is asked about, or has unpinned, at once.
const BATCH: usize = 512;

/// Puts every page table of a domain out of force: those that its processors run on, and
/// those that the guest has pinned. `tables` are the pages that may be pinned.
///
/// # Errors
/// When Xen refuses. What was done stays done.
pub(super) fn drop_all(control: &Control, domid: u32, tables: &[Mfn]) -> Result<(), HostError> {
    let highest = control.domain_info(domid)?.max_vcpu_id.min(MOST_VCPUS - 1);
    (0..=highest).try_for_each(|vcpu| control.reset_vcpu(domid, vcpu))?;
    for batch in tables.chunks(BATCH) {
        let types = control.page_types(domid, batch)?;
        let is_pinned = |(_, said): &(&Mfn, u64)| {
            let is = PageType::of(*said);
            matches!(
                is,
                PageType::Table {
                    is_pinned: true,
                    ..
                }
            )
        };
        let pinned: Vec<Mfn> = batch
            .iter()
            .zip(types)
            .filter(is_pinned)
            .map(|(mfn, _)| *mfn)
            .collect();
        control.unpin(domid, &pinned)?;
    }
    Ok(())
}
