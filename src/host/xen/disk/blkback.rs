// SPDX-License-Identifier: LGPL-2.1-or-later
//! blkback: disks that dom0's kernel serves from its block devices.
//!
//! A backend's state in xenstore says nothing of its requests in flight
//! (`relied_on::closed_is_not_idle`). So a disk counts as gone only when its device is
//! gone from sysfs and the block device below has nothing in flight, and keeps nothing
//! back that will be (`relied_on::suspended_keeps_requests`,
//! `relied_on::crypt_counts_late`).
//!
//! A disk can be used as soon as blkback has its block device, whose numbers it waits
//! for in xenstore. libxl's hotplug script finds them out, makes sure that nobody
//! else has the device, and writes them; and it does nothing when it finds them there
//! (`relied_on::block_script_bails_out`). As it takes longer than all the rest, a
//! block device's numbers are written here, under the script's own lock and after its
//! look at what other domains have. Its look at what dom0 has mounted is left out: the
//! guest had the device until a moment ago.

use std::cell::Cell;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::PathBuf;

use super::super::background::{Background, Call};
use super::super::bus::{self, Trace};
use super::super::devices::Disk;
use super::super::hotplug_lock::HotplugLock;
use super::super::libxl::LibxlContext;
use super::super::store::Store;
use crate::host::disk_statistics::block_numbers;
use crate::host::HostError;
use crate::os::fd::read_text;

/// Where blkback's devices are in xenstore: `DOMID/DEVID`.
const BACKENDS: &str = "/local/domain/0/backend/vbd";
/// What blkback waits for there.
const NUMBERS: &str = "physical-device";
/// XenbusStateInitWait: the backend's driver is there and waits.
const WAITS: &str = "2";

/// Whether it will serve a disk in this domain of this backend and format, as libxl writes
/// them. libxl has not chosen a backend yet, unless the configuration names one
/// (`relied_on::raw_disks_are_blkbacks`).
pub(super) fn will_serve(backend: &str, format: &str) -> bool {
    match backend {
        "phy" => true,
        "" | "unknown" => matches!(format, "" | "raw" | "empty"),
        _ => false,
    }
}

/// Whether the backend of a domain's disk, by its node in xenstore, is one.
pub(super) fn serves(node: &str, domid: u32) -> bool {
    node.starts_with(&format!("{BACKENDS}/{domid}/"))
}

/// Notes where a disk shows in dom0: its device, and what is under way to the block
/// device below.
pub(super) fn trace(store: &Store, domid: u32, number: i32) -> Result<Trace, HostError> {
    let node = format!("{BACKENDS}/{domid}/{number}/{NUMBERS}");
    let numbers = store.read(&node)?.unwrap_or_default();
    let below = BlockDevice::of(&numbers).ok_or_else(|| {
        HostError::new(
            "detach",
            format!("{node} is {numbers:?}: not a disk of blkback"),
        )
    })?;
    let device = Trace::of("vbd", domid, number);
    Ok(Trace {
        label: device.label,
        left: Box::new(move || {
            let is_there = (device.left)();
            below.busy_with(is_there.is_some()).or(is_there)
        }),
    })
}

/// What is under way to a disk's block device, whoever asked for it.
pub(in crate::host::xen) fn busy(disk: &Disk) -> Option<Trace> {
    let (path, numbers) = block_device(disk)?;
    let device = BlockDevice::of(&numbers)?;
    Some(Trace {
        label: path,
        left: Box::new(move || device.busy_with(false)),
    })
}

/// A block device of dom0's, as sysfs shows it.
struct BlockDevice {
    directory: PathBuf,
    /// It has requests that it does not count as in flight yet.
    counts_late: bool,
    /// Looks that are still to come until nothing can be kept back any more.
    unsure: Cell<u32>,
}

/// How the uuid of a device begins that encrypts what is written to it.
const CRYPT: &str = "CRYPT-";

/// Looks at a device after it was resumed, before what it kept back has surely been sent.
/// It is sent by a thread of the kernel's, which waits for nothing but a processor, and
/// neither sysfs nor a request of one's own tells when that was
/// (`relied_on::suspended_keeps_requests`). At 5 ms each they are half a second.
const UNSURE: u32 = 100;

impl BlockDevice {
    /// From a backend's `physical-device`.
    fn of(numbers: &str) -> Option<Self> {
        let (major, minor) = block_numbers(numbers)?;
        Some(Self::at(format!("/sys/dev/block/{major}:{minor}")))
    }

    fn at(directory: impl Into<PathBuf>) -> Self {
        let directory: PathBuf = directory.into();
        let uuid = read_text(&directory.join("dm/uuid"), 4096).unwrap_or_default();
        let counts_late = uuid.starts_with(CRYPT);
        Self {
            directory,
            counts_late,
            unsure: Cell::new(if counts_late { UNSURE } else { 0 }),
        }
    }

    /// Says what is on its way to the device; one that is gone altogether has nothing.
    /// What it kept back while it was suspended is in flight a moment after that, so the
    /// first looks that find it resumed prove nothing; nor do those at a device that counts
    /// late, when its backend has just let go of it.
    fn busy_with(&self, is_used: bool) -> Option<String> {
        if self.counts_late && is_used {
            self.unsure.set(UNSURE);
        }
        let suspended = self.read("dm/suspended");
        if suspended.is_some_and(|text| text.trim() == "1") {
            self.unsure.set(UNSURE);
            return Some("it is suspended, and may keep requests back".into());
        }
        if let Some(left) = self.unsure.get().checked_sub(1) {
            self.unsure.set(left);
            return Some("what it kept back may not be sent yet".into());
        }
        let text = self.read("inflight").filter(|text| !is_idle(text));
        text.map(|text| format!("requests in flight: {}", text.trim()))
    }

