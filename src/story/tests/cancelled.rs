// SPDX-License-Identifier: LGPL-2.1-or-later
//! The caller cancels: the job is over within two seconds, whatever it waits for.

use std::io;
use std::path::PathBuf;
use std::sync::mpsc::{channel, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::{ended, files, guest, scratch, start, target, Kept, DEADLINE, FRAMES};
use crate::drain::Target;
use crate::dump::{OpenSink, Sink};
use crate::host::memory::{Faults, MemoryHost};
use crate::job::{Job, JobState, Outcome};
use crate::os::file::wait_writable;
use crate::story::recover::{dump_only, recover};

/// From the request to the job's end. Two seconds are promised; the disk here never answers,
/// so that ten times as long tells the same, also on a machine with other things to do.
const LATEST: Duration = Duration::from_secs(20);

const WHY: &str = "cancelled by the caller";

/// What a sink is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    Prepare,
    Tables,
    Pages,
    SetLength,
    Sync,
    Publish,
}

/// A disk that does not answer at one step.
struct Hanging {
    at: Step,
    arrived: Sender<()>,
    answer: Receiver<()>,
    done: Arc<Mutex<Vec<Step>>>,
    /// Says that nobody uses the sink any more.
    _gone: Sender<()>,
}

/// The other end of it.
struct Disk {
    arrived: Receiver<()>,
    answer: Sender<()>,
    done: Arc<Mutex<Vec<Step>>>,
    gone: Receiver<()>,
}

fn hanging(at: Step) -> (Hanging, Disk) {
    let (arrived, arrivals) = channel();
    let (answer, answer_in) = channel();
    let (gone, gone_in) = channel();
    let done = Arc::default();
    let sink = Hanging {
        at,
        arrived,
        answer: answer_in,
        done: Arc::clone(&done),
        _gone: gone,
    };
    let disk = Disk {
        arrived: arrivals,
        answer,
        done,
        gone: gone_in,
    };
    (sink, disk)
}

impl Hanging {
    fn step(&mut self, step: Step) -> io::Result<()> {
        if step == self.at {
            self.arrived.send(()).unwrap();
            self.answer.recv().unwrap();
        }
        self.done.lock().unwrap().push(step);
        Ok(())
    }
}

impl Sink for Hanging {
    fn write_at(&mut self, _offset: u64, _bytes: &[u8]) -> io::Result<()> {
        self.step(Step::Tables)
    }
    fn write_pages(&mut self, _offset: u64, _bytes: &[u8]) -> io::Result<()> {
        self.step(Step::Pages)
    }
    fn prepare(&mut self, _tables: u64, _whole: u64) -> io::Result<()> {
        self.step(Step::Prepare)
    }
    fn set_length(&mut self, _length: u64) -> io::Result<()> {
        self.step(Step::SetLength)
    }
    fn sync(&mut self) -> io::Result<()> {
        self.step(Step::Sync)
    }
    fn publish(&mut self, _manifest: Option<&str>) -> io::Result<()> {
        self.step(Step::Publish)
    }
    fn path(&self) -> Option<PathBuf> {
        None
    }
}

/// Cancels a job and waits for its end, which must be near.
fn cancel(what: &str, job: Job, kept: &Kept) -> super::Ended {
    let since = Instant::now();
    job.shared.cancel();
    let ended = ended(what, job, kept);
    let took = since.elapsed();
    ended.check(took < LATEST, &format!("ended after {took:?}"));
    ended.check(ended.error.as_deref() == Some(WHY), "error");
    ended
}

/// A job on a guest in memory whose disk hangs at a step, once it does.
fn hangs(
    at: Step,
    host: &MemoryHost,
    kept: &Kept,
    work: fn(&MemoryHost, &Target, &JobState) -> Result<(), crate::error::Error>,
) -> (Job, Disk) {
    let directory = scratch();
    let (sink, disk) = hanging(at);
    let target = target(&directory, Some(Box::new(sink)));
    let inside = host.clone();
    let job = start(kept, move |shared| work(&inside, &target, shared));
    let arrived = disk.arrived.recv_timeout(DEADLINE);
    assert!(arrived.is_ok(), "no {at:?}; log:\n{}", kept);
    (job, disk)
}

