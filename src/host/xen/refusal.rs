// SPDX-License-Identifier: LGPL-2.1-or-later
//! What a guest may have so that it can be recovered, as a list of what is allowed.
//!
//! libxl writes a configuration as JSON and leaves out what is as it is by default
//! (`relied_on::json_tells_what_was_asked_for`). So whatever stands there was asked
//! for, and it has to be known here: a device of a kind, a switch or a structure that
//! only a later libxl has is refused without a line of its own. A pattern over
//! libxl's structures would not build where a member is missing or new, and they
//! differ between the versions that the library is built for; a text has no members
//! that nobody reads. What is not looked into is an interface: its successor gets the
//! whole of it, from libxl's own copy.

use serde_json::{Map, Value};

use super::allowed::{check_keys, elements, is_empty, Allowed::*, Keys, Reasons, OFF};
use super::device_model::DeviceModel;
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
    ("device_model_stubdomain", OFF),
    ("stubdomain_memkb", Any),
    ("device_model", Any),
    ("device_model_ssidref", Any),
    ("device_model_ssid_label", Any),
    ("device_model_user", Any),
    ("extra", Any),
    ("extra_pv", Any),
    ("extra_hvm", Any),
    ("sched_params", Inside(SCHEDULER)),
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
    ("tee", Only(&["none"])),
    ("type", Any),
    ("arch_arm", Any),
    ("arch_x86", Inside(&[("msr_relaxed", Any)])),
    ("altp2m", Only(&["disabled"])),
    ("vmtrace_buf_kb", Any),
    ("vpmu", Any),
];

const SCHEDULER: Keys = &[
    ("sched", Any),
    ("weight", Any),
    ("cap", Any),
    ("period", Any),
    ("budget", Any),
    ("extratime", Any),
    ("slice", Any),
    ("latency", Any),
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
    ("usbdevice", HARDWARE),
    ("usbdevice_list", HARDWARE),
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
    let [common, own] = kind.reasons();
    let reasons = [own, common, REASONS];
    for (key, value) in config {
        match key.as_str() {
            "c_info" => check_keys(value, &[CREATE], &reasons)?,
            "b_info" => check_keys(value, &[kind.keys(), BUILD], &reasons)?,
            "disks" => elements(value).try_for_each(|disk| check_keys(disk, &[DISK], &reasons))?,
            "nics" => {}
            action if ACTIONS.contains(&action) => {}
            other => check_others(other, value)?,
        }
    }
    match domain {
        Some((store, domid)) => {
            disk::check_served(store, domid)?;
            check_device_model(kind, store, domid)
        }
        None => {
            let disks = config.get("disks").unwrap_or(&Value::Null);
            elements(disks).try_for_each(disk::check_planned)
        }
    }
}

