// SPDX-License-Identifier: LGPL-2.1-or-later
//! Disks and interfaces as libxl describes them, each on its own, so that calls on
//! several can be under way at once.
#![allow(unsafe_code)]

use std::path::Path;

use super::libxl::{libxl_answer, text_of, LibxlContext};
use super::sys;
use crate::host::HostError;

/// The hotplug script that libxl runs when the configuration names none. It adds
/// the interface to a bridge and does nothing that a second one would be in the
/// way of; others set routes to the guest's address.
const BRIDGE_SCRIPT: &str = "vif-bridge";

/// Formats of disks that QEMU alone knows.
const QEMUS_FORMATS: [sys::libxl_disk_format; 4] = [
    sys::LIBXL_DISK_FORMAT_QCOW,
    sys::LIBXL_DISK_FORMAT_QCOW2,
    sys::LIBXL_DISK_FORMAT_VHD,
    sys::LIBXL_DISK_FORMAT_QED,
];

/// A copy of a disk's description.
pub(super) struct Disk(Box<sys::libxl_device_disk>);

// SAFETY: a deep copy that nobody else points into.
unsafe impl Send for Disk {}

impl Disk {
    pub(super) fn copy(ctx: LibxlContext, disk: &sys::libxl_device_disk) -> Self {
        let mut copy = Box::<sys::libxl_device_disk>::default();
        // SAFETY: the target is ours, the source initialised and only read.
        unsafe {
            sys::libxl_device_disk_init(&mut *copy);
            sys::libxl_device_disk_copy(ctx.raw(), &mut *copy, disk);
        }
        Self(copy)
    }

    /// All disks that a domain has, whoever gave them to it.
    pub(super) fn all_of(ctx: LibxlContext, domid: u32) -> Vec<Self> {
        let mut count = 0;
        // SAFETY: libxl returns `count` disks that we own until they are freed.
        unsafe {
            let disks = sys::libxl_device_disk_list(ctx.raw(), domid, &mut count);
            let all = (0..usize::try_from(count).unwrap_or(0))
                .map(|index| Self::copy(ctx, &*disks.add(index)))
                .collect();
            if !disks.is_null() {
                sys::libxl_device_disk_list_free(disks, count);
            }
            all
        }
    }

    /// What the guest calls the disk: `xvda`.
    pub(super) fn name(&self) -> &str {
        text_of(self.0.vdev).unwrap_or_default()
    }

    /// What is served: a device or a file.
    pub(super) fn path(&self) -> Option<&str> {
        text_of(self.0.pdev_path)
    }

    /// Whether the guest may write to the disk.
    pub(super) fn is_writable(&self) -> bool {
        self.0.readwrite != 0
    }

    /// Whether QEMU serves the disk, or will.
    pub(super) fn is_qemus(&self) -> bool {
        is_qemus(&self.0)
    }

    /// Whether the disk has a hotplug script of the operator's.
    pub(super) fn has_script(&self) -> bool {
        !self.0.script.is_null()
    }

    /// The disk's number in xenstore.
    pub(super) fn number(&self, ctx: LibxlContext, domid: u32) -> Result<i32, HostError> {
        let mut info = sys::libxl_diskinfo::default();
        // SAFETY: initialised by libxl, filled by libxl, disposed of here.
        let (rc, number) = unsafe {
            sys::libxl_diskinfo_init(&mut info);
            let rc = sys::libxl_device_disk_getinfo(ctx.raw(), domid, &*self.0, &mut info);
            let number = info.devid;
            sys::libxl_diskinfo_dispose(&mut info);
            (rc, number)
        };
        libxl_answer("libxl_device_disk_getinfo", rc).map(|()| number)
    }

    /// Gives the disk to a domain.
    pub(super) fn add(&mut self, ctx: LibxlContext, domid: u32) -> Result<(), HostError> {
        // SAFETY: our own copy; null `ao_how` makes it synchronous.
        let rc =
            unsafe { sys::libxl_device_disk_add(ctx.raw(), domid, &mut *self.0, std::ptr::null()) };
        libxl_answer("libxl_device_disk_add", rc)
    }

