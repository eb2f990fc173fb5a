// SPDX-License-Identifier: LGPL-2.1-or-later
//! The record of crashes that are handled, fail, or are gone on with.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::sync::Mutex;

use super::*;
use crate::host::images::SyntheticImage;
use crate::host::memory::{Faults, MemoryHost};
use crate::incident::{DumpState, RecoveryState};
use crate::options::Options;
use crate::story::recover::recover;
use crate::told::kept::Kept;

const FRAMES: u64 = 16 * 512;

fn target(directory: &Path, options: &str) -> Target {
    Target {
        options: Options::parse(options).unwrap(),
        name: "web1".into(),
        dump_dir: directory.into(),
        sink: Mutex::default(),
    }
}

/// A crash that is handled on the in-memory host, with its record.
fn crash(target: &Target, begun: Option<&Path>) -> (Kept, Result<(), Error>) {
    let log = Kept::default();
    let job = JobState::new(log.log("web1"));
    let host = MemoryHost::new(Arc::new(SyntheticImage::new(FRAMES)), 1, Faults::default());
    let result = kept("uuid", target, begun, &job, || {
        recover(&host, Box::new(host.clone()), None, target, &job)
    });
    (log, result)
}

/// The files of a directory, by their ends, and the one record among them.
fn files(directory: &Path) -> (Vec<String>, Incident) {
    let paths: Vec<PathBuf> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    let record = paths
        .iter()
        .find(|path| path.extension().unwrap() == RECORD);
    let incident = Files::of_record(record.unwrap()).unwrap().read().unwrap();
    let name = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
    let mut ends: Vec<String> = paths
        .iter()
        .map(|path| name(path).strip_prefix(&incident.id).unwrap().to_owned())
        .collect();
    ends.sort();
    (ends, incident)
}

fn not_recorded(log: &Kept) -> bool {
    log.has(|event| matches!(event, Event::Job(JobEvent::NotRecorded { .. })))
}

#[test]
fn a_crash_has_its_record_beside_its_dump() {
    let directory = tempfile::tempdir().unwrap();
    let (log, result) = crash(&target(directory.path(), ""), None);
    result.unwrap();
    let (ends, incident) = files(directory.path());
    let path = directory.path().join(format!("{}.json", incident.id));
    let recorded = Event::from(JobEvent::Recorded { path });
    let told = log.events();
    let told = told.iter().filter(|event| **event == recorded);
    assert_eq!(told.count(), 1);
    assert_eq!(ends, [".json", ".kdump", ".kdump.sums", ".svg", ".txt"]);
    assert!(incident.is_over && incident.failure.is_none());
    assert_eq!(incident.outcome, Outcome::Adopted);
    assert_eq!(incident.recovery.state, RecoveryState::Settled);
    assert_eq!(incident.dump.state, DumpState::Complete);
    let dump = directory.path().join(format!("{}.kdump", incident.id));
    let dump = dump.to_str().unwrap();
    assert_eq!(incident.dump.path.as_deref(), Some(dump));
    let sums = incident.dump.sums.as_deref();
    assert_eq!(sums, Some(format!("{dump}.sums").as_str()));
    assert_eq!((incident.uuid.as_str(), incident.vcpus), ("uuid", Some(1)));
    assert!(incident
        .steps
        .iter()
        .any(|step| step.what == "dump complete"));
}

#[test]
fn dumps_of_earlier_crashes_go_when_fewer_are_to_be_kept() {
    let directory = tempfile::tempdir().unwrap();
    let target = target(directory.path(), "keep=1");
    let dumps = || {
        let files = fs::read_dir(directory.path()).unwrap();
        let paths = files.map(|entry| entry.unwrap().path());
        let dumps = paths.filter(|path| path.extension().unwrap() == "kdump");
        dumps.collect::<Vec<_>>()
    };
    crash(&target, None).1.unwrap();
    let first = dumps();
    assert_eq!(first.len(), 1);
    // Of a time before dom0 was started: nobody can be at work on it.
    let record = Files::of_record(&first[0].with_extension(RECORD)).unwrap();
    let mut incident = record.read().unwrap();
    incident.crashed_s = Utc(1);
    write_all(&record, &mut incident, None).unwrap();
    let (log, result) = crash(&target, None);
    result.unwrap();
    assert_eq!(dumps().len(), 1);
    assert_ne!(dumps(), first);
    let is_told = |event: &Event| matches!(event, Event::Dump(DumpEvent::Removed { path, .. }) if *path == first[0]);
    assert!(log.has(is_told), "{log}");
}

