// SPDX-License-Identifier: LGPL-2.1-or-later
//! Devices that dom0's kernel serves to domains, as sysfs shows them.

use std::path::{Path, PathBuf};

use crate::os::fd::entries;

/// The bus of backends.
const BUS: &str = "/sys/bus/xen-backend/devices";

/// Where sysfs shows the backend of a device: `KIND-DOMID-DEVID` on the bus of
/// backends.
pub(super) fn device(label: &str) -> PathBuf {
    Path::new(BUS).join(label)
}

/// What shows of a device that is being taken from a domain, noted before.
pub(super) struct Trace {
    /// What the device is called in errors.
    pub(super) label: String,
    /// Says what of it is left; none when it has gone, and nothing is under way.
    pub(super) left: Box<dyn Fn() -> Option<String>>,
}

/// Everything that dom0's kernel still serves to a domain's disks and interfaces.
pub(super) fn all_of(domid: u32) -> Vec<Trace> {
    let devices = entries(Path::new(BUS)).unwrap_or_default();
    let label = |path: &PathBuf| Some(path.file_name()?.to_str()?.to_owned());
    let numbers = |label: String| {
        let (kind, number) = ["vbd", "vif"].iter().find_map(|kind| {
            let number = label.strip_prefix(&format!("{kind}-{domid}-"))?;
            Some((*kind, number.parse().ok()?))
        })?;
        Some(Trace::of(kind, domid, number))
    };
    devices
        .iter()
        .filter_map(label)
        .filter_map(numbers)
        .collect()
}

impl Trace {
    /// The trace of a device that has gone when its driver has let go of it
    /// (`relied_on::link_goes_first`).
    pub(super) fn of(kind: &str, domid: u32, number: i32) -> Self {
        let label = format!("{kind}-{domid}-{number}");
        let link = device(&label);
        // Without a link there is no directory either.
        let directory = link.canonicalize().unwrap_or(link);
        let left = move || {
            directory
                .exists()
                .then(|| "its device is still there".into())
        };
        Self {
            label,
            left: Box::new(left),
        }
    }
}
