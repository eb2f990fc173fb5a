// SPDX-License-Identifier: LGPL-2.1-or-later
//! Dumps that do not fit: the least useful pages are left out, no more of them than
//! must be.
#![allow(missing_docs)]

mod guests;

#[path = "support/command.rs"]
mod command;
#[path = "support/mounted.rs"]
mod mounted;

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, OnceLock};

use guests::synthetic::{Guest, Page, KERNEL_PAGE, LRU, SWAPBACKED};
use mounted::Mounted;
use vicover::addr::{Gfn, GfnRange, GuestPhys, PAGE_SHIFT};
use vicover::drain::Target;
use vicover::dump::{self, verify, Finding, Report};
use vicover::error::Error;
use vicover::guest::memory::GuestMemory;
use vicover::host::images::{Image, View};
use vicover::host::memory::{Faults, MemoryHost};
use vicover::job::JobState;
use vicover::options::Options;
use vicover::story::recover::dump_only;
use vicover::told::event::{DumpEvent, Event};
use vicover::told::kept::Kept;

const FRAMES: u64 = 0x6000;
/// Where programs' pages, page cache and free pages are, 4096 frames each.
const KINDS: [u64; 3] = [0x3000, 0x4000, 0x5000];
const EACH: u64 = 4096;

/// A guest made by hand as the in-memory host's image.
struct HandMade(Arc<Guest>);

impl Image for HandMade {
    fn ram(&self) -> &[GfnRange] {
        self.0.memory.ram()
    }

    fn view(&self, frames: GfnRange) -> std::io::Result<Box<dyn View>> {
        Ok(Box::new(HandMadeView(self.0.clone(), frames.start)))
    }
}

struct HandMadeView(Arc<Guest>, Gfn);

impl View for HandMadeView {
    fn read(&self, index: usize, offset: usize, into: &mut [u8]) -> bool {
        let at = ((self.1 .0 + index as u64) << PAGE_SHIFT) + offset as u64;
        self.0.memory.read(GuestPhys(at), into).is_ok()
    }
}

/// Made once for all tests.
fn guest() -> Arc<Guest> {
    static GUEST: OnceLock<Arc<Guest>> = OnceLock::new();
    GUEST.get_or_init(|| Arc::new(make_guest())).clone()
}

fn make_guest() -> Guest {
    let mut guest = Guest::new(FRAMES);
    let [programs, cache, free] = KINDS;
    let anonymous = Page {
        flags: LRU | SWAPBACKED,
        mapping: guests::synthetic::DIRECT_MAP + 1,
        mapcount: 0,
        ..KERNEL_PAGE
    };
    for page in 0..EACH {
        guest.set(programs + page, anonymous);
        guest.set_cache(cache + page);
    }
    for block in 0..EACH / 1024 {
        guest.set_free(free + block * 1024, 10);
    }
    guest.write_description();
    // Between nothing and all of a page is noise, and more of it further up.
    for pfn in KINDS.into_iter().flat_map(|first| first..first + EACH) {
        let bytes = 1 + noise(pfn) % (pfn / 6);
        guest.write(pfn << PAGE_SHIFT, &noisy(pfn, bytes as usize));
    }
    guest
}

/// One number of many, always the same.
fn noise(of: u64) -> u64 {
    let mixed = (of + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed ^ mixed >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 17
}

fn noisy(of: u64, bytes: usize) -> Vec<u8> {
    let words = (0..).map(|word| noise(of << 9 | word) | 0x0101_0101_0101_0101);
    words.flat_map(u64::to_le_bytes).take(bytes).collect()
}

/// Memory from address 0 on, of which a page is all noise or all zeroes.
struct Plain {
    ram: [GfnRange; 1],
    is_noise: fn(u64) -> bool,
}

impl Plain {
    fn new(frames: u64, is_noise: fn(u64) -> bool) -> Self {
        let ram = [GfnRange::new(Gfn(0), Gfn(frames))];
        Self { ram, is_noise }
    }
}

impl Image for Plain {
    fn ram(&self) -> &[GfnRange] {
        &self.ram
    }

    fn view(&self, frames: GfnRange) -> std::io::Result<Box<dyn View>> {
        Ok(Box::new(PlainView(frames.start, self.is_noise)))
    }
}

struct PlainView(Gfn, fn(u64) -> bool);

impl View for PlainView {
    fn read(&self, index: usize, offset: usize, into: &mut [u8]) -> bool {
        let pfn = self.0 .0 + index as u64;
        into.fill(0);
        if self.1(pfn) {
            into.copy_from_slice(&noisy(pfn, offset + into.len())[offset..]);
        }
        true
    }
}

struct Told {
    log: Kept,
    result: Result<(), Error>,
    directory: tempfile::TempDir,
}

fn dump(options: &str) -> Told {
    dump_of(Arc::new(HandMade(guest())), options)
}

fn dump_of(image: Arc<dyn Image>, options: &str) -> Told {
    let directory = tempfile::tempdir().unwrap();
    let (log, result) = dump_into(directory.path(), image, options);
    Told {
        log,
        result,
        directory,
    }
}

fn dump_into(dir: &Path, image: Arc<dyn Image>, options: &str) -> (Kept, Result<(), Error>) {
    let host = MemoryHost::new(image, 1, Faults::default());
    let log = Kept::default();
    let target = Target {
        options: Options::parse(options).unwrap(),
        name: "guest".into(),
        dump_dir: dir.into(),
        sink: Mutex::default(),
    };
    let result = dump_only(&host, &target, &|| (), &JobState::new(log.log("guest")));
    (log, result)
}

/// Pages are left out for lack of room.
fn is_left_out(event: &Event) -> bool {
    let room = |event: &DumpEvent| {
        matches!(
            event,
            DumpEvent::LeftOut { .. } | DumpEvent::NoRoomForLast { .. }
        )
    };
    matches!(event, Event::Dump(event) if room(event))
}

/// The one dump there is.
fn path_in(directory: &Path) -> PathBuf {
    let entries = std::fs::read_dir(directory).unwrap();
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|e| e == "kdump" || e == "elf"));
    let [path] = &paths[..] else {
        panic!("{paths:?}");
    };
    path.clone()
}

