// SPDX-License-Identifier: LGPL-2.1-or-later
//! A disk that does not answer: a file system that is frozen while a dump is written
//! to it. The kernel lets go nobody who waits there, not even a process that is killed.
#![allow(missing_docs)]

#[path = "support/command.rs"]
mod command;
#[path = "support/mounted.rs"]
mod mounted;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use command::run;
use mounted::Mounted;
use vicover::drain::Target;
use vicover::error::{Error, ErrorKind};
use vicover::host::images::SyntheticImage;
use vicover::host::memory::{Faults, MemoryHost};
use vicover::job::{Job, JobState, Outcome, Phase};
use vicover::options::Options;
use vicover::story::recover::{dump_only, recover};
use vicover::told::kept::Kept;

const FRAMES: u64 = 64 << 8;
/// What a wait for an event may take before the test has failed.
const DEADLINE: Duration = Duration::from_secs(60);
/// From a cancel to the end of the job, in words of the header "within a second".
const PROMISED: Duration = Duration::from_secs(2);

/// A file system that answers nobody until this is dropped.
struct Frozen(PathBuf);

impl Frozen {
    fn new(path: PathBuf) -> Self {
        run(Command::new("fsfreeze").arg("--freeze").arg(&path));
        Self(path)
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        run(Command::new("fsfreeze").arg("--unfreeze").arg(&self.0));
    }
}

/// Whether the kernel keeps a thread of this process waiting that has this name.
fn is_stuck(name: &str) -> bool {
    let threads = fs::read_dir("/proc/self/task").unwrap();
    threads.flatten().any(|thread| {
        // "1234 (name) D ..."
        let stat = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        let after = stat.split_once(&format!("({name}) "));
        after.is_some_and(|(_, state)| state.starts_with('D'))
    })
}

/// Whether this process has files open below a directory.
fn has_open_files(directory: &Path) -> bool {
    let descriptors = fs::read_dir("/proc/self/fd").unwrap();
    let mut files = descriptors
        .flatten()
        .filter_map(|fd| fs::read_link(fd.path()).ok());
    files.any(|file| file.starts_with(directory))
}

fn wait_until(what: &str, kept: &Kept, is_so: impl Fn() -> bool) {
    let since = Instant::now();
    while !is_so() {
        assert!(since.elapsed() < DEADLINE, "not {what}; told:\n{kept}");
        std::thread::yield_now();
    }
}

/// Cancels a job whose disk does not answer any more; what it has come to.
fn cancelled_on_a_frozen_disk(
    work: fn(&MemoryHost, &Target, &JobState) -> Result<(), Error>,
) -> (MemoryHost, Outcome) {
    let disk = Mounted::new(&["-b", "4096"], 256 << 20);
    let host = MemoryHost::new(Arc::new(SyntheticImage::new(FRAMES)), 1, Faults::default());
    let target = Target {
        options: Options::parse("dump_level=0,compress=none,reserve=0,io=fixed:4M").unwrap(),
        name: "guest".into(),
        dump_dir: disk.path(),
        sink: Mutex::default(),
    };
    let kept = Kept::default();
    let inside = host.clone();
    let job = Job::start(kept.log("guest"), move |job| work(&inside, &target, job)).unwrap();
    let written = || job.shared.dump_path().is_some_and(|path| path.exists());
    wait_until("begun", &kept, written);
    let frozen = Frozen::new(disk.path());
    wait_until("stuck", &kept, || is_stuck("vicover-write"));

    let since = Instant::now();
    job.shared.cancel();
    let done = job
        .shared
        .wait(Some(DEADLINE), |now| now.phase == Phase::Done);
    let took = since.elapsed();
    assert!(
        done && took < PROMISED,
        "{took:?} from cancel to end:\n{kept}"
    );
    assert!(is_stuck("vicover-write"), "the disk did answer");
    let kind = job.shared.with_failure(|failure| failure.map(Error::kind));
    assert_eq!(kind, Some(ErrorKind::Cancelled));
    let outcome = job.shared.snapshot().outcome;
    job.join();
    drop(frozen);
    // The thread that was left behind closes the dump in its own time.
    wait_until("closed", &kept, || !has_open_files(&disk.path()));
    (host, outcome)
}

// One after the other: threads are told apart by their names.
#[test]
#[ignore = "needs root, to mount"]
fn a_job_that_is_cancelled_ends_without_the_disk_and_recovery_has_its_memory() {
    let (_, outcome) =
        cancelled_on_a_frozen_disk(|host, target, job| dump_only(host, target, &|| (), job));
    assert_eq!(outcome, Outcome::Untouched);

    let (host, outcome) = cancelled_on_a_frozen_disk(|host, target, job| {
        recover(host, Box::new(host.clone()), None, target, job)
    });
    assert_eq!(outcome, Outcome::Adopted);
    assert_eq!(host.released(), FRAMES);
    assert_eq!(host.violations(), Vec::<String>::new());
}