    fn read(&self, file: &str) -> Option<String> {
        read_text(&self.directory.join(file), 4096).ok()
    }
}

/// Whether a sysfs `inflight` text, reads and writes, says nothing is on its way.
fn is_idle(text: &str) -> bool {
    text.split_whitespace().all(|count| count == "0")
}

/// Whether the successor's disk takes over the block device that the crashed domain's
/// had, whatever the hotplug script of that one still does.
pub(in crate::host::xen) fn is_handed_on(disk: &Disk) -> bool {
    block_device(disk).is_some()
}

/// The block device that is the domain's alone, path and numbers as the hotplug
/// script writes them into xenstore (hexadecimal `MAJOR:MINOR`). None where
/// there is more to do, which has to be waited for: a file gets a loop device, a
/// disk that is only read may have several readers, a script of the operator's does
/// what it does, and so does QEMU.
fn block_device(disk: &Disk) -> Option<(String, String)> {
    if disk.has_script() || !disk.is_writable() || disk.is_qemus() {
        return None;
    }
    let path = fs::canonicalize(disk.path()?).ok()?;
    let of = fs::metadata(&path).ok()?;
    if !of.file_type().is_block_device() {
        return None;
    }
    let (major, minor) = (libc::major(of.rdev()), libc::minor(of.rdev()));
    Some((path.to_str()?.into(), format!("{major:x}:{minor:x}")))
}

/// Gives a domain a disk that `crashed` has had. When this returns the disk can be
/// used; what may go on, in `calls`, is its hotplug script.
pub(in crate::host::xen) fn attach(
    ctx: LibxlContext,
    store: &Store,
    mut disk: Disk,
    (domid, crashed): (u32, u32),
    calls: &mut Background,
) -> Result<(), HostError> {
    let name = disk.name().to_string();
    let Some((path, numbers)) = block_device(&disk) else {
        return Call::start(move || disk.add(ctx, domid))?.join();
    };
    // The crashed domain has let go of it. Its trace would make the script say that
    // the device is in use.
    if let Some(node) = backend(store, crashed, &name)? {
        store.remove(&format!("{node}/{NUMBERS}"))?;
    }
    let call = Call::start(move || disk.add(ctx, domid))?;
    let connecting = Connecting {
        store,
        domid,
        call: &call,
    };
    let connected = connecting.connect(&name, &path, &numbers);
    calls.push(call);
    connected
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
        let node = self.call.wait_for("its backend does not appear", || {
            let Some(node) = backend(self.store, self.domid, name)? else {
                return Ok(None);
            };
            let state = self.store.read(&format!("{node}/state"))?;
            Ok((state.as_deref() == Some(WAITS)).then_some(node))
        })?;
        self.take(&node, path, numbers)?;
        let device = node.rsplit('/').next().unwrap_or_default();
        let taken = bus::device(&format!("vbd-{}-{device}", self.domid)).join("physical_device");
        self.call.wait_for("its backend does not take it", || {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn block_numbers_are_hexadecimal() {
        let directory = |numbers: &str| BlockDevice::of(numbers).map(|device| device.directory);
        assert_eq!(directory("fe:10"), Some("/sys/dev/block/254:16".into()));
        assert_eq!(directory("nonsense"), None);
    }

    #[test]
    fn a_device_that_keeps_requests_back_is_busy_until_they_would_show() {
        let sysfs = tempfile::tempdir().unwrap();
        let write = |file: &str, text: &str| fs::write(sysfs.path().join(file), text).unwrap();
        let device = BlockDevice::at(sysfs.path());
        write("inflight", "       0        0\n");
        assert_eq!(device.busy_with(false), None);
        fs::create_dir(sysfs.path().join("dm")).unwrap();
        write("dm/suspended", "1\n");
        assert!(device.busy_with(false).is_some());
        write("dm/suspended", "0\n");
        for look in 0..UNSURE {
            assert!(device.busy_with(false).is_some(), "look {look}");
        }
        write("inflight", "       0        2\n");
        assert_eq!(
            device.busy_with(false).as_deref(),
            Some("requests in flight: 0        2")
        );
        write("inflight", "       0        0\n");
        assert_eq!(device.busy_with(false), None);
    }

    #[test]
    fn a_device_that_encrypts_is_busy_for_a_while_after_its_backend_has_gone() {
        let sysfs = tempfile::tempdir().unwrap();
        let write = |file: &str, text: &str| fs::write(sysfs.path().join(file), text).unwrap();
        write("inflight", "       0        0\n");
        fs::create_dir(sysfs.path().join("dm")).unwrap();
        write("dm/uuid", "CRYPT-LUKS2-0123-disk\n");
        let device = BlockDevice::at(sysfs.path());
        for look in 0..3 * UNSURE {
            assert!(device.busy_with(true).is_some(), "look {look}");
        }
        for look in 1..UNSURE {
            assert!(device.busy_with(false).is_some(), "look {look}");
        }
        assert_eq!(device.busy_with(false), None);
        write("dm/uuid", "LVM-0123\n");
        assert_eq!(BlockDevice::at(sysfs.path()).busy_with(true), None);
    }

    #[test]
    fn only_zeroes_are_idle() {
        assert!(is_idle("       0        0\n"));
        assert!(!is_idle("       0        3\n"));
    }

    #[test]
    fn a_disk_of_another_domain_or_of_user_space_is_not_served_here() {
        assert!(serves("/local/domain/0/backend/vbd/7/51712", 7));
        assert!(!serves("/local/domain/0/backend/vbd/77/51712", 7));
        assert!(!serves("/local/domain/0/backend/qdisk/7/51712", 7));
        assert!(!serves("/local/domain/3/backend/vbd/7/51712", 7));
    }
}
