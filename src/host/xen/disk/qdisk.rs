// SPDX-License-Identifier: LGPL-2.1-or-later
//! qdisk: disks that QEMU serves, in dom0, from files and block devices of any format.
//!
//! One QEMU serves all of a domain's disks of this kind. They have gone when it has
//! (`device_model.rs`).

use serde_json::Value;

use super::super::bus::Trace;
use super::super::device_model::DeviceModel;
use super::super::store::Store;
use crate::host::HostError;

/// Where QEMU's disks are in xenstore: `DOMID/DEVID`.
const BACKENDS: &str = "/local/domain/0/backend/qdisk";

/// Whether it will serve a disk, as libxl writes it, of a guest that is not there yet
/// (`relied_on::raw_disks_are_blkbacks`).
pub(super) fn will_serve(disk: &Value) -> bool {
    let text = |key: &str| disk[key].as_str().unwrap_or_default();
    disk["backend_domid"].as_u64().unwrap_or(0) == 0
        && text("backend_domname").is_empty()
        && match text("backend") {
            "qdisk" => true,
            "" | "unknown" => matches!(text("format"), "qcow" | "qcow2" | "vhd" | "qed"),
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
    DeviceModel::of(store, domid).map(|model| model.is_some())
}

/// Has the domain's QEMU end, and tells when it has.
pub(super) fn trace(store: &Store, domid: u32) -> Result<Trace, HostError> {
    match DeviceModel::of(store, domid)? {
        Some(model) => model.end(),
        None => Err(HostError::new(
            "detach",
            format!("nobody has noted which QEMU serves the disks of domain {domid}"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_that_only_qemu_knows_are_its_own_and_others_when_they_are_asked_for() {
        let serves = |disk: Value| will_serve(&disk);
        assert!(serves(serde_json::json!({ "format": "qcow2" })));
        assert!(serves(
            serde_json::json!({ "format": "raw", "backend": "qdisk" })
        ));
        assert!(!serves(serde_json::json!({ "format": "raw" })));
        assert!(!serves(
            serde_json::json!({ "format": "qcow2", "backend": "phy" })
        ));
        let elsewhere = serde_json::json!({ "format": "qcow2", "backend_domid": 3 });
        assert!(!serves(elsewhere));
    }
}
