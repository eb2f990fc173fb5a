// SPDX-License-Identifier: LGPL-2.1-or-later
//! Who serves a guest's disks. What is true of one backend only is in its file here.
//!
//! A new backend gets a file and a line in each `match` below. It has to answer
//! - which disks it serves, and which it will serve of a guest that is not there yet;
//! - what shows of a disk that is being taken from a domain. When nothing is left of
//!   it, no write is under way any more, and none can follow: the successor's first
//!   access comes next, so a state in xenstore is not enough. Whoever would not let go by
//!   itself is asked to;
//! - whether the successor's disk takes over what the crashed domain's had, whatever
//!   that one's hotplug script still does ([`is_handed_on`]);
//! - how a domain gets a disk, so that it can be used as soon as possible
//!   ([`attach`]);
//! - what a domain has asked of its disks ([`crate::host::disk_statistics`]); nothing
//!   where nobody counts that.

use serde_json::Value;

use super::bus::Trace;
use super::store::Store;
use crate::host::HostError;

mod blkback;
mod qdisk;

pub(super) use blkback::{attach, busy, is_handed_on};

/// The backends whose disks can move.
#[derive(Clone, Copy)]
enum Backend {
    /// That of dom0's kernel.
    Blkback,
    /// QEMU, in dom0.
    Qdisk,
}

impl Backend {
    /// Who will serve a disk, as libxl writes it, of a guest that is not there yet.
    fn planned(disk: &Value) -> Option<Self> {
        let text = |key: &str| disk[key].as_str().unwrap_or_default();
        let is_elsewhere =
            disk["backend_domid"].as_u64().unwrap_or(0) != 0 || !text("backend_domname").is_empty();
        if is_elsewhere {
            return None;
        }
        let (backend, format) = (text("backend"), text("format"));
        if blkback::will_serve(backend, format) {
            return Some(Self::Blkback);
        }
        qdisk::will_serve(backend, format).then_some(Self::Qdisk)
    }

    /// Who serves a domain's disk. xenstore says so, whatever the configuration says or
    /// leaves to libxl.
    fn serving(store: &Store, domid: u32, device: &str) -> Result<Option<Self>, HostError> {
        let node = store.read(&format!("{}/{device}/backend", frontends(domid)))?;
        let node = node.unwrap_or_default();
        if blkback::serves(&node, domid) {
            return Ok(Some(Self::Blkback));
        }
        Ok(qdisk::serves(store, &node, domid)?.then_some(Self::Qdisk))
    }

    fn trace(self, store: &Store, domid: u32, number: i32) -> Result<Trace, HostError> {
        match self {
            Self::Blkback => blkback::trace(store, domid, number),
            Self::Qdisk => qdisk::trace(store, domid),
        }
    }
}

/// Where libxl notes the disks of a domain.
fn frontends(domid: u32) -> String {
    format!("/libxl/{domid}/device/vbd")
}

/// Said of disks of any other backend, or in another domain.
fn not_served(disk: &str, what: &str) -> String {
    format!(
        "disk {disk} {what} served by blkback or QEMU in this domain, so nobody can tell \
         when its last write is done"
    )
}

/// Notes what shows of a domain's disk, before it is taken, and asks whoever serves it
/// to let go where libxl does not.
pub(super) fn trace(store: &Store, domid: u32, number: i32) -> Result<Trace, HostError> {
    let device = number.to_string();
    match Backend::serving(store, domid, &device)? {
        Some(backend) => backend.trace(store, domid, number),
        None => Err(HostError::new("detach", not_served(&device, "is not"))),
    }
}

/// Refuses a disk, as libxl writes it, of a guest that is not there yet, when nobody
/// here will serve it.
pub(super) fn check_planned(disk: &Value) -> Result<(), String> {
    let text = |key: &str| disk[key].as_str().unwrap_or_default();
    let what = match text("format") {
        "" => "will not be".into(),
        format => format!("(format {format}) will not be"),
    };
    match Backend::planned(disk) {
        Some(_) => Ok(()),
        None => Err(not_served(text("vdev"), &what)),
    }
}

/// Refuses a domain with a disk that nobody here serves.
pub(super) fn check_served(store: &Store, domid: u32) -> Result<(), String> {
    let failed = |error: HostError| format!("its disks cannot be listed: {error}");
    for device in store.list(&frontends(domid)).map_err(failed)? {
        if Backend::serving(store, domid, &device)
            .map_err(failed)?
            .is_none()
        {
            return Err(not_served(&device, "is not"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_planned_disk_must_be_one_for_blkback_or_qemu() {
        let disk = |key: &str, value: Value| {
            let mut disk = serde_json::json!({ "vdev": "xvda", "format": "raw" });
            disk[key] = value;
            check_planned(&disk)
        };
        assert_eq!(disk("backend", "phy".into()), Ok(()));
        assert_eq!(disk("backend", "unknown".into()), Ok(()));
        assert_eq!(disk("backend", "qdisk".into()), Ok(()));
        assert_eq!(disk("format", "qcow2".into()), Ok(()));
        let cases = [
            ("backend", Value::from("tap")),
            ("backend_domid", 3.into()),
            ("backend_domname", "storage".into()),
        ];
        for (key, value) in cases {
            let said = disk(key, value).expect_err(key);
            assert!(said.starts_with("disk xvda (format "), "{key}: {said}");
            let why = "will not be served by blkback or QEMU";
            assert!(said.contains(why), "{key}: {said}");
        }
    }
}