#[test]
fn the_journal_of_systemd_is_told_of_a_crash_and_of_its_end() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("journal.socket");
    let journal = UnixDatagram::bind(&socket).unwrap();
    journal.set_nonblocking(true).unwrap();
    let target = target(directory.path(), "");
    let job = JobState::new(JobLog::with_sockets("web1", None, None, Some(socket)));
    let host = MemoryHost::new(Arc::new(SyntheticImage::new(FRAMES)), 1, Faults::default());
    kept("uuid", &target, None, &job, || {
        recover(&host, Box::new(host.clone()), None, &target, &job)
    })
    .unwrap();
    let mut bytes = [0; 1 << 16];
    let mut entry = || {
        let length = journal.recv(&mut bytes).ok()?;
        Some(String::from_utf8(bytes[..length].to_vec()).unwrap())
    };
    let first = entry().expect("the crash is told");
    assert!(first.contains("MESSAGE=guest web1 crashed\n"), "{first}");
    let last = entry().expect("its end is told");
    assert!(last.contains("VICOVER_OUTCOME=adopted\n"), "{last}");
    let record = job.record.path().unwrap();
    assert!(
        last.contains(&format!("VICOVER_RECORD={}\n", record.display())),
        "{last}"
    );
    assert_eq!(entry(), None);
}

#[test]
fn whoever_wants_no_record_gets_none() {
    let directory = tempfile::tempdir().unwrap();
    crash(&target(directory.path(), "record=0"), None)
        .1
        .unwrap();
    let ends = fs::read_dir(directory.path()).unwrap().count();
    assert_eq!(ends, 2, "the dump and its checksums");
}

#[test]
fn where_no_record_can_be_written_the_crash_is_handled_all_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("no/such");
    let (log, result) = crash(&target(&missing, ""), None);
    result.unwrap_err();
    assert!(not_recorded(&log), "{log}");
    let unpaused = |event: &Event| matches!(event, Event::Recovery(RecoveryEvent::Unpaused { .. }));
    assert!(log.has(unpaused), "{log}");
}

#[test]
fn a_job_that_fails_or_panics_is_recorded_to_its_end() {
    for panics in [false, true] {
        let directory = tempfile::tempdir().unwrap();
        let target = target(directory.path(), "");
        let job = JobState::new(Kept::default().log("web1"));
        let handle = || {
            job.enter(crate::job::Phase::Detach);
            assert!(!panics, "broken on purpose");
            Err(Error::Cancelled)
        };
        let error = kept("uuid", &target, None, &job, handle).unwrap_err();
        let (ends, incident) = files(directory.path());
        assert_eq!(ends, [".json", ".svg", ".txt"]);
        assert!(incident.is_over);
        assert_eq!(incident.outcome, Outcome::Dirty);
        assert_eq!(incident.failure, Some(error.chain()));
    }
}

#[test]
fn a_record_that_another_process_has_begun_is_gone_on_with() {
    let directory = tempfile::tempdir().unwrap();
    let target = target(directory.path(), "");
    // An hour ago, and the process was killed.
    let before = Utc(Utc::now().0 - 3600);
    let claimed = Files::claim(directory.path(), &stem("web1", before)).unwrap();
    let mut incident = Incident::new(claimed.id(), "web1", "uuid", before);
    incident.kernel = Some("6.1.0".into());
    // Killed after its last word.
    incident.is_over = true;
    incident.failure = Some("of another".into());
    let text = serde_json::to_string(&incident).unwrap();
    claimed.replace(RECORD, &text, true).unwrap();
    let path = claimed.path(RECORD);
    crash(&target, Some(&path)).1.unwrap();
    let (ends, gone_on) = files(directory.path());
    assert_eq!(ends, [".json", ".kdump", ".kdump.sums", ".svg", ".txt"]);
    assert_eq!(gone_on.id, incident.id);
    assert_eq!(gone_on.kernel.as_deref(), Some("6.1.0"));
    assert_eq!((gone_on.is_over, &gone_on.failure), (true, &None));
    assert_eq!(gone_on.dump.state, DumpState::Complete);
    assert!(
        gone_on.steps[0].at_ms >= 3_600_000,
        "{:?}",
        gone_on.steps[0]
    );
}

#[test]
fn what_is_no_record_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("other.json");
    fs::write(&path, "{\"version\":1}").unwrap();
    crash(&target(directory.path(), ""), Some(&path)).1.unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "{\"version\":1}");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 6);
}
