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
use vicover::error::ErrorKind;
use vicover::host::images::SyntheticImage;
use vicover::host::memory::{Faults, MemoryHost};
use vicover::host::HostError;
use vicover::job::JobState;
use vicover::options::Options;
use vicover::story::recover::{dump_only, recover};
use vicover::told::event::{DumpEvent, Event, GuestEvent, RecoveryEvent, Step};
use vicover::told::kept::Kept;
use vicover::units::Size;

const FRAMES: u64 = 8192;

/// What a crash ended with: its events, and the job's error, empty when there is none.
fn crash(faults: Faults, dump_dir: &Path, sink: Option<Box<dyn Sink>>) -> (Vec<Event>, String) {
    let host = MemoryHost::new(Arc::new(SyntheticImage::new(FRAMES)), 1, faults);
    let kept = Kept::default();
    let shared = JobState::new(kept.log("web1"));
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
    (kept.events(), error)
}

/// The events of the dump.
fn of_dump(events: &[Event]) -> Vec<&DumpEvent> {
    let of_dump = events.iter().filter_map(|event| match event {
        Event::Dump(event) => Some(event),
        _ => None,
    });
    of_dump.collect()
}

/// A disk that becomes full.
struct Full {
    room: u64,
    /// Something did not fit.
    is_full: bool,
}

const FULL: &str = "/srv/dump/web1.kdump.incomplete";

impl Sink for Full {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.is_full |= offset + bytes.len() as u64 > self.room;
        match self.is_full {
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
        match self.is_full {
            true => Err(io::Error::from_raw_os_error(libc::EIO)),
            false => Ok(()),
        }
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
    let full = Full {
        room: 9 << 20,
        is_full: false,
    };
    let (events, error) = crash(Faults::default(), dir.path(), Some(Box::new(full)));
    let cause = format!("{FULL}: cannot write pages: no storage space");
    let said = of_dump(&events);
    let stopped = DumpEvent::Stopped { why: cause.clone() };
    let at = said.iter().position(|event| **event == stopped);
    let told = events
        .iter()
        .filter(|event| event.to_string().contains(&cause));
    assert_eq!(told.count(), 1, "{events:#?}");
    // How far it came is told at the end, and what became of the rest of it.
    let ends = |event: &&DumpEvent| matches!(event, DumpEvent::Incomplete { .. });
    let end = said.iter().position(ends);
    assert!(at.is_some() && at < end, "{events:#?}");
    match said.iter().copied().filter(ends).collect::<Vec<_>>()[..] {
        [DumpEvent::Incomplete { why, is_told: true }] => {
            assert!(why.text.ends_with("pages written"), "{why:?}");
        }
        _ => panic!("{events:#?}"),
    }
    let not_synced = |event: &&&DumpEvent| matches!(event, DumpEvent::NotSynced { .. });
    assert_eq!(said.iter().filter(not_synced).count(), 1);
    // Whoever asks the job gets it all, without a word twice.
    let (counts, rest) = error.split_once(": ").unwrap();
    assert!(counts.ends_with(" pages written"), "{error}");
    assert_eq!(rest, cause);
}

#[test]
fn a_dump_that_cannot_be_begun_is_told_once_with_its_path() {
    let dir = tempfile::tempdir().unwrap();
    let nowhere = dir.path().join("missing/dump");
    let (events, _) = crash(Faults::default(), &nowhere, None);
    let [DumpEvent::NotMade { why }] = of_dump(&events)[..] else {
        panic!("{events:#?}");
    };
    let missing = format!("{}: No such file", nowhere.display());
    assert!(why.text.contains(&missing), "{why}");
    assert_eq!(why.kind, ErrorKind::Io);
}

#[test]
fn a_dump_for_which_there_is_no_room_is_told_with_its_path() {
    let dir = tempfile::tempdir().unwrap();
    let host = MemoryHost::new(Arc::new(SyntheticImage::new(FRAMES)), 1, Faults::default());
    let shared = JobState::new(Kept::default().log("web1"));
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
    let made = DumpEvent::DirectoryMade { path: dump.clone() };
    let (events, error) = crash(Faults::default(), &dump, None);
    assert_eq!(error, "");
    assert!(of_dump(&events).contains(&&made), "{events:#?}");
    assert_eq!(dump.metadata().unwrap().permissions().mode() & 0o777, 0o700);
    let (events, _) = crash(Faults::default(), &dump, None);
    assert!(!of_dump(&events).contains(&&made), "{events:#?}");
}

#[test]
fn a_crashed_domain_that_stays_is_told_with_what_it_holds_and_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let faults = Faults {
        destruction: true,
        ..Faults::default()
    };
    let (events, _) = crash(faults, dir.path(), None);
    let stays = RecoveryEvent::CrashedNotDestroyed {
        name: "guest-crashed-1".into(),
        held: Size(0),
        error: HostError::new("destroy", "it does not go"),
    };
    assert!(events.contains(&stays.into()), "{events:#?}");
}

#[test]
fn memory_that_cannot_be_mapped_is_told_with_what_was_not_done() {
    let dir = tempfile::tempdir().unwrap();
    let faults = Faults {
        map: true,
        ..Faults::default()
    };
    let (events, _) = crash(faults, dir.path(), None);
    let missed = |wanted: Step| {
        let is_it =
            |event: &&DumpEvent| matches!(event, DumpEvent::Missed { step, .. } if *step == wanted);
        of_dump(&events).into_iter().filter(is_it).count()
    };
    assert!(
        missed(Step::Read) + missed(Step::Release) > 0,
        "{events:#?}"
    );
}

#[test]
fn a_crash_is_told_from_the_first_figure_to_the_last() {
    let dir = tempfile::tempdir().unwrap();
    let (events, _) = crash(Faults::default(), dir.path(), None);
    let memory = Size::of_pages(FRAMES);
    let has = |event: Event| assert!(events.contains(&event), "no {event:?} in {events:#?}");
    has(GuestEvent::Seen { vcpus: 1, memory }.into());
    has(RecoveryEvent::Detached.into());
    has(RecoveryEvent::Settled {
        released_pages: FRAMES,
    }
    .into());
    let complete = of_dump(&events).into_iter().find_map(|event| match event {
        DumpEvent::Complete { pages, path, .. } => Some((*pages, path.clone())),
        _ => None,
    });
    let (pages, path) = complete.unwrap_or_else(|| panic!("{events:#?}"));
    assert_eq!(pages, FRAMES);
    assert_eq!(
        path.and_then(|path| path.parent().map(Path::to_owned))
            .as_deref(),
        Some(dir.path())
    );
}