/// What the one dump there is holds; it is complete.
fn found(directory: &Path) -> Report {
    let report = verify(&path_in(directory)).unwrap();
    assert_eq!(report.finding, Finding::Complete);
    assert_eq!(
        report.wanted_pages,
        report.stored_pages + report.zero_pages + report.lost_pages
    );
    report
}

#[test]
fn a_dump_that_fits_is_what_was_asked_for() {
    let told = dump("dump_level=0,compress=none");
    told.result.unwrap();
    assert!(!told.log.has(is_left_out), "{}", told.log);
    let length = found(told.directory.path()).length;
    assert!(length > (3 * EACH) << PAGE_SHIFT);
}

#[test]
fn a_dump_that_fits_only_when_compressed_loses_nothing() {
    let whole = found(dump("dump_level=0,compress=none").directory.path());
    let small = found(dump("dump_level=0,compress=zlib").directory.path());
    // Not all that is uncertain is there to be used.
    let room = (small.length + small.length / 20).min(whole.length - 1);
    let told = dump(&format!("dump_level=0,compress=zlib,max_dump_size={room}"));
    told.result.unwrap();
    assert!(!told.log.has(is_left_out), "{}", told.log);
    let looked = |event: &Event| matches!(event, Event::Dump(DumpEvent::Expected { .. }));
    assert!(told.log.has(looked), "{}", told.log);
    assert_eq!(found(told.directory.path()).length, small.length);
}

/// What a kdump's bitmap of dumped pages says, of `frames` frames.
fn dumped(path: &Path, frames: u64) -> Vec<bool> {
    let bytes = std::fs::read(path).unwrap();
    let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
    // `sub_hdr_size` and `bitmap_blocks` of makedumpfile's diskdump_mod.h.
    let (sub_header, bitmaps) = (word(432), word(436));
    let second = (1 + sub_header + bitmaps / 2) << PAGE_SHIFT;
    let bit = |pfn: u64| bytes[second + (pfn / 8) as usize] >> (pfn % 8) & 1 == 1;
    (0..frames).map(bit).collect()
}

#[test]
fn the_least_useful_pages_are_left_out_first() {
    let whole = found(dump("dump_level=0,compress=none").directory.path()).length;
    let each = EACH << PAGE_SHIFT;
    // Half of the free pages are left out, half of the page cache as well, ...
    for gone in 0..3 {
        let room = whole - gone * each - each / 2;
        let told = dump(&format!("dump_level=0,compress=none,max_dump_size={room}"));
        told.result.unwrap();
        assert!(told.log.has(is_left_out), "{}", told.log);
        let report = found(told.directory.path());
        assert!(report.length <= room && report.length > room - room / 20);
        let dumped = dumped(&path_in(told.directory.path()), FRAMES);
        let of = |first: u64| {
            let kind = &dumped[first as usize..(first + EACH) as usize];
            kind.iter().filter(|&&is| is).count() as u64
        };
        let kinds = KINDS.map(of);
        for (kind, &count) in kinds.iter().rev().enumerate() {
            match (kind as u64).cmp(&gone) {
                std::cmp::Ordering::Less => assert_eq!(count, 0, "{kinds:?}"),
                std::cmp::Ordering::Equal => assert!((1..EACH).contains(&count), "{kinds:?}"),
                std::cmp::Ordering::Greater => assert_eq!(count, EACH, "{kinds:?}"),
            }
        }
        let others = dumped.iter().filter(|&&is| is).count() as u64 - kinds.iter().sum::<u64>();
        assert_eq!(others, FRAMES - 3 * EACH);
    }
}

