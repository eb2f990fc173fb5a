// SPDX-License-Identifier: LGPL-2.1-or-later
//! How fast the page plan is made, and how much memory it takes.
//!
//! Writes target/bench/plan.json:
//!
//! - `scan_to_read_ratio`: bytes of page descriptors planned per second on one
//!   thread, to bytes per second when the same memory is only added up. Median of
//!   alternating rounds.
//! - `peak_bytes_1tib`: the most memory that planning a 1 TiB guest takes.
//! - `time_per_page_1tib_to_16gib`: time per page of the one to the other.
//!
//! Then writes what [`find`] measures.
//!
//! The guests for plan.json are made by hand. They have a mix of pages in small pieces; the
//! larger one shares its descriptors between sections, as far as memory here goes.

#[path = "find.rs"]
mod find;
#[path = "../guests/mod.rs"]
mod guests;

use std::fs;
use std::time::{Duration, Instant};

use guests::synthetic::{self as made, Guest, Page, DESCRIPTORS, KERNEL_PAGE, SECTION_PAGES};
use serde_json::json;
use vicover::guest::limits::Limits;
use vicover::guest::locate::{locate, Located};
use vicover::guest::plan::{build, Plan};
use vicover::guest::verdict::DumpLevel;

const GIB_FRAMES: u64 = 1 << 18;
const SMALL: u64 = 16 * GIB_FRAMES;
const LARGE: u64 = 1024 * GIB_FRAMES;
/// Sections of which the descriptors really exist: all those of 16 GiB.
const BLOCKS: u64 = SMALL / SECTION_PAGES;
const ROUNDS: usize = 7;
const ROUNDS_LARGE: usize = 3;

fn main() {
    let small = busy_guest(SMALL);
    let large = busy_guest(LARGE);
    let (found_small, found_large) = (kernel_of(&small), kernel_of(&large));
    let bytes = BLOCKS * SECTION_PAGES * 64;

    let mut scans = Vec::new();
    let mut reads = Vec::new();
    for _ in 0..ROUNDS {
        let start = Instant::now();
        let plan = plan(&small, &found_small);
        scans.push(start.elapsed());
        assert!(plan.doubts().is_empty(), "{:?}", plan.doubts());
        let start = Instant::now();
        let sum = small.memory.sum(DESCRIPTORS, bytes);
        reads.push(start.elapsed());
        assert_ne!(sum, 0);
    }
    let (scan, read) = (median(scans), median(reads));

    // The machine may have other things to do: alternate here as well.
    let per_page = |time: Duration, pages: u64| time.as_secs_f64() / pages as f64;
    let (mut peak, mut large_scans, mut to_small) = (0, Vec::new(), Vec::new());
    for _ in 0..ROUNDS_LARGE {
        let start = Instant::now();
        drop(plan(&small, &found_small));
        let small_scan = start.elapsed();
        reset_peak();
        let before = memory("VmRSS:");
        let start = Instant::now();
        let plan = plan(&large, &found_large);
        let scan = start.elapsed();
        peak = peak.max(memory("VmHWM:").saturating_sub(before));
        assert_eq!(plan.pages(), LARGE);
        assert!(plan.excluded_pages() > LARGE / 4);
        large_scans.push(scan);
        to_small.push(per_page(scan, LARGE) / per_page(small_scan, SMALL));
    }
    to_small.sort_by(f64::total_cmp);

    let result = json!({
        "scan_to_read_ratio": read.as_secs_f64() / scan.as_secs_f64(),
        "peak_bytes_1tib": peak,
        "time_per_page_1tib_to_16gib": to_small[ROUNDS_LARGE / 2],
        "scan_bytes_per_s": bytes as f64 / scan.as_secs_f64(),
        "read_bytes_per_s": bytes as f64 / read.as_secs_f64(),
        "pages_per_s": SMALL as f64 / scan.as_secs_f64(),
        "seconds_16gib": scan.as_secs_f64(),
        "seconds_1tib": median(large_scans).as_secs_f64(),
    });
    write("plan.json", &result);
    let (found, reached) = find::measure();
    write("find.json", &found);

    let most = LARGE * 3 / 8 + (64 << 20);
    assert!(peak <= most, "{peak} bytes at most, {most} are allowed");
    assert!(reached, "a kernel is found in longer than is allowed");
}

/// Writes a result to target/bench, and prints it.
fn write(name: &str, result: &serde_json::Value) {
    let target = std::env::var("CARGO_TARGET_DIR").unwrap_or_else(|_| "target".to_owned());
    let dir = format!("{target}/bench");
    fs::create_dir_all(&dir).expect("a directory for results");
    let text = serde_json::to_string_pretty(result).expect("JSON");
    fs::write(format!("{dir}/{name}"), &text).expect("the result is written");
    println!("{text}");
}

fn kernel_of(guest: &Guest) -> Located {
    locate(guest, &guest.processors(), &Limits::default()).expect("a kernel")
}

fn plan(guest: &Guest, located: &Located) -> Plan {
    let level = DumpLevel::DEFAULT;
    build(
        guest,
        located,
        &guest.processors(),
        level,
        &Limits::default(),
    )
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

/// Free blocks of several orders, huge pages, and single pages of processes, of
/// page cache and of the kernel.
fn busy_guest(frames: u64) -> Guest {
    let mut guest = Guest::with_blocks(frames, BLOCKS);
    let anonymous = Page {
        flags: made::LRU | made::SWAPBACKED,
        mapping: made::DIRECT_MAP + 1,
        mapcount: 0,
        ..KERNEL_PAGE
    };
    let slab = Page {
        mapcount: made::SLAB,
        ..KERNEL_PAGE
    };
    let first = (DESCRIPTORS >> 12) + BLOCKS * 512;
    for block in first / 1024 + 1..SMALL / 1024 {
        let pfn = block * 1024;
        match block % 8 {
            0 | 1 => guest.set_free(pfn, 10),
            2 => (0..16).for_each(|part| guest.set_free(pfn + part * 64, (part % 7) as u32)),
            3 => [0, 512]
                .into_iter()
                .for_each(|half| guest.set_compound(pfn + half, 9, anonymous)),
            4 => (0..1024).for_each(|page| guest.set(pfn + page, anonymous)),
            5 | 6 => (0..1024)
                .filter(|page| page % 37 != 0)
                .for_each(|page| guest.set_cache(pfn + page)),
            _ => (0..128).for_each(|part| guest.set_compound(pfn + part * 8, 3, slab)),
        }
    }
    guest.repeat_free(frames / SMALL);
    guest.write_description();
    guest
}

/// Makes the process's peak its present size (proc(5), `clear_refs`).
fn reset_peak() {
    fs::write("/proc/self/clear_refs", "5").expect("/proc/self/clear_refs");
}

/// A line of /proc/self/status, in bytes.
fn memory(line: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("/proc/self/status");
    let rest = status.split_once(line).expect("memory in the status").1;
    let kib: u64 = rest
        .split_whitespace()
        .next()
        .and_then(|n| n.parse().ok())
        .expect("KiB");
    kib * 1024
}
