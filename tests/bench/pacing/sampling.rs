// SPDX-License-Identifier: LGPL-2.1-or-later
//! What a look of the controller costs this machine.

use std::fs;
use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{json, Value};
use vicover::host::disk_statistics::DiskStatistics;
use vicover::pacing::controller::{Controller, INTERVAL};
use vicover::pacing::policy::Policy;
use vicover::pacing::sample::{MemoryState, Sample, WriterTotals};

const LOOKS: u32 = 2000;

/// Looks at one disk's counters, in files of the kernel where there is a disk to
/// look at, and has the adaptive controller decide; without the two hypercalls that
/// a look takes on Xen.
pub(crate) fn measure() -> Value {
    let sysfs = tempfile::tempdir().expect("a directory");
    lay_out(sysfs.path());
    let mut disks = DiskStatistics::new(sysfs.path(), 1);
    let mut controller = Controller::new(Policy::Adaptive);
    let mut sample = Sample {
        at: Duration::ZERO,
        disk: None,
        dump: WriterTotals::default(),
        memory: Some(MemoryState::default()),
        stopped: false,
    };
    let began = Instant::now();
    for _ in 0..LOOKS {
        sample.at += INTERVAL;
        sample.disk = disks.totals();
        assert!(sample.disk.is_some(), "no figures of the disk");
        sample.dump.bytes += 1 << 20;
        sample.dump.busy += INTERVAL / 2;
        black_box(controller.limits(&sample));
    }
    let look = began.elapsed() / LOOKS;
    let share = look.as_secs_f64() / INTERVAL.as_secs_f64();
    println!(
        "\nA look takes {:.0} us, {:.2} % of a processor at {} a second (asked: under 1 %),\n\
         without hypercalls",
        look.as_secs_f64() * 1e6,
        100.0 * share,
        1000 / INTERVAL.as_millis()
    );
    json!({
        "look_s": look.as_secs_f64(),
        "share_of_a_processor": share,
        "passes": share < 0.01,
    })
}

/// A domain's disk as dom0 shows it, over a real disk of this machine if it has one.
fn lay_out(sysfs: &Path) {
    let backend = sysfs.join("bus/xen-backend/devices/vbd-1-51712");
    fs::create_dir_all(backend.join("statistics")).expect("a directory");
    for kind in ["rd_req", "wr_req", "f_req", "ds_req"] {
        fs::write(backend.join("statistics").join(kind), "12345\n").expect("a file");
    }
    fs::write(backend.join("physical_device"), "fe:10\n").expect("a file");
    let device = sysfs.join("dev/block/254:16");
    fs::create_dir_all(&device).expect("a directory");
    let real = fs::read_dir("/sys/block")
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path().join("stat"))
        .find(|stat| stat.exists());
    match real {
        Some(stat) => std::os::unix::fs::symlink(stat, device.join("stat")).expect("a link"),
        None => fs::write(device.join("stat"), "1 0 8 1 1 0 8 1 0 2 2\n").expect("a file"),
    }
}
