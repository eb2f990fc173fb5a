// SPDX-License-Identifier: LGPL-2.1-or-later
//! Journals whose process is gone, or not; and whatever else may be in their directory.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::*;
use crate::addr::{Gfn, GfnRange};
use crate::dump::{Changes, Zeroed};
use crate::os::process::{boot_id, Process};

const NOW: Option<Duration> = Some(Duration::ZERO);
const LONG: Option<Duration> = Some(Duration::from_secs(60));

fn begun(uuid: &str) -> Begun {
    Begun {
        version: Begun::VERSION,
        guest: "web1".into(),
        uuid: uuid.into(),
        domid: 7,
        boot_id: boot_id().unwrap(),
        options: "dump_level=31".into(),
        dump_dir: "/var/lib/xen/dump".into(),
        without_dump: false,
        memory_pages: 1000,
        host: "{}".into(),
    }
}

fn line(entry: &Entry) -> String {
    serde_json::to_string(entry).unwrap() + "\n"
}

/// A directory of journals, and processes that handle crashes until they are told to end.
struct Desk {
    directory: tempfile::TempDir,
    handlers: Vec<Child>,
}

impl Desk {
    fn new() -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
            handlers: Vec::new(),
        }
    }

    /// The journal of a crash that another process handles.
    fn handled(&mut self, uuid: &str) -> PathBuf {
        let cat = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let by = Handler(Process::numbered(i32::try_from(cat.id()).unwrap()).unwrap());
        self.handlers.push(cat);
        let text = line(&Entry::Begun(begun(uuid))) + &line(&Entry::Handled { by });
        self.write(&format!("{uuid}.journal"), &text)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.directory.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }

    /// All handlers end.
    fn end(&mut self) {
        for mut handler in self.handlers.drain(..) {
            handler.kill().unwrap();
            handler.wait().unwrap();
        }
    }

    fn found(&self, guest: Option<&str>, timeout: Option<Duration>) -> Option<PathBuf> {
        let found = find(self.directory.path(), guest, timeout).unwrap();
        found.map(|found| found.journal)
    }
}

fn taken(path: &Path) -> Past {
    match take_over(path).unwrap() {
        TakeOver::Taken(past, _) => *past,
        TakeOver::NotNeeded => panic!("it is not needed"),
        TakeOver::PutAside(why) => panic!("{why}"),
    }
}

fn put_aside(path: &Path) -> String {
    match take_over(path).unwrap() {
        TakeOver::PutAside(why) => why,
        _ => panic!("somebody can go on"),
    }
}

#[test]
fn a_crash_is_found_when_its_process_ends_and_by_whom_it_concerns() {
    let mut desk = Desk::new();
    let path = desk.handled("a");
    assert_eq!(desk.found(None, NOW), None);
    let directory = desk.directory.path().to_owned();
    let waiting = std::thread::spawn(move || find(&directory, None, LONG).unwrap());
    desk.end();
    let found = waiting.join().unwrap().expect("its process has ended");
    assert_eq!(
        (found.journal, found.guest.as_str(), found.domid),
        (path.clone(), "web1", 7)
    );
    assert_eq!(desk.found(Some("web2"), NOW), None);
    assert_eq!(desk.found(Some("web1"), NOW), Some(path));
}

#[test]
fn a_crash_that_begins_meanwhile_is_found_as_well() {
    let mut desk = Desk::new();
    let directory = desk.directory.path().to_owned();
    let waiting = std::thread::spawn(move || find(&directory, None, LONG).unwrap());
    desk.handled("a");
    desk.end();
    assert!(waiting.join().unwrap().is_some());
}

#[test]
fn one_process_takes_a_crash_over_and_no_other() {
    let mut desk = Desk::new();
    let path = desk.handled("a");
    assert!(matches!(take_over(&path).unwrap(), TakeOver::NotNeeded));
    desk.end();
    // Killed in the middle of a line.
    let text = fs::read_to_string(&path).unwrap() + "{\"entry\":\"detac";
    fs::write(&path, text).unwrap();
    let past = taken(&path);
    assert_eq!((past.begun, past.is_detaching), (begun("a"), false));
    assert!(matches!(take_over(&path).unwrap(), TakeOver::NotNeeded));
    assert_eq!(desk.found(None, NOW), None, "this process has it");
    let past = Past::read(&fs::read_to_string(&path).unwrap()).unwrap();
    assert_eq!(past.handlers.len(), 2);
    fs::remove_file(&path).unwrap();
    assert!(matches!(take_over(&path).unwrap(), TakeOver::NotNeeded));
}

