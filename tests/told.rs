// SPDX-License-Identifier: LGPL-2.1-or-later
//! What an operator reads of a crash: each failure once, when it happens, with what
//! it was about and what can be done.
#![allow(missing_docs)]

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use vicover::drain::Target;
use vicover::dump::Sink;
use vicover::host::images::SyntheticImage;
use vicover::host::memory::{Faults, MemoryHost};
use vicover::job::Shared;
use vicover::options::Options;
use vicover::story::recover::{dump_only, recover};
use vicover::told::log::JobLog;

const FRAMES: u64 = 8192;

/// A log's lines, with their severity before them.
type Lines = Arc<Mutex<Vec<String>>>;

fn log_into(lines: &Lines) -> JobLog {
    let lines = lines.clone();
    let sink = move |level: log::Level, line: &str| {
        lines.lock().unwrap().push(format!("{level} {line}"));
    };
    JobLog::new("web1", Some(Box::new(sink)))
}

/// What a crash ended with: the log, and the job's error, empty when there is none.
fn crash(faults: Faults, dump_dir: &Path, sink: Option<Box<dyn Sink>>) -> (Vec<String>, String) {
    let host = MemoryHost::new(Arc::new(SyntheticImage::new(FRAMES)), 1, faults);
    let lines = Lines::default();
    let shared = Shared::new(log_into(&lines));
    let target = Target {
        options: Options::parse("dump_level=0,compress=none").unwrap(),
        name: "web1".into(),
        dump_dir: dump_dir.into(),
        sink: Mutex::new(sink),
    };
    let result = recover(&host, Box::new(host.clone()), None, &target, &shared);
    let error = result
        .as_ref()
        .map_or_else(|error| error.chain(), |()| String::new());
    shared.finish(result);
    let lines = lines.lock().unwrap().clone();
    (lines, error)
}

fn with<'a>(lines: &'a [String], text: &str) -> Vec<&'a str> {
    let those = lines.iter().filter(|line| line.contains(text));
    those.map(String::as_str).collect()
}

/// A disk that becomes full.
struct Full {
    room: u64,
}

const FULL: &str = "/srv/dump/web1.kdump.incomplete";

impl Sink for Full {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        match offset + bytes.len() as u64 > self.room {
            true => Err(io::ErrorKind::StorageFull.into()),
            false => Ok(()),
        }
    }
    fn prepare(&mut self, _tables: u64, _whole: u64) -> io::Result<()> {
        Ok(())
    }
    fn set_length(&mut self, _length: u64) -> io::Result<()> {
        Ok(())
    }
    fn sync(&mut self) -> io::Result<()> {
        Err(io::Error::from_raw_os_error(libc::EIO))
    }
    fn publish(&mut self, _manifest: Option<&str>) -> io::Result<()> {
        unreachable!("it is not complete")
    }
    fn path(&self) -> Option<PathBuf> {
        Some(FULL.into())
    }
}

#[test]
fn the_first_disk_error_is_told_when_it_happens_and_once() {
    let dir = tempfile::tempdir().unwrap();
    let full = Full { room: 9 << 20 };
    let (lines, error) = crash(Faults::default(), dir.path(), Some(Box::new(full)));
    let cause = format!("{FULL}: cannot write pages: no storage space");
    assert_eq!(
        with(&lines, "no storage space"),
        [format!("ERROR dump stopped: {cause}")]
    );
    let at = |text: &str| lines.iter().position(|line| line.contains(text));
    assert!(at("dump stopped") < at("dump incomplete"), "{lines:#?}");
    // How far it came is told at the end, and what became of the rest of it.
    let end = with(&lines, "dump incomplete");
    assert_eq!(end.len(), 1, "{lines:#?}");
    assert!(end[0].ends_with("pages written"), "{end:?}");
    assert_eq!(
        with(&lines, "WARN the incomplete dump may not be on the disk").len(),
        1
    );
    // Whoever asks the job gets it all, without a word twice.
    let (counts, rest) = error.split_once(": ").unwrap();
    assert!(counts.ends_with(" pages written"), "{error}");
    assert_eq!(rest, cause);
}

