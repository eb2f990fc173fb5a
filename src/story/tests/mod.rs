// SPDX-License-Identifier: LGPL-2.1-or-later
//! However a step fails, the job ends, as its outcome says, and so does everybody who
//! waited for it.

mod broken;
mod calls;
mod cancelled;
#[cfg(any(feature = "xen", shuttle))]
mod chance;
mod figures;
mod hooked_sink;
mod killed;
mod panics;
mod refused_threads;
// A crash has its turn where domains have crashes: on Xen.
#[cfg(feature = "xen")]
mod repeated;
#[cfg(shuttle)]
mod schedules;
#[cfg(feature = "xen")]
mod worlds;

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tempfile::TempDir;

use crate::drain::Target;
use crate::dump::{room_in, Sink};
use crate::error::Error;
use crate::host::images::SyntheticImage;
use crate::host::memory::{Faults, MemoryHost, RECIPE};
use crate::host::BuiltStandby;
use crate::job::{Job, JobState, Outcome, Phase};
use crate::options::Options;
use crate::told::kept::Kept;

/// Pages of the guests here.
const FRAMES: u64 = 16 * 512;
/// Longer than any job here takes on a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);

/// A guest in memory.
fn guest(faults: Faults) -> MemoryHost {
    guest_of(FRAMES, faults)
}

/// A guest in memory of so many pages.
pub(super) fn guest_of(frames: u64, faults: Faults) -> MemoryHost {
    MemoryHost::new(Arc::new(SyntheticImage::new(frames)), 2, faults)
}

/// How a job ended.
struct Ended {
    what: String,
    error: Option<String>,
    outcome: Outcome,
    log: Kept,
}

impl Ended {
    fn check(&self, is_right: bool, what: &str) {
        let Self { error, outcome, .. } = self;
        assert!(
            is_right,
            "{}: {what}; {outcome:?}, {error:?}; log:\n{}",
            self.what, self.log
        );
    }
}

/// Waits until a job has ended.
fn ended(what: &str, job: Job, kept: &Kept) -> Ended {
    let done = job
        .shared
        .wait(Some(DEADLINE), |now| now.phase == Phase::Done);
    let ended = Ended {
        what: what.into(),
        error: job.shared.with_failure(|failure| failure.map(Error::chain)),
        outcome: job.shared.snapshot().outcome,
        log: kept.clone(),
    };
    ended.check(done, "the job does not end");
    job.join();
    ended
}

/// More than all stories together that are told at once leave behind.
const PLENTY: u64 = 4 << 30;

/// A directory for one story, in memory where there is plenty: thousands of stories sync
/// their dumps and journals, and a disk would take most of the time for what no test here
/// sees.
fn scratch() -> TempDir {
    let memory = Path::new("/dev/shm");
    match room_in(memory, PLENTY) {
        Ok(Some(1..)) => TempDir::new_in(memory).unwrap(),
        _ => TempDir::new().unwrap(),
    }
}

/// Where dumps go here, with two threads to make them.
pub(super) fn target(directory: &TempDir, sink: Option<Box<dyn Sink>>) -> Target {
    Target {
        options: Options::parse("threads=2,compress=none,dump_level=0").unwrap(),
        name: "guest".into(),
        dump_dir: directory.path().into(),
        sink: Mutex::new(sink),
    }
}

/// Names of the files in a directory.
fn files(directory: &TempDir) -> Vec<String> {
    let entries = directory.path().read_dir().unwrap();
    let name = |entry: std::io::Result<std::fs::DirEntry>| entry.unwrap().file_name();
    let mut names: Vec<String> = entries
        .map(|entry| name(entry).into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Starts a job that must start.
fn start(kept: &Kept, work: impl FnOnce(&JobState) -> Result<(), Error> + Send + 'static) -> Job {
    Job::start(kept.log("guest"), work).unwrap()
}

/// A job that has a standby for the guest.
fn keeper() -> JobState {
    let keeper = JobState::new(Kept::default().log("guest"));
    keeper.standby.offer(BuiltStandby {
        domid: 7,
        pages: 100,
        recipe: RECIPE.into(),
    });
    keeper
}

/// More calls than any story here has.
const MANY: u64 = 10_000;
/// Stories at once: most of the time of each is spent on looking again.
const AT_ONCE: usize = 8;

/// Does something for 0, 1, 2 and so on, several at once, until it says that there is no
/// more; returns how many there were.
fn for_each_number(work: impl Fn(u64) -> bool + Sync) -> u64 {
    let end = for_each_below(MANY, work);
    assert!(end < MANY, "a recovery has more than {MANY} calls");
    end
}

/// Does something for each number below `most`, several at once, until it says that there
/// is no more; returns how many there were.
fn for_each_below(most: u64, work: impl Fn(u64) -> bool + Sync) -> u64 {
    let (next, end) = (AtomicU64::new(0), AtomicU64::new(most));
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| loop {
                let number = next.fetch_add(1, SeqCst);
                if number >= end.load(SeqCst) {
                    return;
                }
                if !work(number) {
                    end.fetch_min(number, SeqCst);
                }
            });
        }
    });
    end.into_inner()
}