#[test]
fn what_nobody_can_go_on_with_is_put_aside() {
    let desk = Desk::new();
    let nonsense = desk.write("b.journal", "what is this?\n");
    assert_eq!(desk.found(None, NOW).as_ref(), Some(&nonsense));
    assert!(put_aside(&nonsense).starts_with("line 1: "));
    assert!(nonsense.with_extension("put-aside").exists());
    assert_eq!(desk.found(None, NOW), None);

    let empty = desk.write("c.journal", "");
    assert_eq!(put_aside(&empty), "there is no whole line");
    let newer = line(&Entry::Begun(Begun {
        version: 2,
        ..begun("d")
    }));
    let newer = desk.write("d.journal", &newer);
    assert_eq!(put_aside(&newer), "it is of version 2; known is 1");
    let before = line(&Entry::Begun(Begun {
        boot_id: "another".into(),
        ..begun("e")
    }));
    let before = desk.write("e.journal", &before);
    assert!(put_aside(&before).contains("started anew"));
}

#[test]
fn a_crash_that_ends_every_process_is_given_up() {
    let mut desk = Desk::new();
    let path = desk.handled("a");
    let text = fs::read_to_string(&path).unwrap();
    let handled = text.lines().nth(1).unwrap().to_owned() + "\n";
    fs::write(&path, text + &handled.repeat(15)).unwrap();
    desk.end();
    assert!(put_aside(&path).starts_with("16 processes have ended"));
}

fn recorded(path: &str) -> Entry {
    let path = path.into();
    Entry::Recorded { path }
}

fn dump_begun(path: &str, changes: &Changes) -> Entry {
    let path = Some(path.into());
    let changes = changes.clone();
    Entry::DumpBegun { path, changes }
}

#[test]
fn what_is_written_is_read_back() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("made");
    let journal = Journal::default();
    journal.open(Box::new(JournalFile::begin(&place, begun("a")).unwrap()));
    let untouched = Untouched::of([GfnRange::new(Gfn(3), Gfn(5))].into_iter());
    let (pfn, offset, bytes) = (7, 8, 8);
    let changes = Changes {
        translated_tables: true,
        zeroed: vec![Zeroed { pfn, offset, bytes }],
    };
    for entry in [
        recorded("/d/x.json"),
        Entry::Standby { domid: 8 },
        Entry::Detaching,
        Entry::Understood {
            untouched: untouched.clone(),
        },
        dump_begun("/d/x.kdump.incomplete", &changes),
        Entry::Built {
            domid: 9,
            spent_pages: 1,
            backed_pages: 2,
        },
        Entry::Runs { domid: 9 },
        Entry::Stopped { is_stopped: true },
    ] {
        journal.note(&entry).unwrap();
    }
    let path = place.join("a-7.journal");
    let past = Past::read(&fs::read_to_string(&path).unwrap()).unwrap();
    let expected = Past {
        begun: begun("a"),
        handlers: vec![Handler::this().unwrap()],
        record: Some("/d/x.json".into()),
        standby: Some(8),
        is_detaching: true,
        recovery: Some(PastRecovery {
            domid: 9,
            spent_pages: 1,
            backed_pages: 2,
        }),
        runs: true,
        is_stopped: true,
        untouched: Some(untouched),
        dump: PastDump::Begun {
            path: Some("/d/x.kdump.incomplete".into()),
            changes,
        },
    };
    assert_eq!(past, expected);
    assert!(
        JournalFile::begin(&place, begun("a")).is_err(),
        "it is there"
    );
    journal.close().unwrap();
    assert!(!path.exists());
    journal.note(&Entry::Detaching).unwrap();
}

#[test]
fn frames_that_are_too_many_to_be_written_down_are_all_that_are_not_dumped() {
    let single = |gfn: u64| GfnRange::new(Gfn(2 * gfn), Gfn(2 * gfn + 1));
    let few = Untouched::of((0..4096).map(single));
    assert!(few.has(Gfn(8190), false) && few.has(Gfn(0), true));
    assert!(!few.has(Gfn(8191), false) && !few.has(Gfn(8192), false));
    let many = Untouched::of((0..4097).map(single));
    assert_eq!(many, Untouched::NotDumped);
    assert!(many.has(Gfn(1), false) && !many.has(Gfn(0), true));
}
