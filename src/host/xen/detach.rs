//! Taking the disks and interfaces from the crashed domain, and waiting until
//! none of them can write any more.
//!
//! A backend in state Closed may still have requests in flight (Linux 6.1,
//! `drivers/block/xen-blkback/xenbus.c:290-331` and `:545`). So a disk counts
//! as gone only when its device has left the bus and the block device below
//! has nothing in flight.
#![allow(unsafe_code)]

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::config::{libxl_answer, LibxlContext};
use super::store::Store;
use super::{joined, sys};
use crate::host::disk_statistics::block_numbers;
use crate::host::HostError;

/// How long backends may take to let go before recovery is given up.
const DEADLINE: Duration = Duration::from_secs(60);
/// Neither sysfs file can be waited on, so they are read this often.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// A disk's trace in dom0, noted before it is removed.
struct Trace {
    label: String,
    bus_device: PathBuf,
    inflight: PathBuf,
}

/// Removes every disk and interface of `domid`, then waits for the disks. Each
/// kind has its own thread: most of the time goes into hotplug scripts.
pub(super) fn detach(ctx: LibxlContext, store: &Store, domid: u32) -> Result<(), HostError> {
    std::thread::scope(|scope| {
        let interfaces = scope.spawn(move || detach_interfaces(ctx, domid));
        let disks = detach_disks(ctx, store, domid);
        disks.and(joined("detach", interfaces))
    })
}

/// Removes every disk of `domid`, and waits until none can write any more.
pub(super) fn detach_disks(ctx: LibxlContext, store: &Store, domid: u32) -> Result<(), HostError> {
    let mut traces = Vec::new();
    let mut count = 0;
    // SAFETY: libxl returns `count` disks that we own.
    let disks = unsafe { sys::libxl_device_disk_list(ctx.raw(), domid, &mut count) };
    let mut result = Ok(());
    for index in 0..usize::try_from(count).unwrap_or(0) {
        // SAFETY: `index` is below `count`.
        let disk = unsafe { &mut *disks.add(index) };
        match trace(ctx, store, domid, disk) {
            Ok(trace) => traces.push(trace),
            Err(error) => result = result.and(Err(error)),
        }
        // SAFETY: a disk of this domain; null `ao_how` makes it synchronous.
        let rc =
            unsafe { sys::libxl_device_disk_destroy(ctx.raw(), domid, disk, std::ptr::null()) };
        result = result.and(libxl_answer("libxl_device_disk_destroy", rc));
    }
    if !disks.is_null() {
        // SAFETY: from libxl_device_disk_list with this count, freed once.
        unsafe { sys::libxl_device_disk_list_free(disks, count) };
    }
    result?;
    traces.iter().try_for_each(wait_gone)
}

/// Removes every interface of `domid`.
pub(super) fn detach_interfaces(ctx: LibxlContext, domid: u32) -> Result<(), HostError> {
    let mut count = 0;
    // SAFETY: libxl returns `count` interfaces that we own.
    let nics = unsafe { sys::libxl_device_nic_list(ctx.raw(), domid, &mut count) };
    let mut result = Ok(());
    for index in 0..usize::try_from(count).unwrap_or(0) {
        // SAFETY: `index` is below `count`; null `ao_how` makes it synchronous.
        let rc = unsafe {
            sys::libxl_device_nic_destroy(ctx.raw(), domid, nics.add(index), std::ptr::null())
        };
        result = result.and(libxl_answer("libxl_device_nic_destroy", rc));
    }
    if !nics.is_null() {
        // SAFETY: from libxl_device_nic_list with this count, freed once.
        unsafe { sys::libxl_device_nic_list_free(nics, count) };
    }
    result
}

/// Notes where a disk shows in dom0.
fn trace(
    ctx: LibxlContext,
    store: &Store,
    domid: u32,
    disk: &mut sys::libxl_device_disk,
) -> Result<Trace, HostError> {
    let mut info = sys::libxl_diskinfo::default();
    // SAFETY: initialised by libxl, filled by libxl, disposed of below.
    let (rc, device) = unsafe {
        sys::libxl_diskinfo_init(&mut info);
        let rc = sys::libxl_device_disk_getinfo(ctx.raw(), domid, disk, &mut info);
        let device = info.devid;
        sys::libxl_diskinfo_dispose(&mut info);
        (rc, device)
    };
    libxl_answer("libxl_device_disk_getinfo", rc)?;
    let node = format!("/local/domain/0/backend/vbd/{domid}/{device}/physical-device");
    let numbers = store.read(&node)?.unwrap_or_default();
    let inflight = inflight_path(&numbers).ok_or_else(|| {
        HostError::new(
            "detach",
            format!("{node} is {numbers:?}: not a disk of blkback"),
        )
    })?;
    Ok(Trace {
        label: format!("vbd-{domid}-{device}"),
        bus_device: format!("/sys/bus/xen-backend/devices/vbd-{domid}-{device}").into(),
        inflight,
    })
}

/// From a backend's `physical-device`.
fn inflight_path(numbers: &str) -> Option<PathBuf> {
    let (major, minor) = block_numbers(numbers)?;
    Some(format!("/sys/dev/block/{major}:{minor}/inflight").into())
}

/// Whether a sysfs `inflight` text, reads and writes, says nothing is on its way.
fn is_idle(text: &str) -> bool {
    text.split_whitespace().all(|count| count == "0")
}

fn wait_gone(trace: &Trace) -> Result<(), HostError> {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let on_bus = trace.bus_device.exists();
        // A block device that is gone altogether has nothing in flight.
        let in_flight = std::fs::read_to_string(&trace.inflight)
            .ok()
            .filter(|text| !is_idle(text));
        if !on_bus && in_flight.is_none() {
            return Ok(());
        }
        if Instant::now() >= deadline {
            let why = match in_flight {
                Some(text) => format!("requests in flight: {}", text.trim()),
                None => "its device is still on the bus".into(),
            };
            return Err(HostError::new(
                "detach",
                format!(
                    "{} did not let go in {} s: {why}",
                    trace.label,
                    DEADLINE.as_secs()
                ),
            ));
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn block_numbers_are_hexadecimal() {
        assert_eq!(
            inflight_path("fe:10"),
            Some("/sys/dev/block/254:16/inflight".into())
        );
        assert_eq!(inflight_path("nonsense"), None);
    }

    #[test]
    fn only_zeroes_are_idle() {
        assert!(is_idle("       0        0\n"));
        assert!(!is_idle("       0        3\n"));
    }
}
