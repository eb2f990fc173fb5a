// SPDX-License-Identifier: LGPL-2.1-or-later
//! What a guest may have so that it can be recovered, as a list of what is allowed.
//!
//! libxl writes a configuration as JSON and leaves out what is as it is by default
//! (Xen 4.17, `tools/libs/light/gentypes.py`, `get_default_expr`). So whatever
//! stands there was asked for, also what only a later libxl knows, and it has to be
//! known here.

use serde_json::{Map, Value};

use super::store::Store;
use crate::host::HostError;

/// The values of a key that do not stand in the way.
enum Allowed {
    Any,
    Only(&'static [&'static str]),
}
use Allowed::{Any, Only};

type Keys = &'static [(&'static str, Allowed)];

/// A flag that is off, as libxl writes it.
const OFF: Allowed = Only(&["False"]);
const POD: &str = "excludes populate-on-demand, which recovery needs";
const HARDWARE: &str = "gives the guest hardware, which cannot move";

const CREATE: Keys = &[
    ("type", Only(&["pvh"])),
    ("hap", Any),
    ("oos", Any),
    ("ssidref", Any),
    ("ssid_label", Any),
    ("name", Any),
    ("domid", Any),
    ("uuid", Any),
    ("xsdata", Any),
    ("platformdata", Any),
    ("poolid", Any),
    ("pool_name", Any),
    ("run_hotplug_scripts", Any),
    ("driver_domain", OFF),
    ("passthrough", Only(&["default", "disabled"])),
    ("xend_suspend_evtchn_compat", Any),
];

const BUILD: Keys = &[
    ("max_vcpus", Any),
    ("avail_vcpus", Any),
    ("cpumap", Any),
    ("nodemap", Any),
    ("vcpu_hard_affinity", Any),
    ("vcpu_soft_affinity", Any),
    ("numa_placement", Any),
    ("tsc_mode", Any),
    ("max_memkb", Any),
    ("target_memkb", Any),
    ("video_memkb", Any),
    ("shadow_memkb", Any),
    ("iommu_memkb", Any),
    ("rtc_timeoffset", Any),
    ("exec_ssidref", Any),
    ("exec_ssid_label", Any),
    ("localtime", Any),
    ("disable_migrate", Any),
    ("cpuid", Any),
    ("blkdev_start", Any),
    ("max_grant_frames", Any),
    ("max_maptrack_frames", Any),
    ("max_grant_version", Any),
    ("device_model_version", Any),
    ("device_model_stubdomain", OFF),
    ("stubdomain_memkb", Any),
    ("device_model", Any),
    ("device_model_ssidref", Any),
    ("device_model_ssid_label", Any),
    ("device_model_user", Any),
    ("extra", Any),
    ("extra_pv", Any),
    ("extra_hvm", Any),
    ("sched_params", Any),
    ("claim_mode", Any),
    ("event_channels", Any),
    ("kernel", Any),
    ("cmdline", Any),
    ("ramdisk", Any),
    ("acpi", Any),
    ("bootloader", Any),
    ("bootloader_args", Any),
    ("bootloader_restrict", Any),
    ("bootloader_user", Any),
    ("timer_mode", Any),
    ("nested_hvm", OFF),
    ("apic", Any),
    ("dm_restrict", Any),
    ("tee", Only(&["none"])),
    ("type", Any),
    ("type.pvh", Any),
    ("arch_arm", Any),
    ("arch_x86", Any),
    ("altp2m", Only(&["disabled"])),
    ("vmtrace_buf_kb", Any),
    ("vpmu", Any),
];

/// The rest of a PVH guest's part.
const PVH: Keys = &[
    ("pvshim", OFF),
    ("pvshim_path", Any),
    ("pvshim_cmdline", Any),
    ("pvshim_extra", Any),
];

/// Where blkback serves it is looked at elsewhere.
const DISK: Keys = &[
    ("backend_domid", Any),
    ("backend_domname", Any),
    ("pdev_path", Any),
    ("vdev", Any),
    ("backend", Any),
    ("format", Any),
    ("script", Any),
    ("removable", Any),
    ("readwrite", Any),
    ("is_cdrom", Any),
    ("direct_io_safe", Any),
    ("discard_enable", Any),
    ("specification", Only(&["unknown", "xen"])),
    ("transport", Only(&["unknown"])),
    ("colo_enable", OFF),
    ("colo_restore_enable", OFF),
    ("trusted", Any),
    ("grant_usage", Any),
];

/// Of the whole configuration, what is not looked into.
const ACTIONS: [&str; 5] = [
    "on_poweroff",
    "on_reboot",
    "on_watchdog",
    "on_crash",
    "on_soft_reset",
];

