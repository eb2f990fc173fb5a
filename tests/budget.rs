//! Dumps that do not fit: the level rises, then the most useful pages are kept.
#![allow(missing_docs)]

mod guests;

use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};

use guests::synthetic::{Guest, Page, KERNEL_PAGE, LRU, SWAPBACKED};
use vicover::addr::{Gfn, GfnRange, GuestPhys, PAGE_SHIFT};
use vicover::dump::{verify, Verdict};
use vicover::error::Error;
use vicover::guest::memory::GuestMemory;
use vicover::host::images::{Image, View};
use vicover::host::memory::{Faults, MemoryHost};
use vicover::job::Shared;
use vicover::joblog::JobLog;
use vicover::options::Options;
use vicover::recover::{dump_only, Target};

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
    for pfn in KINDS.into_iter().flat_map(|first| first..first + EACH) {
        guest.write(pfn << PAGE_SHIFT, &pfn.to_le_bytes().repeat(512));
    }
    guest
}

struct Told {
    log: String,
    result: Result<(), Error>,
    directory: tempfile::TempDir,
}

fn dump(options: &str) -> Told {
    let host = MemoryHost::new(Arc::new(HandMade(guest())), 1, Faults::default());
    let directory = tempfile::tempdir().unwrap();
    let lines = Arc::new(Mutex::new(Vec::<String>::new()));
    let sink = lines.clone();
    let log = JobLog::new(
        "guest",
        Some(Box::new(move |_, line| {
            sink.lock().unwrap().push(line.into())
        })),
    );
    let target = Target {
        options: Options::parse(options).unwrap(),
        name: "guest".into(),
        dump_dir: directory.path().into(),
        sink: Mutex::default(),
    };
    let result = dump_only(&host, &target, &|| (), &Shared::new(log));
    let log = lines.lock().unwrap().join("\n");
    Told {
        log,
        result,
        directory,
    }
}

/// Length and pages of the one dump there is, which is complete.
fn found(directory: &Path) -> (u64, u64) {
    let entries = std::fs::read_dir(directory).unwrap();
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|e| e == "kdump"));
    let [path] = &paths[..] else {
        panic!("{paths:?}");
    };
    let report = verify(path).unwrap();
    assert_eq!(report.verdict, Verdict::Complete);
    (report.length, report.wanted_pages)
}

#[test]
fn a_dump_that_fits_is_what_was_asked_for() {
    let told = dump("dump_level=0,compress=none");
    told.result.unwrap();
    assert!(!told.log.contains("no room"), "{}", told.log);
    let (length, _) = found(told.directory.path());
    assert!(length > (3 * EACH) << PAGE_SHIFT);
}

#[test]
fn the_level_rises_no_further_than_it_must() {
    let (whole, pages) = found(dump("dump_level=0,compress=none").directory.path());
    // Room for all but one, two and three of the kinds.
    for (kinds, level) in [(1, 17), (2, 19), (3, 31)] {
        let room = whole - kinds * (EACH << PAGE_SHIFT) + (EACH << PAGE_SHIFT) / 2;
        let told = dump(&format!("dump_level=0,compress=none,max_dump_size={room}"));
        told.result.unwrap();
        let room_text = vicover::units::Size(room);
        let raised = format!("no room for level 0 in {room_text}, level raised to {level}");
        assert!(told.log.contains(&raised), "{raised}; {}", told.log);
        assert!(!told.log.contains("most useful"), "{}", told.log);
        let (length, wanted) = found(told.directory.path());
        assert!(length <= room, "{length} of {room} bytes");
        assert_eq!(wanted, pages - kinds * EACH);
    }
}

#[test]
fn when_no_level_fits_the_most_useful_pages_are_kept() {
    let (least, pages) = found(dump("dump_level=31,compress=none").directory.path());
    let room = least / 2;
    let told = dump(&format!("compress=none,max_dump_size={room}"));
    told.result.unwrap();
    assert!(told.log.contains("the most useful"), "{}", told.log);
    let (length, wanted) = found(told.directory.path());
    assert!(length <= room, "{length} of {room} bytes");
    assert!(wanted > 0 && wanted < pages, "{wanted} of {pages} pages");
}

#[test]
fn without_room_for_tables_there_is_no_dump() {
    let told = dump("max_dump_size=4K");
    let error = told.result.unwrap_err().chain();
    assert!(error.contains("room for 4 KiB"), "{error}");
    assert_eq!(std::fs::read_dir(told.directory.path()).unwrap().count(), 0);
}
