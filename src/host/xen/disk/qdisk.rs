// SPDX-License-Identifier: LGPL-2.1-or-later
//! qdisk: disks that QEMU serves, in dom0, from files and block devices of any format.
//!
//! One QEMU serves all of a domain's disks of this kind. They have gone when it has
//! (`device_model.rs`).

use super::super::bus::Trace;
use super::super::device_model::DeviceModel;
use super::super::store::Store;
use crate::host::HostError;

/// Where QEMU's disks are in xenstore: `DOMID/DEVID`.
const BACKENDS: &str = "/local/domain/0/backend/qdisk";

/// Whether it will serve a disk in this domain of this backend and format, as libxl writes
/// them (`relied_on::raw_disks_are_blkbacks`).
pub(super) fn will_serve(backend: &str, format: &str) -> bool {
    match backend {
        "qdisk" => true,
        "" | "unknown" => matches!(format, "qcow" | "qcow2" | "vhd" | "qed"),
        _ => false,
    }
}

/// Whether the backend of a domain's disk, by its node in xenstore, is one whose end can
/// be told.
///
/// # Errors
/// When it is one, and nobody can tell its end.
pub(super) fn serves(store: &Store, node: &str, domid: u32) -> Result<bool, HostError> {
    if !node.starts_with(&format!("{BACKENDS}/{domid}/")) {
        return Ok(false);
    }
    DeviceModel::required(store, domid).map(|_| true)
}

/// Has the domain's QEMU end, and tells when it has.
pub(super) fn trace(store: &Store, domid: u32) -> Result<Trace, HostError> {
    DeviceModel::required(store, domid)?.end()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_that_only_qemu_knows_are_its_own_and_others_when_they_are_asked_for() {
        assert!(will_serve("unknown", "qcow2"));
        assert!(will_serve("qdisk", "raw"));
        assert!(!will_serve("unknown", "raw"));
        assert!(!will_serve("phy", "qcow2"));
    }
}
