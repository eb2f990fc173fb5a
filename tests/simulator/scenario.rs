// SPDX-License-Identifier: LGPL-2.1-or-later
//! What is simulated: guests, disks and loads.

use serde::{Deserialize, Serialize};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// The fastest a guest takes memory, as the memory guard has it.
const FASTEST_TOUCH: f64 = 8.0 * GIB as f64;

/// A small generator of numbers that look random (Steele, Lea, Flood:
/// "Fast splittable pseudorandom number generators", OOPSLA 2014).
#[derive(Clone)]
pub struct Numbers(pub u64);

impl Numbers {
    /// The next, from 0 to 1.
    pub fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// What recovery does most.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Load {
    /// It reads from its disks.
    Reads,
    /// It wants memory.
    Memory,
    /// Both.
    Both,
}

impl Load {
    pub const ALL: [Self; 3] = [Self::Reads, Self::Memory, Self::Both];

    pub fn name(self) -> &'static str {
        match self {
            Self::Reads => "reads",
            Self::Memory => "memory",
            Self::Both => "both",
        }
    }
}

/// A stage of recovery: so many items, done by so many clients at a time.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Work {
    pub clients: u32,
    pub items: u64,
    /// Mean computing for an item, in seconds.
    pub compute_s: f64,
    /// Bytes that an item reads. What is read takes as much memory.
    pub read_bytes: u64,
    /// Bytes that it touches besides.
    pub touch_bytes: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Scenario {
    pub seed: u64,
    pub load: Load,
    pub memory_bytes: u64,
    pub disk_bytes_per_s: f64,
    pub disk_latency_s: f64,
    pub disk_seek_s: f64,
    /// The part of memory that is dumped; the rest is given back at once.
    pub dumped_share: f64,
    /// Bytes of the dump for a byte of memory.
    pub compressed_to: f64,
    /// Bytes of the dump that the processors make in a second.
    pub dump_bytes_per_s: f64,
    /// Bytes that are given back in a second where no disk is involved.
    pub release_bytes_per_s: f64,
    /// Memory behind recovery when it starts to run, ...
    pub backed_bytes: u64,
    /// ... and what its kernel takes before it does anything.
    pub touched_bytes: u64,
    /// Whether the dump leaves a booting recovery the processors.
    pub head_start: bool,
    pub boot: Work,
    pub serve: Work,
}

impl Scenario {
    /// One scenario of a guest of `memory` bytes on a disk of `disk_rate` bytes a
    /// second. What else there is to choose is drawn by `seed`, from ranges that
    /// hold what is usual.
    pub fn draw(memory: u64, disk_rate: f64, load: Load, seed: u64) -> Self {
        let mut numbers = Numbers(seed);
        // Every other draw is without a head start: dump and boot at once.
        let head_start = numbers.next() < 0.5;
        let mut between = |least: f64, most: f64| {
            // Evenly in orders of magnitude.
            least * (most / least).powf(numbers.next())
        };
        let rotates = disk_rate <= 250e6 && between(1.0, 4.0) < 2.0;
        let read = (16 << (2 * between(1.0, 4.0) as u64)) << 10;
        let clients = between(1.0, 16.9) as u32;
        let whole = memory as f64;
        // A boot computes for some seconds, and reads kernel, programs and what
        // the service needs to start.
        let boot_reads = between(60e6, 400e6).min(whole / 8.0);
        let boot_touched = between(0.02, 0.08) * whole.min(64.0 * GIB as f64);
        let boot_s = between(1.0, 8.0);
        let boot_clients = between(1.0, 4.9) as u32;
        // The service reads what it works on, up to what it can keep in memory, ...
        let reads = match load {
            Load::Memory => between(0.001, 0.01),
            Load::Reads | Load::Both => between(0.05, 0.4),
        } * whole;
        // ... and takes memory for itself.
        let touched = match load {
            Load::Reads => between(0.005, 0.05),
            Load::Memory | Load::Both => between(0.1, 0.5),
        } * whole;
        // Some services wait for the disk only, others hardly.
        let alone_s = reads / disk_rate + touched / FASTEST_TOUCH;
        let serve_s = (alone_s * between(0.05, 4.0))
            .max(1.0)
            .max(touched / FASTEST_TOUCH);
        let most_reads = 20_000.0 * read as f64;
        let dumped_share = between(0.02, 0.9);
        // What recovery starts on, as the library sizes it.
        let backed_bytes = (128 * MIB + memory / 32).min(memory);
        Self {
            seed,
            load,
            memory_bytes: memory,
            disk_bytes_per_s: disk_rate,
            disk_latency_s: match rotates {
                true => 0.0001,
                false if disk_rate <= 1e9 => between(0.0001, 0.001),
                false => between(0.00003, 0.0002),
            },
            disk_seek_s: if rotates { between(0.004, 0.009) } else { 0.0 },
            dumped_share,
            compressed_to: between(0.15, 1.0),
            dump_bytes_per_s: between(50e6, 4e9),
            release_bytes_per_s: between(1e9, 8e9),
            backed_bytes,
            touched_bytes: 48 * MIB + memory / 64,
            head_start,
            boot: stage(boot_clients, boot_reads, 64 << 10, boot_touched, boot_s),
            serve: stage(clients, reads.min(most_reads), read, touched, serve_s),
        }
    }

    /// Memory that is given back without being dumped, beyond what recovery has
    /// when it starts to run.
    pub fn unwanted_bytes(&self) -> u64 {
        let unwanted = (self.memory_bytes as f64 * (1.0 - self.dumped_share)) as u64;
        unwanted.saturating_sub(self.backed_bytes)
    }

    /// Bytes that are to be written when recovery runs.
    pub fn dump_bytes(&self) -> u64 {
        let dumped = self.memory_bytes - self.backed_bytes - self.unwanted_bytes();
        (dumped as f64 * self.compressed_to) as u64
    }
}

/// Work that reads and touches so much and computes so long in all. Its items are
/// as many as there are reads, or pieces of memory small enough for the guard.
fn stage(clients: u32, reads: f64, read: u64, touched: f64, compute_s: f64) -> Work {
    let pieces = (reads / read as f64)
        .max(touched / (4 * MIB) as f64)
        .max(64.0);
    let pages = |bytes: f64| (bytes / pieces) as u64 / 4096 * 4096;
    Work {
        clients,
        items: pieces as u64,
        compute_s: compute_s * f64::from(clients) / pieces,
        read_bytes: pages(reads),
        touch_bytes: pages(touched),
    }
}

/// Many of them: every size of guest on every disk with every load, `draws`
/// times.
pub fn sweep(draws: u64) -> Vec<Scenario> {
    let memories = (0..=10).map(|power| GIB << power);
    let disks = [50e6, 100e6, 200e6, 500e6, 1e9, 2e9, 5e9, 10e9];
    let mut all = Vec::new();
    for memory in memories {
        for disk in disks {
            for load in Load::ALL {
                for _ in 0..draws {
                    let seed = all.len() as u64;
                    all.push(Scenario::draw(memory, disk, load, seed));
                }
            }
        }
    }
    all
}
