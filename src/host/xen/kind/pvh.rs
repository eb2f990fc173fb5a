// SPDX-License-Identifier: LGPL-2.1-or-later
//! PVH guests: hardware virtualisation without a device model.

use super::super::allowed::{Allowed::*, Keys, OFF};
use super::ram::split;
use crate::addr::GfnRange;

/// As libxl calls the kind.
pub(super) const NAME: &str = "pvh";

/// A PVH guest's part of the build information.
pub(super) const KEYS: Keys = &[
    (
        "type.pvh",
        Inside(&[
            ("pvshim", OFF),
            ("pvshim_path", Any),
            ("pvshim_cmdline", Any),
            ("pvshim_extra", Any),
        ]),
    ),
    ("device_model_version", Any),
    ("dm_restrict", Any),
];

/// The hole for devices below 4 GiB (`relied_on::pvh_ram`).
const HOLE_KIB: u64 = 64 << 10;

/// RAM begins at 0. The special pages (xenstore, console and what Xen shares with the
/// guest) are in the hole, and so they are never given back
/// (`relied_on::pod_keeps_what_it_lacks`).
pub(super) fn ram(full_kib: u64) -> Vec<GfnRange> {
    split(full_kib, HOLE_KIB)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::Gfn;

    #[test]
    fn memory_that_does_not_fit_below_the_hole_goes_on_at_4_gib() {
        let low = GfnRange::new(Gfn(0), Gfn(0xfc000));
        assert_eq!(ram(0xfc000 * 4), [low]);
        let high = GfnRange::new(Gfn(0x10_0000), Gfn(0x10_0001));
        assert_eq!(ram(0xfc001 * 4), [low, high]);
    }
}
