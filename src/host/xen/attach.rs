// SPDX-License-Identifier: LGPL-2.1-or-later
//! Giving a domain, while it is stopped, the disks and interfaces of the guest that
//! it takes the place of.
//!
//! An interface may be there while the guest still has its own: as long as the
//! domain is stopped, its frontend does not connect, netback keeps the carrier off,
//! and the bridge sends nothing there. A disk may not: one writer.
//!
//! An interface's hotplug script need not have ended when the domain starts. The
//! guest only has to find the interface when it looks, and can use it (Linux 6.1,
//! `drivers/net/xen-netfront.c`, `netback_changed`); what it sends is lost until the
//! script has added the other end to a bridge. So a script that is late, whatever
//! for, costs neither the domain nor its memory.
//!
//! A disk can be used as soon as blkback has its block device, whose numbers it waits
//! for in xenstore. libxl's hotplug script finds them out, makes sure that nobody
//! else has the device, and writes them; and it does nothing when it finds them there
//! (Xen 4.17, `tools/hotplug/Linux/block`). As it takes longer than all the rest, a
//! block device's numbers are written here, under the script's own lock and after its
//! look at what other domains have. Its look at what dom0 has mounted is left out: the
//! guest had the device until a moment ago.

use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use super::background::{Background, Call};
use super::config::CrashConfig;
use super::devices::Nic;
use super::hotplug_lock::HotplugLock;
use super::libxl::LibxlContext;
use super::store::Store;
use crate::host::HostError;

/// Where blkback's devices are in xenstore: `DOMID/DEVID`.
const BACKENDS: &str = "/local/domain/0/backend/vbd";
/// What blkback waits for there.
const NUMBERS: &str = "physical-device";
/// XenbusStateInitWait: the backend's driver is there and waits.
const WAITS: &str = "2";
/// How long a backend may take for a step.
const DEADLINE: Duration = Duration::from_secs(10);
/// sysfs cannot be waited on, so it and xenstore are read this often.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Gives a domain the disks that `crashed` has had, and the interfaces on request.
/// When this returns the disks can be used and the interfaces be found; what comes
/// back are libxl's calls, whose scripts go on.
pub(super) fn attach(
    ctx: LibxlContext,
    store: &Store,
    config: &CrashConfig,
    (domid, crashed): (u32, u32),
    with_nics: bool,
) -> Result<Background, HostError> {
    let mut calls = Background::default();
    attach_disks(ctx, store, config, (domid, crashed), &mut calls)?;
    if with_nics {
        // Their scripts take processors, and the domain can start without them.
        for nic in config.nics_of(ctx) {
            let node = format!("/local/domain/{domid}/device/vif/{}/state", nic.number());
            let call = Call::start(move || attach_nic(ctx, nic, domid))?;
            let shown = wait(&call, "an interface does not appear", || store.read(&node));
            calls.push(call);
            shown?;
        }
    }
    Ok(calls)
}

fn attach_disks(
    ctx: LibxlContext,
    store: &Store,
    config: &CrashConfig,
    (domid, crashed): (u32, u32),
    calls: &mut Background,
) -> Result<(), HostError> {
    for mut disk in config.disks_of(ctx) {
        let (name, device) = (disk.name().to_string(), disk.block_device());
        if device.is_some() {
            // The crashed domain has let go of it. Its trace would make the script
            // say that the device is in use.
            if let Some(node) = backend(store, crashed, &name)? {
                store.remove(&format!("{node}/{NUMBERS}"))?;
            }
        }
        let call = Call::start(move || disk.add(ctx, domid))?;
        let Some((path, numbers)) = device else {
            call.join()?;
            continue;
        };
        let connected = Connecting {
            store,
            domid,
            call: &call,
        }
        .connect(&name, &path, &numbers);
        calls.push(call);
        connected?;
    }
    Ok(())
}

