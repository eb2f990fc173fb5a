// SPDX-License-Identifier: LGPL-2.1-or-later
//! What a guest may have so that it can be recovered, as a list of what is allowed.
//!
//! libxl writes a configuration as JSON and leaves out what is as it is by default
//! (Xen 4.17, `tools/libs/light/gentypes.py`, `get_default_expr`). So whatever
//! stands there was asked for, also what only a later libxl knows, and it has to be
//! known here.

use serde_json::{Map, Value};

use super::allowed::{check_keys, elements, is_empty, Allowed::*, Keys, Reasons, OFF};
use super::disk;
use super::kind::{Kind, SUPPORTED};
use super::store::Store;

const HARDWARE: &str = "gives the guest hardware, which cannot move";

const CREATE: Keys = &[
    ("type", Any),
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
    ("arch_arm", Any),
    ("arch_x86", Any),
    ("altp2m", Only(&["disabled"])),
    ("vmtrace_buf_kb", Any),
    ("vpmu", Any),
];

/// Who serves a disk is looked at elsewhere.
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

const REASONS: Reasons = &[
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
    let kind = kind_of(config)?;
    let reasons = [REASONS, kind.reasons()];
    for (key, value) in config {
        match key.as_str() {
            "c_info" => check_keys(value, &[CREATE], &reasons)?,
            "b_info" => check_keys(value, &[BUILD, kind.keys()], &reasons)?,
            "disks" => elements(value).try_for_each(|disk| check_keys(disk, &[DISK], &reasons))?,
            "nics" => {}
            action if ACTIONS.contains(&action) => {}
            other => check_others(other, value)?,
        }
    }
    match domain {
        Some((store, domid)) => disk::check_served(store, domid),
        None => {
            let disks = config.get("disks").unwrap_or(&Value::Null);
            elements(disks).try_for_each(disk::check_planned)
        }
    }
}

/// The kind of guest first: other keys say little of another.
fn kind_of(config: &Map<String, Value>) -> Result<Kind, String> {
    match config.get("c_info").map(|info| &info["type"]) {
        Some(Value::String(name)) => {
            Kind::named(name).ok_or_else(|| format!("{SUPPORTED}; this one is {name}"))
        }
        _ => Err(SUPPORTED.into()),
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
            ("/disks/0/backend", "qdisk", "will not be served by blkback"),
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
    fn a_text_that_is_none_is_a_refusal() {
        assert!(refusal("{", None).is_some());
        assert_eq!(refusal("{}", None).unwrap(), SUPPORTED);
    }
}