/// Nothing may be given back before QEMU has ended, so it must be known which one that is.
fn check_device_model(kind: Kind, store: &Store, domid: u32) -> Result<(), String> {
    if kind.has_device_model() {
        DeviceModel::required(store, domid).map_err(|error| error.to_string())?;
    }
    Ok(())
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
#[allow(unsafe_code)]
mod tests {
    use super::super::libxl::take_text;
    use super::super::sys;
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

    /// Puts a value at a path, such as `/b_info/acpi`.
    fn put(config: &mut Value, path: &str, value: Value) {
        let (parents, key) = path.rsplit_once('/').unwrap();
        config.pointer_mut(parents).unwrap()[key] = value;
    }

    fn with(path: &str, value: Value) -> Option<String> {
        refused(|config| put(config, path, value))
    }

    /// Each of these paths with such a value is refused with such a reason.
    fn all_refused(with: fn(&str, Value) -> Option<String>, cases: &[(&str, &str, &str)]) {
        for &(path, value, why) in cases {
            let said = with(path, value.into()).unwrap_or_default();
            assert!(said.contains(why), "{path}: {said}");
        }
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
        let parts = [
            "/c_info",
            "/b_info",
            "/b_info/arch_x86",
            "/b_info/sched_params",
        ];
        for part in [&parts[..], &["/b_info/type.pvh", "/disks/0"]].concat() {
            let said = with(&format!("{part}/made_up"), 1.into()).unwrap();
            assert_eq!(said, "recovery is not made for made_up=1");
        }
    }

    /// The members of a structure of the libxl that this is built with.
    fn members(structure: &str) -> Vec<&'static str> {
        let bindings = include_str!(concat!(env!("OUT_DIR"), "/libraries.rs"));
        let (_, after) = bindings
            .split_once(&format!("pub struct {structure} {{"))
            .expect(structure);
        let (inside, _) = after.split_once('}').unwrap();
        let lines = inside
            .lines()
            .filter_map(|line| line.trim().strip_prefix("pub "));
        let names = lines.filter_map(|line| line.split_once(':'));
        // bindgen marks what is a word of Rust's.
        names.map(|(name, _)| name.trim_end_matches('_')).collect()
    }

    #[test]
    fn every_device_of_this_libxl_moves_or_is_refused() {
        let known = ["c_info", "b_info", "disks", "nics"];
        let all = members("libxl_domain_config");
        assert!(all.contains(&"num_pcidevs"), "{all:?}");
        for member in all {
            let said = with(&format!("/{member}"), serde_json::json!([{ "devid": 0 }]));
            let is_count = member.starts_with("num_");
            let is_known = known.contains(&member) || ACTIONS.contains(&member);
            assert!(is_count || is_known || said.is_some(), "{member}");
        }
    }

    #[test]
    fn every_key_that_is_allowed_is_one_that_libxl_has() {
        /// Members that are not in every libxl that the library is built for.
        const LATER: [&str; 3] = ["bootloader_restrict", "bootloader_user", "grant_usage"];
        for (structure, keys) in [
            ("libxl_domain_create_info", CREATE),
            ("libxl_domain_build_info", BUILD),
            ("libxl_domain_sched_params", SCHEDULER),
            ("libxl_device_disk", DISK),
        ] {
            let members = members(structure);
            for (key, _) in keys {
                assert!(members.contains(key) || LATER.contains(key), "{key}");
            }
        }
    }

    /// What this libxl writes of a PVH guest of which nothing was asked but `change`.
    fn written(change: impl FnOnce(&mut sys::libxl_domain_config)) -> String {
        let mut config = sys::libxl_domain_config::default();
        // SAFETY: initialised by libxl before anything else; the context is only used
        // to log a failure, which ends the test; the text is terminated, and copied
        // before it is freed. What `change` puts in is not freed: it is the test's.
        unsafe {
            sys::libxl_domain_config_init(&mut config);
            config.c_info.type_ = sys::LIBXL_DOMAIN_TYPE_PVH;
            sys::libxl_domain_build_info_init_type(&mut config.b_info, config.c_info.type_);
            change(&mut config);
            let text = sys::libxl_domain_config_to_json(std::ptr::null_mut(), &mut config);
            take_text(text, "libxl_domain_config_to_json")
        }
        .unwrap()
        .into_string()
        .unwrap()
    }

    #[test]
    fn whatever_this_libxl_writes_is_judged() {
        assert_eq!(refusal(&written(|_| ()), None), None);
        let mut device = sys::libxl_device_vtpm::default();
        let said = written(|config| (config.num_vtpms, config.vtpms) = (1, &mut device));
        let said = refusal(&said, None).unwrap();
        assert!(said.contains("1 device(s) of kind vtpms"), "{said}");
        // SAFETY: the part of a PVH guest, whose type was set before.
        let shim = |config: &mut sys::libxl_domain_config| unsafe {
            sys::libxl_defbool_set(&mut config.b_info.u.pvh.pvshim, true);
        };
        let said = refusal(&written(shim), None).unwrap();
        assert!(said.contains("pvshim=True"), "{said}");
    }

    #[test]
    fn what_cannot_move_or_be_thinly_backed_is_refused_with_its_reason() {
        let cases = [
            ("/c_info/type", "sunos", "only PV, PVH and HVM"),
            ("/c_info/type", "invalid", "this one is invalid"),
            ("/c_info/passthrough", "enabled", "passthrough excludes"),
            ("/b_info/altp2m", "external", "altp2m excludes populate"),
            ("/b_info/nested_hvm", "True", "nested_hvm=True"),
            ("/b_info/type.pvh/pvshim", "True", "pvshim=True"),
            ("/disks/0/specification", "virtio", "specification=virtio"),
            (
                "/disks/0/backend",
                "tap",
                "will not be served by blkback or QEMU",
            ),
        ];
        all_refused(with, &cases);
        for key in ["ioports", "irqs", "iomem"] {
            let said = with(&format!("/b_info/{key}"), serde_json::json!([5])).unwrap();
            assert_eq!(said, format!("{key} {HARDWARE}"));
        }
    }

    /// [`with`] of a guest with a device model.
    fn hvm_with(path: &str, value: Value) -> Option<String> {
        refused(|config| {
            config["c_info"]["type"] = "hvm".into();
            let build = config["b_info"].as_object_mut().unwrap();
            build.remove("type.pvh");
            build.insert("device_model_version".into(), "qemu_xen".into());
            build.insert("dm_restrict".into(), "False".into());
            build.insert(
                "type.hvm".into(),
                serde_json::json!({ "vga": { "kind": "cirrus" }, "vnc": { "enable": "True" } }),
            );
            put(config, path, value);
        })
    }

    #[test]
    fn a_guest_with_a_device_model_can_be_recovered_when_its_end_can_be_told() {
        assert_eq!(hvm_with("/b_info/type.hvm/boot", "c".into()), None);
        let tablet = serde_json::json!(["tablet"]);
        assert_eq!(hvm_with("/b_info/type.hvm/usbdevice_list", tablet), None);
        let stick = serde_json::json!(["tablet", "host:0123:4567"]);
        let said = hvm_with("/b_info/type.hvm/usbdevice_list", stick).unwrap();
        assert_eq!(said, format!("usbdevice_list {HARDWARE}"));
        let cases = [
            (
                "/b_info/device_model_version",
                "qemu_xen_traditional",
                "must be \"qemu-xen\"",
            ),
            ("/b_info/dm_restrict", "True", "dm_restrict leaves nobody"),
            ("/b_info/device_model_stubdomain", "True", "=True"),
            ("/b_info/type.hvm/gfx_passthru", "True", "gfx_passthru=True"),
            (
                "/b_info/type.hvm/altp2m",
                "True",
                "altp2m excludes populate",
            ),
            ("/b_info/type.hvm/made_up", "1", "made_up=1"),
            ("/b_info/type.pvh", "1", "type.pvh=1"),
        ];
        all_refused(hvm_with, &cases);
    }

    #[test]
    fn a_text_that_is_none_is_a_refusal() {
        assert!(refusal("{", None).is_some());
        assert_eq!(refusal("{}", None).unwrap(), SUPPORTED);
    }
}
