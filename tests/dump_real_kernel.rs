// SPDX-License-Identifier: LGPL-2.1-or-later
//! A dump of a real crashed kernel's memory, opened by real tools.
//!
//! `VICOVER_TEST_IMAGES` names a directory; each directory below it that has a
//! file `ram`, memory from address 0 on as it was after "sysrq triggered
//! crash", and a file `ranges` of one line is one guest.

#[path = "support/command.rs"]
mod command;

use command::run;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use vicover::addr::{Page, Pfn, PAGE_SIZE};
use vicover::dump::{
    verify, Bitmap, Bitmaps, Chunk, Engine, EngineConfig, Facts, FileSink, Finding, Format, Pages,
    Unreadable, Utsname, VcpuRegisters, ZLIB,
};

const CHUNK: u64 = 2048;

struct Mapped {
    ram: Arc<File>,
    first: u64,
}

impl Pages for Mapped {
    fn copy(&self, index: usize, into: &mut Page) -> Result<(), Unreadable> {
        let at = (self.first + index as u64) * PAGE_SIZE as u64;
        self.ram.read_exact_at(into, at).map_err(|_| Unreadable)
    }
}

/// The text of the guest's note: name "VMCOREINFO" at the start of a page
/// (`vmcoreinfo_note`), checked only as far as a test must.
fn vmcoreinfo(ram: &File, pages: u64) -> Vec<u8> {
    let mut page = [0; PAGE_SIZE];
    for pfn in 0..pages {
        ram.read_exact_at(&mut page, pfn * PAGE_SIZE as u64)
            .unwrap();
        if &page[12..23] == b"VMCOREINFO\0" && page[24..].starts_with(b"OSRELEASE=") {
            let length = u32::from_le_bytes(page[4..8].try_into().unwrap()) as usize;
            return page[24..24 + length].to_vec();
        }
    }
    panic!("no VMCOREINFO in {pages} pages");
}

fn dump(ram: Arc<File>, dir: &Path, format: Format) -> PathBuf {
    let pages = ram.metadata().unwrap().len() / PAGE_SIZE as u64;
    let text = vmcoreinfo(&ram, pages);
    let lines = String::from_utf8(text.clone()).unwrap();
    let value = |key: &str| {
        lines
            .lines()
            .find_map(|line| line.strip_prefix(key))
            .unwrap()
    };
    let facts = Facts {
        utsname: Utsname {
            sysname: "Linux".into(),
            release: value("OSRELEASE=").into(),
            machine: "x86_64".into(),
            ..Default::default()
        },
        phys_base: value("NUMBER(phys_base)=").parse().unwrap(),
        vmcoreinfo: text,
        vcpus: vec![VcpuRegisters::default()],
        timestamp_s: 1_700_000_000,
        dump_level: 0,
        changes: Default::default(),
    };
    let mut all = Bitmap::new(Pfn(pages)).unwrap();
    all.set_range(Pfn(0), Pfn(pages));
    let bitmaps = Arc::new(Bitmaps::new(all.clone(), all).unwrap());
    let sink = FileSink::create(dir, "real", 1_700_000_000, format).unwrap();
    let config = EngineConfig {
        format,
        threads: 2,
        ..Default::default()
    };
    let (engine, completed) = Engine::start(Box::new(sink), &facts, bitmaps, config).unwrap();
    drop(completed);
    for first in (0..pages).step_by(CHUNK as usize) {
        let chunk = Chunk {
            first: Pfn(first),
            count: CHUNK.min(pages - first) as usize,
            pages: Mapped {
                ram: Arc::clone(&ram),
                first,
            },
        };
        engine.submit(chunk).unwrap();
    }
    engine.finish().unwrap().path.unwrap()
}

#[test]
#[ignore = "needs VICOVER_TEST_IMAGES, makedumpfile, python3-drgn and libkdumpfile10"]
fn the_panic_is_in_the_log_that_makedumpfile_finds() {
    let images = std::env::var_os("VICOVER_TEST_IMAGES").expect("VICOVER_TEST_IMAGES is not set");
    let mut guests = 0;
    for entry in std::fs::read_dir(images).unwrap() {
        let guest = entry.unwrap().path();
        let Ok(ranges) = std::fs::read_to_string(guest.join("ranges")) else {
            continue;
        };
        if ranges.lines().count() != 1 {
            continue;
        }
        guests += 1;
        let ram = Arc::new(File::open(guest.join("ram")).unwrap());
        for format in [Format::Kdump(ZLIB.fastest()), Format::Elf] {
            let dir = tempfile::tempdir().unwrap();
            let dump = dump(Arc::clone(&ram), dir.path(), format);
            assert_eq!(verify(&dump).unwrap().finding, Finding::Complete);
            let log = dir.path().join("log");
            run(Command::new("makedumpfile")
                .arg("--dump-dmesg")
                .args([&dump, &log]));
            let log = String::from_utf8_lossy(&std::fs::read(log).unwrap()).into_owned();
            assert!(log.contains("Linux version "), "{guest:?}");
            assert!(log.contains("sysrq triggered crash"), "{guest:?}");
            let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/readers/check_dump.py");
            for reader in ["drgn", "libkdumpfile"] {
                run(Command::new("/usr/bin/python3")
                    .args([script.as_os_str(), reader.as_ref(), "--raw".as_ref()])
                    .args([&dump, &guest.join("ram")]));
            }
        }
    }
    assert!(guests > 0, "no guest with one range of memory");
}