#[test]
fn a_dump_that_cannot_be_begun_is_told_once_with_its_path() {
    let dir = tempfile::tempdir().unwrap();
    let nowhere = dir.path().join("missing/dump");
    let (lines, _) = crash(Faults::default(), &nowhere, None);
    let why = format!("{}: No such file", nowhere.display());
    let said = with(&lines, &why);
    assert_eq!(said.len(), 1, "{lines:#?}");
    assert!(said[0].starts_with("ERROR no dump: "), "{said:?}");
    assert_eq!(with(&lines, "incomplete"), [""; 0]);
}

#[test]
fn a_dump_for_which_there_is_no_room_is_told_with_its_path() {
    let dir = tempfile::tempdir().unwrap();
    let host = MemoryHost::new(Arc::new(SyntheticImage::new(FRAMES)), 1, Faults::default());
    let shared = Shared::new(log_into(&Lines::default()));
    let target = Target {
        options: Options::parse("max_dump_size=8K").unwrap(),
        name: "web1".into(),
        dump_dir: dir.path().into(),
        sink: Mutex::default(),
    };
    let error = dump_only(&host, &target, &|| (), &shared)
        .unwrap_err()
        .chain();
    let path = format!("starting the dump: {}/web1-", dir.path().display());
    assert!(error.starts_with(&path), "{error}");
    assert!(error.ends_with("there is room for 8 KiB"), "{error}");
}

#[test]
fn a_missing_dump_directory_is_made_and_the_first_use_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let dump = dir.path().join("dump");
    let said = format!("made the dump directory {}", dump.display());
    let (lines, error) = crash(Faults::default(), &dump, None);
    assert_eq!(error, "");
    assert_eq!(with(&lines, &said), [format!("INFO {said}")]);
    assert_eq!(dump.metadata().unwrap().permissions().mode() & 0o777, 0o700);
    let (lines, _) = crash(Faults::default(), &dump, None);
    assert_eq!(with(&lines, "directory"), [""; 0]);
}

#[test]
fn a_crashed_domain_that_stays_is_told_with_what_it_holds_and_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let faults = Faults {
        destruction: true,
        ..Faults::default()
    };
    let (lines, _) = crash(faults, dir.path(), None);
    assert_eq!(
        with(&lines, "could not destroy"),
        [
            "ERROR could not destroy guest-crashed-1, which holds 0 bytes: destroy: it does \
             not go: run `xl destroy guest-crashed-1`"
        ]
    );
}

#[test]
fn memory_that_cannot_be_mapped_is_told_with_what_was_not_done() {
    let dir = tempfile::tempdir().unwrap();
    let faults = Faults {
        map: true,
        ..Faults::default()
    };
    let (lines, _) = crash(faults, dir.path(), None);
    assert!(!with(&lines, "WARN pages ").is_empty(), "{lines:#?}");
    for line in with(&lines, "WARN pages ") {
        let done = line.contains(" were not read: ") || line.contains(" were not given back: ");
        assert!(done, "{line}");
    }
}

#[test]
fn figures_are_written_for_people() {
    let dir = tempfile::tempdir().unwrap();
    let (lines, _) = crash(Faults::default(), dir.path(), None);
    let has = |text: &str| assert!(!with(&lines, text).is_empty(), "no {text:?} in {lines:#?}");
    has("guest: 1 vCPU, 32 MiB of memory");
    has("INFO dump: at most 32 MiB, ");
    has("settled: recovery has its full memory, 8192 pages (32 MiB) released");
    has("DEBUG verdicts: ");
    for line in &lines {
        assert!(!line.contains(" bytes"), "{line}");
    }
}
