//! Giving a standby the disks and interfaces of the guest that it stands by.
//!
//! An interface may be there while the guest still has its own: as long as the
//! standby is stopped, its frontend does not connect, netback keeps the carrier
//! off, and the bridge sends nothing there. A disk may not: one writer.
#![allow(unsafe_code)]

use std::path::Path;
use std::thread;

use super::config::{libxl_answer, text_of, CrashConfig, LibxlContext};
use super::{joined, sys};
use crate::host::HostError;

/// The hotplug script that libxl runs when the configuration names none. It adds
/// the interface to a bridge and does nothing that a second one would be in the
/// way of; others set routes to the guest's address.
const BRIDGE_SCRIPT: &str = "vif-bridge";

/// Whether a standby gets the interfaces while it waits, instead of at the crash.
/// All of them or none.
pub(super) fn nics_come_early(config: &CrashConfig) -> bool {
    config.nics().iter().all(comes_early)
}

fn comes_early(nic: &sys::libxl_device_nic) -> bool {
    let script = text_of(nic.script).and_then(|script| Path::new(script).file_name());
    let is_bridged = nic.script.is_null() || script == Some(BRIDGE_SCRIPT.as_ref());
    let is_ours = nic.backend_domid == 0 && nic.backend_domname.is_null();
    // Two interfaces cannot have one name in this domain.
    is_bridged && is_ours && nic.ifname.is_null()
}

/// Gives it what it gets at the crash: the disks, and the interfaces that did not
/// come early. Each kind has its own thread: most of the time goes into hotplug
/// scripts.
pub(super) fn attach(ctx: LibxlContext, config: &CrashConfig, domid: u32) -> Result<(), HostError> {
    let disks = config.duplicate(ctx);
    if nics_come_early(config) {
        return attach_disks(ctx, disks, domid);
    }
    let nics = config.duplicate(ctx);
    thread::scope(|scope| {
        let nics = scope.spawn(move || attach_nics(ctx, nics, domid));
        let disks = attach_disks(ctx, disks, domid);
        disks.and(joined("attach", nics))
    })
}

fn attach_disks(ctx: LibxlContext, mut config: CrashConfig, domid: u32) -> Result<(), HostError> {
    for disk in config.disks_mut() {
        // SAFETY: a disk of our own copy; null `ao_how` makes it synchronous.
        let rc = unsafe { sys::libxl_device_disk_add(ctx.raw(), domid, disk, std::ptr::null()) };
        libxl_answer("libxl_device_disk_add", rc)?;
    }
    Ok(())
}

/// Gives it the interfaces of `config`. It must be stopped until the guest's own
/// cannot send any more.
pub(super) fn attach_nics(
    ctx: LibxlContext,
    mut config: CrashConfig,
    domid: u32,
) -> Result<(), HostError> {
    for nic in config.nics_mut() {
        // SAFETY: an interface of our own copy; null `ao_how` makes it synchronous.
        let rc = unsafe { sys::libxl_device_nic_add(ctx.raw(), domid, nic, std::ptr::null()) };
        libxl_answer("libxl_device_nic_add", rc)?;
    }
    Ok(())
}
