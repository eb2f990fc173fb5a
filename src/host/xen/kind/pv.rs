// SPDX-License-Identifier: LGPL-2.1-or-later
//! PV guests: Xen translates none of their memory (`super::super::pv`), and they know how
//! much they have.
//!
//! They start on less than their memory with the rest ballooned out. More is for them to
//! take, once they are told that they may; so nothing is spent before it is there, and no
//! guest is ever short of what it believes to have.

use std::time::Duration;

use super::super::allowed::{Allowed::*, Keys, OFF};
use super::super::control::Control;
use super::super::foreign::FrameName;
use super::super::libxl::KIB_PER_PAGE;
use super::super::look::{look_until, Patience};
use super::super::store::Store;
use super::pod;
use crate::addr::{Gfn, GfnRange};
use crate::host::{Backing, HostError};

/// As libxl calls the kind.
pub(super) const NAME: &str = "pv";

/// A PV guest's part of the build information.
pub(super) const KEYS: Keys = &[
    (
        "type.pv",
        Inside(&[
            ("kernel", Any),
            ("slack_memkb", Any),
            ("bootloader", Any),
            ("bootloader_args", Any),
            ("cmdline", Any),
            ("ramdisk", Any),
            ("features", Any),
            // Where its RAM is would be the host's matter.
            ("e820_host", OFF),
        ]),
    ),
    ("device_model_version", Any),
    ("dm_restrict", Any),
];

/// Why there is no standby for a guest of this kind.
pub(super) const NO_STANDBY: &str =
    "a PV guest that waits for its disk cannot be told from one that is short of memory";

/// A guest can have so many times as much memory as it starts with, or a little less
/// (`relied_on::pv_grows_tenfold`).
const MOST_GROWTH: u64 = 10;
/// Bytes of an address of the guests that are known.
const WIDTH: u32 = 8;
/// How long a guest may take to take memory that it was told of.
const TAKING: Duration = Duration::from_secs(30);

/// RAM is all that the guest may have.
pub(super) fn ram(full_kib: u64) -> Vec<GfnRange> {
    vec![GfnRange::new(Gfn(0), Gfn(full_kib / KIB_PER_PAGE))]
}

/// Only the layout of 64-bit guests is known.
pub(super) fn check_mappable(control: &Control, domid: u32) -> Result<(), HostError> {
    match control.guest_width(domid)? {
        WIDTH => Ok(()),
        bytes => Err(HostError::new(
            "xc_domain_get_guest_width",
            format!(
                "domain {domid} is a PV guest of {} bits; 64 are allowed",
                8 * bytes
            ),
        )),
    }
}

/// The page that Xen shares with the domain.
pub(super) fn kept_frame(control: &Control, domid: u32) -> Result<FrameName, HostError> {
    control
        .domain_info(domid)
        .map(|info| FrameName(info.shared_info_frame))
}

/// Asks a question that Xen does not answer for a dying domain.
pub(super) fn check_not_dying(control: &Control, domid: u32) -> Result<(), HostError> {
    match control.has_paging(domid)? {
        true => Ok(()),
        false => Err(HostError::new("xc_shadow_control", "it was not answered")),
    }
}

/// What it takes to boot, and to grow to all its memory.
pub(super) fn first_kib(full_kib: u64, ramdisk_bytes: u64) -> u64 {
    let least = full_kib
        .div_ceil(MOST_GROWTH)
        .next_multiple_of(KIB_PER_PAGE);
    pod::first_kib(full_kib, ramdisk_bytes).max(least)
}

/// Where a guest is told how much memory it may have.
fn target_node(domid: u32) -> String {
    format!("/local/domain/{domid}/memory/target")
}

/// What the guest has, or has been told that it may take.
pub(super) fn backing(control: &Control, store: &Store, domid: u32) -> Result<Backing, HostError> {
    let has = control.domain_info(domid)?.tot_pages;
    let told = store.read(&target_node(domid))?;
    let told = told.and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0);
    Ok(Backing {
        total: has.max(told / KIB_PER_PAGE),
        ..Backing::default()
    })
}

/// Lets the guest take memory until it has `pages`.
pub(super) fn set_backing(
    control: &Control,
    store: &Store,
    domid: u32,
    pages: u64,
) -> Result<Backing, HostError> {
    let kib = pages.saturating_mul(KIB_PER_PAGE);
    store.write(&target_node(domid), &kib.to_string())?;
    backing(control, store, domid)
}

/// Waits until the guest has taken what it was told of, and lets go of what it has not.
pub(super) fn end_growth(control: &Control, store: &Store, domid: u32) -> Result<(), HostError> {
    let patience = Patience {
        most: TAKING,
        between: Duration::from_millis(50),
    };
    let taken = look_until(patience, || {
        let has = control.domain_info(domid)?.tot_pages;
        let may = backing(control, store, domid)?.total;
        Ok((has >= may).then_some(()))
    });
    control.set_claim(domid, 0)?;
    taken.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_starts_with_a_tenth_at_least() {
        let gib = 1 << 20;
        assert_eq!(first_kib(gib, 0), pod::first_kib(gib, 0));
        let tenth = first_kib(64 * gib, 0);
        assert!(tenth * MOST_GROWTH >= 64 * gib && tenth % KIB_PER_PAGE == 0);
    }
}
