// SPDX-License-Identifier: LGPL-2.1-or-later
//! PVH guests: hardware virtualisation without a device model.
//!
//! They start on less than their memory by populate-on-demand (PoD): the guest sees
//! all of it, and Xen takes a page from the domain's cache when the guest touches an
//! address for the first time. So nothing is needed from the guest, and the cache
//! must never be empty.

use super::super::allowed::{Allowed::*, Keys, Reasons, OFF};
use super::super::control::Control;
use super::super::store::Store;
use crate::addr::{Gfn, GfnRange, PAGE_SIZE};
use crate::host::{Backing, HostError};

/// As libxl calls the kind.
pub(super) const NAME: &str = "pvh";

/// A PVH guest's part of the build information.
pub(super) const KEYS: Keys = &[(
    "type.pvh",
    Inside(&[
        ("pvshim", OFF),
        ("pvshim_path", Any),
        ("pvshim_cmdline", Any),
        ("pvshim_extra", Any),
    ]),
)];

const POD: &str = "excludes populate-on-demand, which recovery needs";
/// libxl and Xen refuse PoD together with these.
pub(super) const REASONS: Reasons = &[("vnuma_nodes", POD), ("altp2m", POD), ("passthrough", POD)];

/// Where RAM below 4 GiB ends (`relied_on::pvh_ram`).
const LOW_RAM_END: u64 = 0xfc00_0000;
const FOUR_GIB: u64 = 1 << 32;

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

/// RAM begins at 0. The special pages (xenstore, console and what Xen shares with the
/// guest) are above [`LOW_RAM_END`], and so they are never given back
/// (`relied_on::pod_keeps_what_it_lacks`).
pub(super) fn ram(full_kib: u64) -> Vec<GfnRange> {
    let bytes = full_kib.saturating_mul(1024);
    let page = PAGE_SIZE as u64;
    let low = bytes.min(LOW_RAM_END);
    let mut ranges = vec![GfnRange::new(Gfn(0), Gfn(low / page))];
    if bytes > low {
        let high_end = FOUR_GIB.saturating_add(bytes - low);
        ranges.push(GfnRange::new(Gfn(FOUR_GIB / page), Gfn(high_end / page)));
    }
    ranges
}

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
pub(super) fn kept_frame(control: &Control, domid: u32) -> Result<Gfn, HostError> {
    control.store_frame(domid)
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

/// Linux waits at its start until it has its target (`relied_on::balloon_waits`). With
/// the target at the maximum there is nothing to wait for.
pub(super) fn tell_target(store: &Store, domid: u32, full_kib: u64) -> Result<(), HostError> {
    let memory = format!("/local/domain/{domid}/memory");
    let most = store.read(&format!("{memory}/static-max"))?;
    let most = most.unwrap_or_else(|| full_kib.to_string());
    store.write(&format!("{memory}/target"), &most)
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
    fn memory_that_does_not_fit_below_the_hole_goes_on_at_4_gib() {
        let low = GfnRange::new(Gfn(0), Gfn(0xfc000));
        assert_eq!(ram(0xfc000 * 4), [low]);
        let high = GfnRange::new(Gfn(0x10_0000), Gfn(0x10_0001));
        assert_eq!(ram(0xfc001 * 4), [low, high]);
    }

    #[test]
    fn a_successor_starts_with_what_it_takes_to_boot_and_never_with_more_than_all() {
        assert_eq!(first_kib(1 << 20, 0), (128 << 10) + (32 << 10));
        assert_eq!(first_kib(1 << 20, 1 << 20), (128 << 10) + (32 << 10) + 4096);
        assert_eq!(first_kib(1 << 20, 1 << 10) % LARGE_PAGE_KIB, 0);
        assert_eq!(first_kib(64 << 10, 0), 64 << 10);
    }
}
