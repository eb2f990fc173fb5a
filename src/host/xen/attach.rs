//! Giving a domain, while it is stopped, the disks and interfaces of the guest that
//! it takes the place of.
//!
//! An interface may be there while the guest still has its own: as long as the
//! domain is stopped, its frontend does not connect, netback keeps the carrier off,
//! and the bridge sends nothing there. A disk may not: one writer.
//!
//! A disk can be used as soon as blkback has its block device, whose numbers it waits
//! for in xenstore. libxl's hotplug script finds them out, makes sure that nobody
//! else has the device, and writes them; and it does nothing when it finds them there
//! (Xen 4.17, `tools/hotplug/Linux/block`). As it takes longer than all the rest, a
//! block device's numbers are written here. The crashed domain's backend is still in
//! xenstore then, so that for other domains the device was in use all the time.

use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use super::background::{Background, Call};
use super::config::{CrashConfig, LibxlContext};
use super::devices::{Disk, Nic};
use super::joined;
use super::store::Store;
use crate::host::HostError;

/// Where blkback's devices are in xenstore: `DOMID/DEVID`.
const BACKENDS: &str = "/local/domain/0/backend/vbd";
/// XenbusStateInitWait: the backend's driver is there and waits.
const WAITS: &str = "2";
/// How long a backend may take for a step.
const DEADLINE: Duration = Duration::from_secs(10);
/// sysfs cannot be waited on, so it and xenstore are read this often.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Gives a domain the disks, and `nics` on request. They can be used when this
/// returns; what comes back are libxl's calls, whose scripts go on. `crashed` had the
/// disks before.
pub(super) fn attach(
    ctx: LibxlContext,
    config: &CrashConfig,
    domid: u32,
    crashed: u32,
    with_nics: bool,
) -> Result<Background, HostError> {
    let nics = config.nics_of(ctx);
    thread::scope(|scope| {
        let nics = with_nics.then(|| scope.spawn(move || attach_nics(ctx, nics, domid)));
        let disks = attach_disks(ctx, config.disks_of(ctx), domid, crashed);
        let nics = nics.map_or(Ok(()), |nics| joined("attach", nics));
        nics.and(disks)
    })
}

fn attach_disks(
    ctx: LibxlContext,
    disks: Vec<Disk>,
    domid: u32,
    crashed: u32,
) -> Result<Background, HostError> {
    let mut calls = Background::default();
    // A connection to xenstore is for one thread.
    let store = Store::open()?;
    for mut disk in disks {
        let (name, device) = (disk.name().to_string(), disk.block_device());
        let call = Call::start(move || disk.add(ctx, domid))?;
        let Some((path, numbers)) = device else {
            call.join()?;
            continue;
        };
        let connecting = Connecting {
            store: &store,
            domid,
            call: &call,
        };
        let connected = connecting
            .node(&name)
            .and_then(|node| connecting.connect(&node, &path, &numbers))
            .and_then(|()| no_other_has(&store, &numbers, [domid, crashed]));
        calls.push(call);
        connected?;
    }
    Ok(calls)
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
    /// Its backend in xenstore, once the driver waits for the block device.
    fn node(&self, name: &str) -> Result<String, HostError> {
        let parent = format!("{BACKENDS}/{}", self.domid);
        self.wait("its backend does not appear", || {
            for device in self.store.list(&parent)? {
                let node = format!("{parent}/{device}");
                let is = |key: &str, value: &str| {
                    let found = self.store.read(&format!("{node}/{key}"));
                    found.map(|found| found.as_deref() == Some(value))
                };
                if is("dev", name)? && is("state", WAITS)? {
                    return Ok(Some(node));
                }
            }
            Ok(None)
        })
    }

    /// Tells the backend its block device, and waits until it has it.
    fn connect(&self, node: &str, path: &str, numbers: &str) -> Result<(), HostError> {
        let device = node.rsplit('/').next().unwrap_or_default();
        let of = format!("/sys/bus/xen-backend/devices/vbd-{}-{device}", self.domid);
        let taken = PathBuf::from(of).join("physical_device");
        for (key, value) in [
            ("physical-device", numbers),
            ("physical-device-path", path),
            ("hotplug-status", "connected"),
        ] {
            self.store.write(&format!("{node}/{key}"), value)?;
        }
        self.wait("its backend does not take it", || {
            Ok(taken.exists().then_some(()))
        })
    }

    /// Looks until there is something; not beyond a failure of libxl's.
    fn wait<T>(
        &self,
        why_not: &str,
        look: impl Fn() -> Result<Option<T>, HostError>,
    ) -> Result<T, HostError> {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let over = self.call.is_over() || Instant::now() >= deadline;
            if let Some(found) = look()? {
                return Ok(found);
            }
            if over {
                return Err(HostError::new("attach", why_not));
            }
            thread::sleep(LOOK_AGAIN);
        }
    }
}

/// Whoever writes a block device's numbers and then looks can not miss another who
/// does the same, so that of two at most one goes on; the hotplug script looks, then
/// writes, and the crashed domain's numbers are there until ours are.
fn no_other_has(store: &Store, numbers: &str, own: [u32; 2]) -> Result<(), HostError> {
    for domain in store.list(BACKENDS)? {
        if own.iter().any(|own| domain == own.to_string()) {
            continue;
        }
        for device in store.list(&format!("{BACKENDS}/{domain}"))? {
            let node = format!("{BACKENDS}/{domain}/{device}/physical-device");
            if store.read(&node)?.as_deref() == Some(numbers) {
                return Err(HostError::new(
                    "attach",
                    format!("block device {numbers} is domain {domain}'s, too"),
                ));
            }
        }
    }
    Ok(())
}