/// The size of the smallest dump, as the refusal of a smaller one has it.
fn least_of(refusal: &Error) -> u64 {
    let Error::DumpStart(why) = refusal else {
        panic!("{}", refusal.chain());
    };
    let mut why = why;
    while let dump::Error::At { source, .. } = why {
        why = source;
    }
    match why {
        dump::Error::NoRoom { least, .. } => *least,
        other => panic!("{}", other.chain()),
    }
}

/// Dumps with every one of `steps` limits from what the tables take to the whole: each
/// is complete and no larger than its limit, and where pages had to be left out it uses
/// 95 % of that.
fn sweep(image: &Arc<dyn Image>, options: &str, steps: u64) {
    let dump = |limit: u64| dump_of(image.clone(), &format!("{options},max_dump_size={limit}"));
    let all = found(dump(0).directory.path());
    let refused = dump(4096).result.unwrap_err();
    let least = least_of(&refused);
    assert!(least < all.length, "{}", refused.chain());
    for step in 0..=steps {
        let limit = least + (all.length - least) * step / steps;
        let told = dump(limit);
        assert!(
            told.result.is_ok(),
            "{limit}: {}",
            told.result.unwrap_err().chain()
        );
        let report = found(told.directory.path());
        let there = report.stored_pages + report.zero_pages;
        assert!(there > 0, "no page in {limit} bytes");
        assert!(report.length <= limit, "{} of {limit} bytes", report.length);
        assert!(
            there == all.stored_pages + all.zero_pages || report.length * 20 >= limit * 19,
            "{} of {limit} bytes used, {there} of {} pages: {}",
            report.length,
            all.wanted_pages,
            told.log
        );
    }
}

#[test]
fn a_limit_is_used_and_kept_to_whatever_memory_holds() {
    let images: [(&str, Arc<dyn Image>); 4] = [
        ("zeroes", Arc::new(Plain::new(9000, |_| false))),
        ("noise", Arc::new(Plain::new(5000, |_| true))),
        (
            "noise, then zeroes",
            Arc::new(Plain::new(9000, |pfn| pfn < 2000)),
        ),
        (
            "both in turn",
            Arc::new(Plain::new(9000, |pfn| pfn % 3 == 0)),
        ),
    ];
    for (name, image) in images {
        eprintln!("{name}");
        sweep(&image, "dump_level=0,compress=none", 12);
    }
    let guest: Arc<dyn Image> = Arc::new(HandMade(guest()));
    for codec in ["zlib", "zstd"] {
        eprintln!("a guest, {codec}");
        sweep(&guest, &format!("dump_level=0,compress={codec}"), 8);
    }
}

#[test]
fn an_elf_dump_takes_no_more_of_the_disk_than_it_may() {
    let image: Arc<dyn Image> = Arc::new(Plain::new(9000, |pfn| pfn % 4 == 0));
    let room = 5 << 20;
    let options = format!("dump_level=0,format=elf,max_dump_size={room}");
    let told = dump_of(image, &options);
    told.result.unwrap();
    let file = std::fs::metadata(path_in(told.directory.path())).unwrap();
    assert_eq!(file.len() >> PAGE_SHIFT, 9001);
    let used = file.blocks() * 512;
    assert!(
        used <= room && used * 20 >= room * 19,
        "{used} of {room} bytes"
    );
}

#[test]
#[ignore = "needs root, to mount"]
fn a_full_disk_holds_a_dump_whatever_its_file_system_needs_itself() {
    let plain = Plain::new(9000, |pfn| pfn % 64 != 0);
    let image: Arc<dyn Image> = Arc::new(plain);
    for kind in [
        &["-b", "4096"][..],
        &["-b", "1024"],
        &["-b", "1024", "-O", "^64bit,^extent,^has_journal"],
    ] {
        for format in ["kdump", "elf"] {
            let disk = Mounted::new(kind, 24 << 20);
            let options = format!("dump_level=0,compress=none,reserve=0,format={format}");
            let free = || {
                let words = ["-f", "-c", "%a %S"];
                let said = Command::new("stat")
                    .args(words)
                    .arg(disk.path())
                    .output()
                    .unwrap();
                let said = String::from_utf8(said.stdout).unwrap();
                let (blocks, size) = said.trim().split_once(' ').unwrap();
                blocks.parse::<u64>().unwrap() * size.parse::<u64>().unwrap()
            };
            let before = free();
            let (log, result) = dump_into(&disk.path(), image.clone(), &options);
            result.unwrap_or_else(|error| panic!("{kind:?}: {}; {log}", error.chain()));
            let left = free();
            assert!(
                left * 20 <= before,
                "{kind:?}: {left} of {before} bytes left"
            );
            let report = verify(&path_in(&disk.path())).unwrap();
            assert_eq!(report.finding, Finding::Complete);
            assert_eq!(report.lost_pages, 0);
        }
    }
}

#[test]
fn without_room_for_tables_there_is_no_dump() {
    let told = dump("max_dump_size=4K");
    let error = told.result.unwrap_err().chain();
    assert!(error.contains("room for 4 KiB"), "{error}");
    assert_eq!(std::fs::read_dir(told.directory.path()).unwrap().count(), 0);
}
