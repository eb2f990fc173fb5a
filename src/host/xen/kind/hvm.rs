// SPDX-License-Identifier: LGPL-2.1-or-later
//! HVM guests: hardware virtualisation with a device model, which is QEMU.
//!
//! QEMU maps the guest's memory, has every disk open beside its backend, and holds the
//! guest's sockets. So its end comes first of all (`device_model.rs`).

use super::super::allowed::{Allowed::*, Keys, Reasons, OFF};
use super::ram::{split, without};
use crate::addr::{Gfn, GfnRange};

/// As libxl calls the kind.
pub(super) const NAME: &str = "hvm";

/// An HVM guest's part of the build information.
pub(super) const KEYS: Keys = &[
    ("type.hvm", Inside(HARDWARE)),
    ("device_model_version", Only(&["qemu_xen"])),
    // QEMU's user may have left more processes behind than the one that libxl knows.
    ("dm_restrict", OFF),
];

const HARDWARE: Keys = &[
    ("firmware", Any),
    ("bios", Any),
    ("pae", Any),
    ("apic", Any),
    ("acpi", Any),
    ("acpi_s3", Any),
    ("acpi_s4", Any),
    ("acpi_laptop_slate", Any),
    ("nx", Any),
    ("viridian", Any),
    ("viridian_enable", Any),
    ("viridian_disable", Any),
    ("timeoffset", Any),
    ("hpet", Any),
    ("vpt_align", Any),
    ("mmio_hole_memkb", Any),
    ("timer_mode", Any),
    ("nested_hvm", OFF),
    ("altp2m", OFF),
    ("system_firmware", Any),
    ("smbios_firmware", Any),
    ("smbios", Any),
    ("acpi_firmware", Any),
    ("hdtype", Any),
    ("nographic", Any),
    ("vga", Any),
    ("vnc", Any),
    ("keymap", Any),
    ("sdl", Any),
    ("spice", Any),
    ("gfx_passthru", OFF),
    ("gfx_passthru_kind", Any),
    ("serial", Any),
    ("boot", Any),
    ("usb", Any),
    ("usbversion", Any),
    ("usbdevice", Without("host:")),
    ("vkb_device", Any),
    ("soundhw", Any),
    ("xen_platform_pci", Any),
    ("usbdevice_list", Without("host:")),
    ("vendor_device", Any),
    ("ms_vm_genid", Any),
    ("serial_list", Any),
    (
        "rdm",
        Inside(&[("strategy", Only(&["ignore"])), ("policy", Any)]),
    ),
    ("rdm_mem_boundary_memkb", Any),
    ("mca_caps", Any),
    ("pirq", Any),
];

/// Reasons beside those of populate-on-demand.
pub(super) const REASONS: Reasons = &[
    (
        "device_model_version",
        "must be \"qemu-xen\": others move the guest's memory",
    ),
    (
        "dm_restrict",
        "leaves nobody who can tell that QEMU has ended",
    ),
];

/// Where RAM below 4 GiB ends when no larger hole is asked for (`relied_on::hvm_ram`).
const LEAST_HOLE_KIB: u64 = 256 << 10;
/// The frames of the graphics adapter below 1 MiB.
const VGA: GfnRange = GfnRange {
    start: Gfn(0xa0),
    end: Gfn(0xc0),
};

/// RAM begins at 0, and memory of the graphics adapter is none of it. What hvmloader, QEMU
/// and Xen put into the hole below 4 GiB, special pages included, is not the guest's to
/// give back.
pub(super) fn ram(full_kib: u64, video_kib: u64, hole_kib: u64) -> Vec<GfnRange> {
    let ram_kib = full_kib.saturating_sub(video_kib);
    without(VGA, &split(ram_kib, hole_kib.max(LEAST_HOLE_KIB)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(start: u64, end: u64) -> GfnRange {
        GfnRange::new(Gfn(start), Gfn(end))
    }

    #[test]
    fn ram_is_around_the_adapters_frames_and_the_hole_for_devices() {
        let low = range(0, 0xa0);
        assert_eq!(ram(1 << 20, 8 << 10, 0), [low, range(0xc0, 0x3_f800)]);
        let gib = |count: u64| count << 18;
        let rest = range(gib(4), gib(5) + gib(1) / 4);
        assert_eq!(ram(5 << 20, 0, 0), [low, range(0xc0, 0xf_0000), rest]);
        let rest = range(gib(4), gib(6));
        assert_eq!(ram(5 << 20, 0, 1 << 20), [low, range(0xc0, gib(3)), rest]);
    }
}