/// Gives it an interface. When libxl ends the script for taking too long, the guest
/// loses the interface and gets it anew: better than none.
fn attach_nic(ctx: LibxlContext, mut nic: Nic, domid: u32) -> Result<(), HostError> {
    nic.add(ctx, domid).or_else(|_| {
        nic.destroy(ctx, domid)?;
        nic.add(ctx, domid)
    })
}

/// Gives it interfaces. It must be stopped until the guest's own cannot send any
/// more.
pub(super) fn attach_nics(ctx: LibxlContext, nics: Vec<Nic>, domid: u32) -> Result<(), HostError> {
    nics.into_iter().try_for_each(|mut nic| nic.add(ctx, domid))
}

/// A disk that libxl is adding.
struct Connecting<'a> {
    store: &'a Store,
    domid: u32,
    call: &'a Call,
}

impl Connecting<'_> {
    /// Tells the disk's backend its block device once it waits for that, and waits
    /// until it has it.
    fn connect(&self, name: &str, path: &str, numbers: &str) -> Result<(), HostError> {
        let node = wait(self.call, "its backend does not appear", || {
            let Some(node) = backend(self.store, self.domid, name)? else {
                return Ok(None);
            };
            let state = self.store.read(&format!("{node}/state"))?;
            Ok((state.as_deref() == Some(WAITS)).then_some(node))
        })?;
        self.take(&node, path, numbers)?;
        let device = node.rsplit('/').next().unwrap_or_default();
        let of = format!("/sys/bus/xen-backend/devices/vbd-{}-{device}", self.domid);
        let taken = PathBuf::from(of).join("physical_device");
        wait(self.call, "its backend does not take it", || {
            Ok(taken.exists().then_some(()))
        })
    }

    /// Writes what the script would, unless another domain has the device. As
    /// nobody else looks and writes meanwhile, at most one domain gets it.
    fn take(&self, node: &str, path: &str, numbers: &str) -> Result<(), HostError> {
        let _lock = HotplugLock::claim("block")?;
        no_other_has(self.store, numbers, self.domid)?;
        for (key, value) in [
            ("physical-device-path", path),
            ("hotplug-status", "connected"),
            (NUMBERS, numbers),
        ] {
            self.store.write(&format!("{node}/{key}"), value)?;
        }
        Ok(())
    }
}

/// Looks until there is something; not beyond a failure of libxl's.
fn wait<T>(
    call: &Call,
    why_not: &str,
    look: impl Fn() -> Result<Option<T>, HostError>,
) -> Result<T, HostError> {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let over = call.is_over() || Instant::now() >= deadline;
        if let Some(found) = look()? {
            return Ok(found);
        }
        if over {
            return Err(HostError::new("attach", why_not));
        }
        thread::sleep(LOOK_AGAIN);
    }
}

/// Where the backend of a domain's disk is in xenstore, by what the guest calls it.
fn backend(store: &Store, domid: u32, name: &str) -> Result<Option<String>, HostError> {
    let parent = format!("{BACKENDS}/{domid}");
    for device in store.list(&parent)? {
        let node = format!("{parent}/{device}");
        if store.read(&format!("{node}/dev"))?.as_deref() == Some(name) {
            return Ok(Some(node));
        }
    }
    Ok(None)
}

/// Refuses a block device that a domain other than `domid` has.
fn no_other_has(store: &Store, numbers: &str, domid: u32) -> Result<(), HostError> {
    for other in store.list(BACKENDS)? {
        if other == domid.to_string() {
            continue;
        }
        for device in store.list(&format!("{BACKENDS}/{other}"))? {
            let node = format!("{BACKENDS}/{other}/{device}/{NUMBERS}");
            if store.read(&node)?.as_deref() == Some(numbers) {
                return Err(HostError::new(
                    "attach",
                    format!("block device {numbers} is domain {other}'s, too"),
                ));
            }
        }
    }
    Ok(())
}
