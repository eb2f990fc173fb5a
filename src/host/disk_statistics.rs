// SPDX-License-Identifier: LGPL-2.1-or-later
//! What a domain asks of its disks, as dom0's kernel counts it.
//!
//! blkback counts the requests of each virtual disk, and the block device below it
//! knows how long they take (`relied_on::blkback_counts`). That device is the domain's
//! own, because dom0 mounts no disk that a guest has.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::os::fd::{entries, read_text};
use crate::pacing::sample::DiskTotals;

/// Bytes of a file of sysfs.
const MOST: u64 = 4096;

/// The disks of one domain. A disk counts from when it was first seen.
pub struct DiskStatistics {
    sysfs: PathBuf,
    prefix: String,
    /// `statistics` of each disk.
    backends: Vec<PathBuf>,
    /// `stat` of the devices below, each once however many disks are on it.
    devices: Vec<PathBuf>,
}

impl DiskStatistics {
    /// Looks for the disks of domain `domid` below `sysfs` (`/sys`).
    pub fn new(sysfs: &Path, domid: u32) -> Self {
        Self {
            sysfs: sysfs.into(),
            prefix: format!("vbd-{domid}-"),
            backends: Vec::new(),
            devices: Vec::new(),
        }
    }

    /// Added up over all disks; `None` when there is none (yet, or any more).
    pub fn totals(&mut self) -> Option<DiskTotals> {
        if self.devices.is_empty() {
            self.find();
        }
        let read = |stat: &PathBuf| parse(&read_text(stat, MOST).ok()?);
        let all: Vec<DiskTotals> = self.devices.iter().filter_map(read).collect();
        let sent: Vec<u64> = self.backends.iter().filter_map(|path| sent(path)).collect();
        if all.len() < self.devices.len() || sent.len() < self.backends.len() {
            // One has gone. Its numbers are missing from the sum, so begin anew.
            self.backends.clear();
            self.devices.clear();
            return None;
        }
        let sum = all.into_iter().reduce(DiskTotals::plus)?;
        Some(DiskTotals {
            sent: sent.into_iter().fold(0, u64::saturating_add),
            ..sum
        })
    }

    fn find(&mut self) {
        let bus = self.sysfs.join("bus/xen-backend/devices");
        let Ok(entries) = entries(&bus) else {
            return;
        };
        for entry in entries {
            let name = entry.file_name().unwrap_or_default();
            if !name.to_string_lossy().starts_with(&self.prefix) {
                continue;
            }
            let numbers = read_text(&entry.join("physical_device"), MOST);
            let numbers = numbers.ok().and_then(|text| block_numbers(text.trim()));
            if let Some((major, minor)) = numbers {
                let device = format!("dev/block/{major}:{minor}/stat");
                self.devices.push(self.sysfs.join(device));
                self.backends.push(entry.join("statistics"));
            }
        }
        self.devices.sort();
        self.devices.dedup();
    }
}

/// From `fe:10`, hexadecimal major and minor as blkback writes them.
pub(crate) fn block_numbers(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.split_once(':')?;
    let number = |text| u32::from_str_radix(text, 16).ok();
    Some((number(major)?, number(minor)?))
}

/// Requests of every kind in a backend's `statistics`: reads, writes, flushes,
/// discards.
fn sent(statistics: &Path) -> Option<u64> {
    ["rd_req", "wr_req", "f_req", "ds_req"]
        .iter()
        .map(|kind| {
            let text = read_text(&statistics.join(kind), MOST).ok()?;
            text.trim().parse::<u64>().ok()
        })
        .try_fold(0, |sum: u64, count| Some(sum.saturating_add(count?)))
}

/// A block device's `stat`: reads, merged, sectors, ms; these four of writes;
/// requests in flight, ms with any in flight, ms of all added up; discards and
/// flushes follow.
fn parse(stat: &str) -> Option<DiskTotals> {
    let numbers: Vec<u64> = stat
        .split_whitespace()
        .map(|number| number.parse().ok())
        .collect::<Option<_>>()?;
    let [reads, _, _, read_ms, writes, _, _, write_ms, in_flight, busy_ms, ..] = numbers[..] else {
        return None;
    };
    Some(DiskTotals {
        sent: 0,
        requests: reads.saturating_add(writes),
        wait: Duration::from_millis(read_ms.saturating_add(write_ms)),
        busy: Duration::from_millis(busy_ms),
        in_flight,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A sysfs with disks of domain 7 on the devices 254:16 and 254:32.
    fn sysfs() -> tempfile::TempDir {
        let sysfs = tempfile::tempdir().unwrap();
        for (disk, device) in [
            ("vbd-7-51712", "fe:10"),
            ("vbd-7-51728", "fe:20"),
            ("vbd-7-51744", "fe:20"),
            ("vbd-77-51712", "fe:30"),
            ("vif-7-0", "fe:40"),
        ] {
            add_disk(&sysfs, disk, device);
        }
        write(
            &sysfs,
            "dev/block/254:16/stat",
            "8 1 64 30 2 0 16 10 3 35 40 0 0 0 0 0 0",
        );
        write(&sysfs, "dev/block/254:32/stat", "1 0 8 5 0 0 0 0 0 5 5");
        sysfs
    }

    fn add_disk(sysfs: &tempfile::TempDir, disk: &str, device: &str) {
        let directory = format!("bus/xen-backend/devices/{disk}");
        write(sysfs, &format!("{directory}/physical_device"), device);
        for (count, kind) in ["rd_req", "wr_req", "f_req", "ds_req"].iter().enumerate() {
            let path = format!("{directory}/statistics/{kind}");
            write(sysfs, &path, &count.to_string());
        }
    }

    fn write(sysfs: &tempfile::TempDir, path: &str, text: &str) {
        let path = sysfs.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, format!("{text}\n")).unwrap();
    }

    #[test]
    fn the_disks_of_a_domain_are_added_up_each_once() {
        let sysfs = sysfs();
        let totals = DiskStatistics::new(sysfs.path(), 7).totals();
        assert_eq!(
            totals,
            Some(DiskTotals {
                sent: 18,
                requests: 11,
                wait: Duration::from_millis(45),
                busy: Duration::from_millis(40),
                in_flight: 3,
            })
        );
    }

    #[test]
    fn a_domain_without_disks_has_no_totals_until_it_has_some() {
        let sysfs = sysfs();
        let mut disks = DiskStatistics::new(sysfs.path(), 8);
        assert_eq!(disks.totals(), None);
        add_disk(&sysfs, "vbd-8-51712", "fe:20");
        assert_eq!(disks.totals().unwrap().requests, 1);
    }

    #[test]
    fn a_disk_that_goes_away_is_noticed() {
        let sysfs = sysfs();
        let mut disks = DiskStatistics::new(sysfs.path(), 7);
        assert!(disks.totals().is_some());
        std::fs::remove_dir_all(sysfs.path().join("dev/block/254:32")).unwrap();
        std::fs::remove_dir_all(sysfs.path().join("bus/xen-backend/devices/vbd-7-51728")).unwrap();
        std::fs::remove_dir_all(sysfs.path().join("bus/xen-backend/devices/vbd-7-51744")).unwrap();
        assert_eq!(disks.totals(), None);
        assert_eq!(disks.totals().unwrap().requests, 10);
    }

    #[test]
    fn what_is_not_a_statistic_is_none() {
        for text in ["", "1 2 3", "1 2 3 4 5 6 7 8 9 x"] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }
}
