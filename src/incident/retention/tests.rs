// SPDX-License-Identifier: LGPL-2.1-or-later
//! Which dumps stay, of crashes made by hand.

use std::fs;

use super::*;
use crate::incident::screen::tests::ended_well;
use crate::incident::{Died, Incident};
use crate::told::event::Event;
use crate::told::kept::Kept;

const LENGTH: usize = 64 << 10;

struct Host {
    directory: tempfile::TempDir,
    log: Kept,
}

impl Host {
    fn new() -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
            log: Kept::default(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A crash of `guest` in second `at` that left a dump whose name ends in `end`.
    fn crashed(&self, guest: &str, at: u64, signature: Option<&str>, end: &str) -> Files {
        let known = ended_well();
        let id = format!("{guest}-{at}");
        let files = Files::claim(self.directory.path(), &id).unwrap();
        let dump = self.path(&format!("{id}.{end}"));
        fs::write(&dump, vec![1; LENGTH]).unwrap();
        let mut incident = Incident::new(&id, guest, guest, Utc(at));
        incident.is_over = true;
        incident.dump = known.dump;
        incident.dump.path = Some(dump.to_str().unwrap().into());
        incident.dump.state = match end.strip_suffix(INCOMPLETE) {
            None => {
                fs::write(self.path(&format!("{id}.{end}.sums")), "sums").unwrap();
                DumpState::Complete
            }
            Some(_) => DumpState::Incomplete,
        };
        incident.died = known.died.zip(signature).map(|(died, signature)| Died {
            signature: signature.into(),
            ..died
        });
        write_all(&files, &mut incident, None).unwrap();
        files
    }

    fn tidy(&self, own: &Files, options: &str) -> Vec<String> {
        let guest = own.read().unwrap().uuid;
        let options = Options::parse(options).unwrap();
        let log = self.log.log(&guest);
        tidy(own, &guest, &options, &log, &Cancel::default());
        self.dumps()
    }

    /// The dumps that are there, by their names.
    fn dumps(&self) -> Vec<String> {
        let files = fs::read_dir(self.directory.path()).unwrap();
        let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
        let ends = [".kdump", ".elf", INCOMPLETE];
        let mut dumps: Vec<String> = names
            .filter(|name| ends.iter().any(|end| name.ends_with(end)))
            .collect();
        dumps.sort();
        dumps
    }

    fn state(&self, id: &str) -> DumpState {
        let files = Files::of(self.directory.path(), id);
        files.read().unwrap().dump.state
    }
}

#[test]
fn the_last_dumps_of_a_guest_are_kept_and_those_of_others_left_alone() {
    let host = Host::new();
    for at in [100, 200, 300] {
        host.crashed("web1", at, Some("aa"), "kdump");
    }
    host.crashed("web2", 50, Some("aa"), "kdump");
    let own = host.crashed("web1", 400, Some("aa"), "elf");
    fs::write(host.path("web1-10.kdump"), "nobody's").unwrap();
    let all = host.dumps();
    assert_eq!(host.tidy(&own, ""), all);
    assert_eq!(host.tidy(&own, "keep=4"), all);
    let left = [
        "web1-10.kdump",
        "web1-300.kdump",
        "web1-400.elf",
        "web2-50.kdump",
    ];
    assert_eq!(host.tidy(&own, "keep=2"), left);
    assert!(!host.path("web1-100.kdump.sums").exists());
    assert!(host.path("web1-300.kdump.sums").exists());

    // Each is told, and in the record of its crash, whose other files stay.
    let removed = |at| {
        Event::from(DumpEvent::Removed {
            path: host.path(&format!("web1-{at}.kdump")),
            length: Size(LENGTH as u64),
            why: RemovedFor::Keep(2),
        })
    };
    assert_eq!(host.log.events(), [removed(100), removed(200)]);
    let incident = Files::of(host.directory.path(), "web1-100").read().unwrap();
    let dump = incident.dump;
    assert_eq!(dump.state, DumpState::Removed);
    assert_eq!((dump.path, dump.sums, dump.open_with), (None, None, vec![]));
    assert_eq!(dump.why.as_deref(), Some("keep=2"));
    assert!(incident.died.is_some());
    let screen = fs::read_to_string(host.path("web1-100.txt")).unwrap();
    assert!(screen.contains(": keep=2"), "{screen}");
    assert_eq!(host.tidy(&own, "keep=2"), left, "it was done");
}

#[test]
fn the_only_dump_of_a_fault_goes_last() {
    let host = Host::new();
    host.crashed("web1", 100, Some("rare"), "kdump");
    host.crashed("web1", 150, None, "kdump");
    for at in [200, 300] {
        host.crashed("web1", at, Some("often"), "kdump");
    }
    let own = host.crashed("web1", 400, Some("often"), "kdump");
    let left = ["web1-100.kdump", "web1-150.kdump", "web1-400.kdump"];
    assert_eq!(host.tidy(&own, "keep=3"), left);
    assert_eq!(
        host.tidy(&own, "keep=2"),
        ["web1-150.kdump", "web1-400.kdump"]
    );
    assert_eq!(host.tidy(&own, "keep=1"), ["web1-400.kdump"]);
}

#[test]
fn incomplete_dumps_go_first_and_never_push_out_a_complete_one() {
    let host = Host::new();
    host.crashed("web1", 100, Some("aa"), "kdump");
    host.crashed("web1", 200, Some("aa"), "kdump.incomplete");
    let own = host.crashed("web1", 300, Some("aa"), "kdump.incomplete");
    let both = ["web1-100.kdump", "web1-300.kdump.incomplete"];
    assert_eq!(host.tidy(&own, "keep=1"), both);
    assert_eq!(host.tidy(&own, "keep=1"), both);
    // Mended since: it counts.
    let name = |end| host.path(&format!("web1-300.{end}"));
    fs::rename(name("kdump.incomplete"), name("kdump")).unwrap();
    assert_eq!(host.tidy(&own, "keep=1"), ["web1-300.kdump"]);
}

#[test]
fn a_dump_that_may_be_written_to_stays() {
    let host = Host::new();
    let own = host.crashed("web1", 400, Some("aa"), "kdump");
    let now = Utc::now().0;
    for at in [100, 200, now] {
        let other = host.crashed("web1", at, Some("aa"), "kdump.incomplete");
        let mut incident = other.read().unwrap();
        (incident.is_over, incident.dump.state) = (false, DumpState::Written);
        write_all(&other, &mut incident, None).unwrap();
    }
    // The power went in the first one's time; the clock was set in the second one's.
    let first = fs::File::options()
        .write(true)
        .open(host.path("web1-100.kdump.incomplete"))
        .unwrap();
    first.set_modified(std::time::UNIX_EPOCH).unwrap();
    let left = [
        format!("web1-{now}.kdump.incomplete"),
        "web1-200.kdump.incomplete".into(),
        "web1-400.kdump".into(),
    ];
    assert_eq!(host.tidy(&own, "keep=1"), left);
    assert_eq!(host.state("web1-100"), DumpState::Removed);
}

#[test]
fn room_is_made_with_dumps_of_any_guest_and_no_more_than_is_asked_for() {
    let host = Host::new();
    host.crashed("web2", 100, Some("aa"), "kdump");
    host.crashed("web1", 200, Some("aa"), "kdump");
    host.crashed("web2", 300, Some("bb"), "kdump");
    let own = host.crashed("web1", 400, Some("aa"), "kdump");
    let make_free = |wanted, free| {
        let (log, cancel) = (host.log.log("web1"), Cancel::default());
        let dumps = dumps_in(&own).unwrap();
        let mut room = Room {
            dumps,
            log: &log,
            cancel: &cancel,
        };
        room.make_free(wanted, free);
        host.dumps()
    };
    let length = LENGTH as u64;
    assert_eq!(make_free(1000, 1000).len(), 4);
    let left = ["web1-200.kdump", "web1-400.kdump", "web2-300.kdump"];
    assert_eq!(make_free(1000 + length, 1000), left);
    assert_eq!(make_free(2 * length + 1, length), ["web1-400.kdump"]);
    let why = RemovedFor::KeepFree(Size(2 * length + 1));
    let is_last = |event: &Event| matches!(event, Event::Dump(DumpEvent::Removed { why: w, .. }) if *w == why);
    assert!(host.log.has(is_last), "{}", host.log);
    // There is never so much, and this crash's own stays.
    assert_eq!(host.tidy(&own, "keep_free=1000000T"), ["web1-400.kdump"]);
}

#[test]
fn what_cannot_be_removed_is_told_and_the_others_go() {
    let host = Host::new();
    host.crashed("web1", 100, Some("aa"), "kdump");
    host.crashed("web1", 200, Some("aa"), "kdump");
    let own = host.crashed("web1", 400, Some("aa"), "kdump");
    // No file can be taken from a directory in the place of its checksums.
    let sums = host.path("web1-100.kdump.sums");
    fs::remove_file(&sums).unwrap();
    fs::create_dir(&sums).unwrap();
    assert_eq!(host.tidy(&own, "keep=1"), ["web1-400.kdump"]);
    let is_it = |event: &Event| matches!(event, Event::Dump(DumpEvent::NotRemoved { path, .. }) if *path == sums);
    assert!(host.log.has(is_it), "{}", host.log);

    let gone = Files::of(&host.path("no/such"), "web1-400");
    let options = Options::parse("keep=1").unwrap();
    tidy(
        &gone,
        "web1",
        &options,
        &host.log.log("web1"),
        &Cancel::default(),
    );
    let missing = host.path("no/such");
    let is_it = |event: &Event| matches!(event, Event::Dump(DumpEvent::NotRemoved { path, .. }) if *path == missing);
    assert!(host.log.has(is_it), "{}", host.log);
}

#[test]
fn nothing_more_is_removed_once_the_job_is_cancelled() {
    let host = Host::new();
    host.crashed("web1", 100, Some("aa"), "kdump");
    let own = host.crashed("web1", 400, Some("aa"), "kdump");
    let cancel = Cancel::default();
    cancel.ask();
    let options = Options::parse("keep=1").unwrap();
    tidy(&own, "web1", &options, &host.log.log("web1"), &cancel);
    assert_eq!(host.dumps().len(), 2);
}
