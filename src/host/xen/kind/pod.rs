// SPDX-License-Identifier: LGPL-2.1-or-later
//! Guests on hardware virtualisation: memory that is populated on demand.
//!
//! They start on less than their memory by populate-on-demand (PoD): the guest sees
//! all of it, and Xen takes a page from the domain's cache when the guest touches an
//! address for the first time. So nothing is needed from the guest, and the cache
//! must never be empty.

use super::super::allowed::Reasons;
use super::super::control::Control;
use super::super::foreign::FrameName;
use super::super::store::Store;
use crate::addr::PAGE_SIZE;
use crate::host::{Backing, HostError};

const POD: &str = "excludes populate-on-demand, which recovery needs";
/// libxl and Xen refuse PoD together with these.
pub(super) const REASONS: Reasons = &[("vnuma_nodes", POD), ("altp2m", POD), ("passthrough", POD)];

/// What a Linux guest needs to boot, whatever its size: unpacked kernel, early
/// allocations, first programs. KiB.
const BOOT_KIB: u64 = 128 << 10;
/// Page descriptors and other tables that grow with memory: 1.6 % for `struct
/// page` alone, so one part in 32.
const TABLES_SHARE: u64 = 32;
/// A ramdisk is loaded, then unpacked beside itself.
const RAMDISK_FACTOR: u64 = 4;
/// PoD hands memory out in whole pages of 2 MiB. KiB.
const LARGE_PAGE_KIB: u64 = 2048;

/// Fills the cache until it covers every address that has no page yet.
pub(super) fn make_whole(control: &Control, domid: u32) -> Result<(), HostError> {
    let backing = backing(control, domid)?;
    let missing = backing.missing();
    if missing > 0 && missing <= control.free_pages()? {
        set_backing(control, domid, backing.total.saturating_add(missing))?;
    }
    Ok(())
}

/// Every address must have a page, or one in the cache: to map one that Xen cannot back
/// ends the domain (`relied_on::pod_ends_guest`), and what such a domain gives back
/// stays its own (`relied_on::pod_keeps_what_it_lacks`).
pub(super) fn check_mappable(control: &Control, domid: u32) -> Result<(), HostError> {
    match backing(control, domid)?.missing() {
        0 => Ok(()),
        missing => Err(HostError::new(
            "xc_domain_get_pod_target",
            format!("domain {domid} still lacks memory for {missing} of its pages"),
        )),
    }
}

/// The frame through which the domain talks to xenstore.
pub(super) fn kept_frame(control: &Control, domid: u32) -> Result<FrameName, HostError> {
    control.store_frame(domid).map(|gfn| FrameName(gfn.0))
}

/// Asks for a state of the domain, which Xen then refuses
/// (`relied_on::dying_is_not_saved`).
pub(super) fn check_not_dying(control: &Control, domid: u32) -> Result<(), HostError> {
    control.save_mtrr(domid)
}

/// What it takes to boot, in whole large pages.
pub(super) fn first_kib(full_kib: u64, ramdisk_bytes: u64) -> u64 {
    let need = BOOT_KIB + full_kib / TABLES_SHARE + RAMDISK_FACTOR * (ramdisk_bytes >> 10);
    need.next_multiple_of(LARGE_PAGE_KIB).min(full_kib)
}

/// Tells `domid` the target that `model`, a domain of the same guest, has been told. Linux
/// waits at its start until it has given back what is beyond (`relied_on::balloon_waits`),
/// so the target that libxl has written, which is what backs the domain at first, would
/// have it do without the rest. Where the guest has all its memory there is nothing to
/// wait for.
pub(super) fn tell_target(store: &Store, domid: u32, model: u32) -> Result<(), HostError> {
    let own = format!("/local/domain/{domid}/memory");
    let target = match store.read(&format!("/local/domain/{model}/memory/target"))? {
        Some(target) => Some(target),
        None => store.read(&format!("{own}/static-max"))?,
    };
    target.map_or(Ok(()), |target| {
        store.write(&format!("{own}/target"), &target)
    })
}

/// Whether the target that a domain has been told is below all its memory, so that its
/// guest gives pages back as soon as it has a balloon driver.
pub(super) fn gives_back(store: &Store, domid: u32) -> Result<bool, HostError> {
    let kib = |node: &str| -> Result<Option<u64>, HostError> {
        let text = store.read(&format!("/local/domain/{domid}/memory/{node}"))?;
        Ok(text.and_then(|text| text.parse().ok()))
    };
    Ok(matches!((kib("target")?, kib("static-max")?), (Some(target), Some(most)) if target < most))
}

/// Pages in the cache are what the guest may still touch.
pub(super) fn backing(control: &Control, domid: u32) -> Result<Backing, HostError> {
    control.pod_target(domid)
}

/// Raises the PoD target, which fills the cache.
pub(super) fn set_backing(control: &Control, domid: u32, pages: u64) -> Result<Backing, HostError> {
    control.set_pod_target(domid, pages)
}

/// Takes pages from the paging pool, where there are more than nested paging needs
/// (`relied_on::paging_pool_is_large`).
pub(super) fn take_surplus(control: &Control, domid: u32, pages: u64) -> Result<(), HostError> {
    control.shrink_paging_pool(domid, pages)
}

/// Pages that the domain's pool has fewer than the `pool_kib` that it was built with.
pub(super) fn surplus_taken(
    control: &Control,
    domid: u32,
    pool_kib: u64,
) -> Result<u64, HostError> {
    let missing = (pool_kib << 10).saturating_sub(control.paging_pool_bytes(domid)?);
    Ok(missing / PAGE_SIZE as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_successor_starts_with_what_it_takes_to_boot_and_never_with_more_than_all() {
        assert_eq!(first_kib(1 << 20, 0), (128 << 10) + (32 << 10));
        assert_eq!(first_kib(1 << 20, 1 << 20), (128 << 10) + (32 << 10) + 4096);
        assert_eq!(first_kib(1 << 20, 1 << 10) % LARGE_PAGE_KIB, 0);
        assert_eq!(first_kib(64 << 10, 0), 64 << 10);
    }
}