const STEPS: [Step; 6] = [
    Step::Prepare,
    Step::Tables,
    Step::Pages,
    Step::SetLength,
    Step::Sync,
    Step::Publish,
];

/// The disk answers, and nothing is done to it after that.
fn check_left_alone(at: Step, disk: &Disk) {
    let before = disk.done.lock().unwrap().len();
    disk.answer.send(()).unwrap();
    let gone = disk.gone.recv_timeout(DEADLINE);
    assert!(
        matches!(gone, Err(std::sync::mpsc::RecvTimeoutError::Disconnected)),
        "{at:?}: the thread does not end"
    );
    let after = &disk.done.lock().unwrap()[before..];
    assert_eq!(after, [at], "done to a disk that nobody watches");
}

#[test]
fn a_dump_to_a_disk_that_hangs_ends_without_it() {
    for at in STEPS {
        let (host, kept) = (guest(Faults::default()), Kept::default());
        let (job, disk) = hangs(at, &host, &kept, |host, target, shared| {
            dump_only(host, target, &|| (), shared)
        });
        cancel(&format!("{at:?}"), job, &kept);
        check_left_alone(at, &disk);
    }
}

#[test]
fn a_recovery_whose_dump_hangs_gets_all_memory() {
    for at in STEPS {
        let (host, kept) = (guest(Faults::default()), Kept::default());
        let (job, disk) = hangs(at, &host, &kept, |host, target, shared| {
            recover(host, Box::new(host.clone()), None, target, shared)
        });
        let ended = cancel(&format!("{at:?}"), job, &kept);
        ended.check(ended.outcome == Outcome::Adopted, "outcome");
        ended.check(host.released() == FRAMES, "memory is kept");
        let violations = host.violations();
        ended.check(violations.is_empty(), &format!("{violations:?}"));
        check_left_alone(at, &disk);
    }
}

#[test]
fn a_dump_into_a_pipe_that_nobody_empties_ends_and_leaves_no_thread() {
    let (reader, writer) = std::os::unix::net::UnixStream::pair().unwrap();
    let file = std::fs::File::from(std::os::fd::OwnedFd::from(writer));
    let probe = file.try_clone().unwrap();
    let sink = OpenSink::from_file(file, None).unwrap();
    let directory = scratch();
    let (host, kept) = (guest(Faults::default()), Kept::default());
    let target = target(&directory, Some(sink));
    let inside = host.clone();
    let job = start(&kept, move |shared| {
        dump_only(&inside, &target, &|| (), shared)
    });
    let since = Instant::now();
    while wait_writable(&probe, 0).unwrap() {
        assert!(since.elapsed() < DEADLINE, "it does not get full");
        std::thread::yield_now();
    }
    drop(probe);
    cancel("a full pipe", job, &kept);
    // It was not emptied, and still nobody has the other end.
    let answer = io::Write::write(&mut (&reader), &[0]);
    assert_eq!(answer.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
}

#[test]
fn a_drain_that_rests_for_a_booting_recovery_ends() {
    let directory = scratch();
    let (host, kept) = (guest(Faults::default()), Kept::default());
    let target = target(&directory, None);
    let inside = host.clone();
    let job = start(&kept, move |shared| {
        recover(&inside, Box::new(inside.clone()), None, &target, shared)
    });
    let running = job
        .shared
        .wait(Some(DEADLINE), |now| now.outcome == Outcome::Adopted);
    assert!(running, "{}", kept);
    let since = Instant::now();
    job.shared.cancel();
    let ended = ended("head start", job, &kept);
    let took = since.elapsed();
    ended.check(took < LATEST, &format!("ended after {took:?}"));
    ended.check(host.released() == FRAMES, "memory is kept");
}

#[test]
fn cancelled_before_it_begins_a_dump_leaves_no_file() {
    let directory = scratch();
    let (host, kept) = (guest(Faults::default()), Kept::default());
    let target = target(&directory, None);
    let inside = host.clone();
    let job = start(&kept, move |shared| {
        shared.cancel();
        recover(&inside, Box::new(inside.clone()), None, &target, shared)
    });
    let shared = job.shared.clone();
    let ended = cancel("at the start", job, &kept);
    ended.check(ended.outcome == Outcome::Adopted, "outcome");
    ended.check(host.released() == FRAMES, "memory is kept");
    assert_eq!((files(&directory).len(), shared.dump_path()), (0, None));
}