/// What is wrong with a key that is not allowed, where there is more to say than
/// that it is not known.
const REASONS: [(&str, &str); 6] = [
    ("vnuma_nodes", POD),
    ("altp2m", POD),
    ("passthrough", POD),
    ("ioports", HARDWARE),
    ("irqs", HARDWARE),
    ("iomem", HARDWARE),
];

/// Says why the guest of a configuration, as libxl writes it, cannot be recovered.
/// Who serves its disks is seen from the domain, if there is one already.
pub(super) fn refusal(config: &str, domain: Option<(&Store, u32)>) -> Option<String> {
    let parsed: Map<String, Value> = match serde_json::from_str(config) {
        Ok(parsed) => parsed,
        Err(error) => return Some(format!("libxl's text of the configuration: {error}")),
    };
    check(&parsed, domain).err()
}

fn check(config: &Map<String, Value>, domain: Option<(&Store, u32)>) -> Result<(), String> {
    kind(config)?;
    for (key, value) in config {
        match key.as_str() {
            "c_info" => check_keys(value, CREATE)?,
            "b_info" => {
                check_keys(value, BUILD)?;
                check_keys(&value["type.pvh"], PVH)?;
            }
            "disks" => elements(value).try_for_each(|disk| check_keys(disk, DISK))?,
            "nics" => {}
            action if ACTIONS.contains(&action) => {}
            other => check_others(other, value)?,
        }
    }
    match domain {
        Some((store, domid)) => check_backends(store, domid),
        None => {
            let disks = config.get("disks").unwrap_or(&Value::Null);
            elements(disks).try_for_each(check_planned_disk)
        }
    }
}

/// The kind of guest first: other keys say little of another.
fn kind(config: &Map<String, Value>) -> Result<(), String> {
    match config.get("c_info").map(|info| &info["type"]) {
        Some(Value::String(kind)) if kind == "pvh" => Ok(()),
        Some(Value::String(kind)) => Err(format!("{PVH_ONLY}; this one is {kind}")),
        _ => Err(PVH_ONLY.into()),
    }
}

/// Other kinds cannot even be read.
pub(super) const PVH_ONLY: &str = "only PVH guests are supported (type=\"pvh\")";

fn elements(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

/// Checks an object's keys; a key that is not there has its default.
fn check_keys(object: &Value, allowed: Keys) -> Result<(), String> {
    for (key, value) in object.as_object().into_iter().flatten() {
        let text = match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let is_fine = allowed.iter().any(|(name, values)| {
            name == key
                && match values {
                    Any => true,
                    Only(list) => list.contains(&text.as_str()),
                }
        });
        if !is_fine && !is_empty(value) {
            let reason = REASONS.iter().find(|(name, _)| name == key);
            return Err(match reason {
                Some((_, why)) => format!("{key} {why}"),
                None => format!("recovery is not made for {key}={text}"),
            });
        }
    }
    Ok(())
}

/// Whether nothing was asked for.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    }
}

/// Anything else that a domain has is a kind of device.
fn check_others(kind: &str, value: &Value) -> Result<(), String> {
    if is_empty(value) {
        return Ok(());
    }
    Err(format!(
        "the guest has {} device(s) of kind {kind}; only disks and network interfaces can move",
        value.as_array().map_or(1, Vec::len)
    ))
}

/// Of a disk that is served by somebody else: in user space, or in another domain.
fn not_blkback(disk: &str, what: &str) -> String {
    format!(
        "disk {disk} {what} served by blkback in this domain, so nobody can tell when its \
         last write is done"
    )
}

/// A disk of a guest that is not there yet: libxl has not chosen a backend, unless
/// the configuration names one. For raw disks it takes blkback (Xen 4.17,
/// `disk_try_backend` in `tools/libs/light/libxl_device.c`).
fn check_planned_disk(disk: &Value) -> Result<(), String> {
    let text = |key: &str| disk[key].as_str().unwrap_or_default();
    let is_ours = disk["backend_domid"].as_u64().unwrap_or(0) == 0
        && text("backend_domname").is_empty()
        && match text("backend") {
            "phy" => true,
            "" | "unknown" => matches!(text("format"), "" | "raw" | "empty"),
            _ => false,
        };
    let what = match text("format") {
        "" => "will not be".into(),
        format => format!("(format {format}) will not be"),
    };
    match is_ours {
        true => Ok(()),
        false => Err(not_blkback(text("vdev"), &what)),
    }
}