    /// Takes the disk from a domain by force.
    pub(super) fn destroy(&mut self, ctx: LibxlContext, domid: u32) -> Result<(), HostError> {
        // SAFETY: as in `add`.
        let rc = unsafe {
            sys::libxl_device_disk_destroy(ctx.raw(), domid, &mut *self.0, std::ptr::null())
        };
        libxl_answer("libxl_device_disk_destroy", rc)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // SAFETY: initialised in `copy`, disposed of once.
        unsafe { sys::libxl_device_disk_dispose(&mut *self.0) };
    }
}

/// Whether QEMU serves a disk of this description, or will. A configuration says so only
/// where it was asked for (`relied_on::choices_are_not_kept`), and else the format does
/// (`relied_on::raw_disks_are_blkbacks`).
pub(super) fn is_qemus(disk: &sys::libxl_device_disk) -> bool {
    match disk.backend {
        sys::LIBXL_DISK_BACKEND_QDISK => true,
        sys::LIBXL_DISK_BACKEND_UNKNOWN => QEMUS_FORMATS.contains(&disk.format),
        _ => false,
    }
}

/// A copy of an interface's description.
pub(super) struct Nic(Box<sys::libxl_device_nic>);

// SAFETY: as for disks.
unsafe impl Send for Nic {}

impl Nic {
    pub(super) fn copy(ctx: LibxlContext, nic: &sys::libxl_device_nic) -> Self {
        let mut copy = Box::<sys::libxl_device_nic>::default();
        // SAFETY: as for disks.
        unsafe {
            sys::libxl_device_nic_init(&mut *copy);
            sys::libxl_device_nic_copy(ctx.raw(), &mut *copy, nic);
        }
        Self(copy)
    }

    /// All interfaces that a domain has, whoever gave them to it.
    pub(super) fn all_of(ctx: LibxlContext, domid: u32) -> Vec<Self> {
        let mut count = 0;
        // SAFETY: as for disks.
        unsafe {
            let nics = sys::libxl_device_nic_list(ctx.raw(), domid, &mut count);
            let all = (0..usize::try_from(count).unwrap_or(0))
                .map(|index| Self::copy(ctx, &*nics.add(index)))
                .collect();
            if !nics.is_null() {
                sys::libxl_device_nic_list_free(nics, count);
            }
            all
        }
    }

    /// The interface's number in xenstore.
    pub(super) fn number(&self) -> i32 {
        self.0.devid
    }

    /// Gives the interface to a domain.
    pub(super) fn add(&mut self, ctx: LibxlContext, domid: u32) -> Result<(), HostError> {
        // SAFETY: as for disks.
        let rc =
            unsafe { sys::libxl_device_nic_add(ctx.raw(), domid, &mut *self.0, std::ptr::null()) };
        libxl_answer("libxl_device_nic_add", rc)
    }

    /// Takes the interface from a domain by force.
    pub(super) fn destroy(&mut self, ctx: LibxlContext, domid: u32) -> Result<(), HostError> {
        // SAFETY: as for disks.
        let rc = unsafe {
            sys::libxl_device_nic_destroy(ctx.raw(), domid, &mut *self.0, std::ptr::null())
        };
        libxl_answer("libxl_device_nic_destroy", rc)
    }
}

impl Drop for Nic {
    fn drop(&mut self) {
        // SAFETY: as for disks.
        unsafe { sys::libxl_device_nic_dispose(&mut *self.0) };
    }
}

/// Whether two domains can have an interface of this description at once: its
/// script is in nobody's way, and it has no name of its own in this domain.
pub(super) fn can_be_twice(nic: &sys::libxl_device_nic) -> bool {
    let script = text_of(nic.script).and_then(|script| Path::new(script).file_name());
    let is_bridged = nic.script.is_null() || script == Some(BRIDGE_SCRIPT.as_ref());
    let is_ours = nic.backend_domid == 0 && nic.backend_domname.is_null();
    is_bridged && is_ours && nic.ifname.is_null()
}
