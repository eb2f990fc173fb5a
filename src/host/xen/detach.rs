// SPDX-License-Identifier: LGPL-2.1-or-later
//! Taking the disks and interfaces from the crashed domain, and waiting until
//! none of them can write any more.
//!
//! A backend in state Closed may still have requests in flight (Linux 6.1,
//! `drivers/block/xen-blkback/xenbus.c:290-331` and `:545`). So a disk counts as
//! gone only when its device is gone from sysfs and the block device below has
//! nothing in flight. The device's directory goes after its driver has let go of
//! it, its link on the bus before (`device_del`, Linux 6.1 `drivers/base/core.c`).
//!
//! The hotplug script that libxl runs after that takes longer than all the rest.
//! Where nothing depends on what it does, it is not waited for.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::background::{Background, Call};
use super::config::CrashConfig;
use super::devices::{Disk, Nic};
use super::libxl::LibxlContext;
use super::store::Store;
use crate::host::disk_statistics::block_numbers;
use crate::host::HostError;
use crate::os::fd::read_text;

/// How long backends may take to let go before recovery is given up.
const DEADLINE: Duration = Duration::from_secs(60);
/// Neither sysfs file can be waited on, so they are read this often.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// A device's trace in dom0, noted before it is removed.
struct Trace {
    /// `KIND-DOMID-DEVID`, its name on the bus of backends.
    label: String,
    directory: PathBuf,
    /// A disk's: what is under way to the block device below.
    inflight: Option<PathBuf>,
}

impl Trace {
    fn new(kind: &str, domid: u32, device: i32, inflight: Option<PathBuf>) -> Self {
        let label = format!("{kind}-{domid}-{device}");
        let link = Path::new("/sys/bus/xen-backend/devices").join(&label);
        Self {
            // Without a link there is no directory either.
            directory: link.canonicalize().unwrap_or(link),
            label,
            inflight,
        }
    }
}

/// What is being taken from a domain, all at once.
#[derive(Default)]
struct Leaving {
    traces: Vec<Trace>,
    /// Calls whose scripts somebody depends on.
    awaited: Background,
    others: Background,
}

impl Leaving {
    /// Starts to remove a device.
    fn remove(
        &mut self,
        trace: Trace,
        is_awaited: bool,
        call: impl FnOnce() -> Result<(), HostError> + Send + 'static,
    ) -> Result<(), HostError> {
        let call = Call::start(call)?;
        self.traces.push(trace);
        match is_awaited {
            true => self.awaited.push(call),
            false => self.others.push(call),
        }
        Ok(())
    }

    /// Waits until every device has gone. What comes back are scripts.
    fn gone(mut self) -> Result<Background, HostError> {
        self.awaited.finish()?;
        self.traces.iter().try_for_each(wait_gone)?;
        Ok(self.others)
    }
}

/// Removes every disk of `domid`, a domain that `config` describes, and on request
/// its interfaces, and waits until they have gone.
pub(super) fn detach(
    ctx: LibxlContext,
    store: &Store,
    domid: u32,
    config: &CrashConfig,
    with_nics: bool,
) -> Result<Background, HostError> {
    let mut leaving = Leaving::default();
    remove_disks(ctx, store, domid, config, &mut leaving)?;
    if with_nics {
        remove_nics(ctx, domid, config, &mut leaving)?;
    }
    leaving.gone()
}

/// The same of the interfaces only.
pub(super) fn detach_nics(
    ctx: LibxlContext,
    domid: u32,
    config: &CrashConfig,
) -> Result<Background, HostError> {
    let mut leaving = Leaving::default();
    remove_nics(ctx, domid, config, &mut leaving)?;
    leaving.gone()
}

fn remove_disks(
    ctx: LibxlContext,
    store: &Store,
    domid: u32,
    config: &CrashConfig,
    leaving: &mut Leaving,
) -> Result<(), HostError> {
    let known = config.disks_of(ctx);
    for mut disk in Disk::all_of(ctx, domid) {
        let trace = trace_of_disk(ctx, store, domid, &disk)?;
        // The successor's takes over the block device, whatever the script says.
        let hands_on = known
            .iter()
            .any(|known| known.name() == disk.name() && known.block_device().is_some());
        leaving.remove(trace, !hands_on, move || disk.destroy(ctx, domid))?;
    }
    Ok(())
}

fn remove_nics(
    ctx: LibxlContext,
    domid: u32,
    config: &CrashConfig,
    leaving: &mut Leaving,
) -> Result<(), HostError> {
    let waits = !config.nics_can_be_twice();
    for mut nic in Nic::all_of(ctx, domid) {
        let trace = Trace::new("vif", domid, nic.number(), None);
        leaving.remove(trace, waits, move || nic.destroy(ctx, domid))?;
    }
    Ok(())
}

/// Notes where a disk shows in dom0.
fn trace_of_disk(
    ctx: LibxlContext,
    store: &Store,
    domid: u32,
    disk: &Disk,
) -> Result<Trace, HostError> {
    let device = disk.number(ctx, domid)?;
    let node = format!("/local/domain/0/backend/vbd/{domid}/{device}/physical-device");
    let numbers = store.read(&node)?.unwrap_or_default();
    let inflight = inflight_path(&numbers).ok_or_else(|| {
        HostError::new(
            "detach",
            format!("{node} is {numbers:?}: not a disk of blkback"),
        )
    })?;
    Ok(Trace::new("vbd", domid, device, Some(inflight)))
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
        let is_there = trace.directory.exists();
        // A block device that is gone altogether has nothing in flight.
        let in_flight = trace
            .inflight
            .as_ref()
            .and_then(|path| read_text(path, 4096).ok())
            .filter(|text| !is_idle(text));
        if !is_there && in_flight.is_none() {
            return Ok(());
        }
        if Instant::now() >= deadline {
            let why = match in_flight {
                Some(text) => format!("requests in flight: {}", text.trim()),
                None => "its device is still there".into(),
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