/// The disks of a domain that is there: xenstore says who serves them, whatever the
/// configuration says or leaves to libxl.
fn check_backends(store: &Store, domid: u32) -> Result<(), String> {
    let failed = |error: HostError| format!("its disks cannot be listed: {error}");
    let disks = format!("/libxl/{domid}/device/vbd");
    for disk in store.list(&disks).map_err(failed)? {
        let backend = store.read(&format!("{disks}/{disk}/backend"));
        let backend = backend.map_err(failed)?.unwrap_or_default();
        if !backend.starts_with(&format!("/local/domain/0/backend/vbd/{domid}/")) {
            return Err(not_blkback(&disk, "is not"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `xl create -n` prints for an ordinary guest, with these changes.
    fn refused(change: impl FnOnce(&mut Value)) -> Option<String> {
        let mut config = serde_json::json!({
            "c_info": {
                "type": "pvh", "name": "web1", "run_hotplug_scripts": "True",
                "uuid": "5831e744-6d7c-4eb9-88d9-0f813a436221",
                "xsdata": { "vicover/on_crash": "1" },
            },
            "b_info": {
                "max_vcpus": 2, "avail_vcpus": [0, 1], "max_memkb": 262_144,
                "target_memkb": 262_144, "sched_params": {}, "claim_mode": "True",
                "kernel": "/boot/guest", "cmdline": "root=/dev/xvda",
                "type.pvh": {}, "arch_arm": {}, "arch_x86": {},
            },
            "disks": [{
                "pdev_path": "/srv/web1.img", "vdev": "xvda", "format": "raw",
                "readwrite": 1,
            }],
            "nics": [{ "devid": 0, "mac": "00:16:3e:00:00:01", "bridge": "xenbr0" }],
            "on_reboot": "restart",
            "on_crash": "coredump_restart",
        });
        change(&mut config);
        refusal(&config.to_string(), None)
    }

    fn with(path: &str, value: Value) -> Option<String> {
        refused(|config| {
            let (parents, key) = path.rsplit_once('/').unwrap();
            config.pointer_mut(parents).unwrap()[key] = value;
        })
    }

    #[test]
    fn an_ordinary_guest_can_be_recovered() {
        assert_eq!(refused(|_| ()), None);
        assert_eq!(with("/pcidevs", serde_json::json!([])), None);
        assert_eq!(with("/c_info/passthrough", "disabled".into()), None);
        assert_eq!(with("/b_info/nested_hvm", "False".into()), None);
        assert_eq!(with("/disks/0/backend", "phy".into()), None);
    }

    #[test]
    fn whatever_libxl_may_come_to_know_is_refused_until_it_is_known_here() {
        let one = serde_json::json!([{ "devid": 0 }]);
        for kind in ["pcidevs", "usbctrls", "virtios", "made_up_in_xen_9"] {
            let said = with(&format!("/{kind}"), one.clone()).unwrap();
            assert!(
                said.contains(&format!("1 device(s) of kind {kind};")),
                "{said}"
            );
        }
        for part in ["/c_info", "/b_info", "/b_info/type.pvh", "/disks/0"] {
            let said = with(&format!("{part}/made_up"), 1.into()).unwrap();
            assert_eq!(said, "recovery is not made for made_up=1");
        }
    }

    #[test]
    fn what_cannot_move_or_be_thinly_backed_is_refused_with_its_reason() {
        let cases = [
            ("/c_info/type", "hvm", "only PVH"),
            ("/c_info/type", "pv", "this one is pv"),
            ("/c_info/passthrough", "enabled", "passthrough excludes"),
            ("/b_info/altp2m", "external", "altp2m excludes populate"),
            ("/b_info/nested_hvm", "True", "nested_hvm=True"),
            ("/b_info/type.pvh/pvshim", "True", "pvshim=True"),
            ("/disks/0/specification", "virtio", "specification=virtio"),
        ];
        for (path, value, why) in cases {
            let said = with(path, value.into()).unwrap_or_default();
            assert!(said.contains(why), "{path}: {said}");
        }
        for key in ["ioports", "irqs", "iomem"] {
            let said = with(&format!("/b_info/{key}"), serde_json::json!([5])).unwrap();
            assert_eq!(said, format!("{key} {HARDWARE}"));
        }
    }

    #[test]
    fn a_planned_disk_must_be_one_for_blkback() {
        let cases = [
            ("/disks/0/format", Value::from("qcow2")),
            ("/disks/0/backend", "qdisk".into()),
            ("/disks/0/backend_domid", 3.into()),
            ("/disks/0/backend_domname", "storage".into()),
        ];
        for (path, value) in cases {
            let said = with(path, value).unwrap_or_default();
            assert!(said.starts_with("disk xvda (format "), "{path}: {said}");
            assert!(
                said.contains("will not be served by blkback"),
                "{path}: {said}"
            );
        }
    }

    #[test]
    fn a_text_that_is_none_is_a_refusal() {
        assert!(refusal("{", None).is_some());
        assert_eq!(refusal("{}", None).unwrap(), PVH_ONLY);
    }
}
