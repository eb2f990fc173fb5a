// SPDX-License-Identifier: LGPL-2.1-or-later
//! A dump of a running domain: it is paused while it is read, and runs again
//! however the dump ended.
#![allow(missing_docs)]

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicI32, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use vicover::addr::{Gfn, GfnRange};
use vicover::drain::Target;
use vicover::dump::{verify, FileSink, Finding, Sink};
use vicover::error::Error;
use vicover::host::images::SyntheticImage;
use vicover::host::memory::{Faults, MemoryHost};
use vicover::host::{Access, CrashedDomain, HostError, Mapping, Pausable, VcpuState};
use vicover::job::{Job, JobState, Outcome, Phase};
use vicover::options::Options;
use vicover::story::live;
use vicover::told::log::JobLog;

const PAGES: u64 = 4096;

/// Reading panics at this frame, or nowhere.
type Trap = Option<Gfn>;

/// A domain that refuses to be looked at while it runs.
struct Running {
    memory: MemoryHost,
    /// How often it was paused, less how often it was unpaused.
    pauses: Arc<AtomicI32>,
    trap: Trap,
    stays_paused: bool,
    /// Called when registers are asked for.
    at_registers: Box<dyn Fn() + Send + Sync>,
}

impl Running {
    fn new(trap: Trap) -> Self {
        let image = Arc::new(SyntheticImage::new(PAGES));
        Self {
            memory: MemoryHost::new(image, 2, Faults::default()),
            pauses: Arc::default(),
            trap,
            stays_paused: false,
            at_registers: Box::new(|| ()),
        }
    }

    fn check_paused(&self) {
        assert_eq!(self.pauses.load(SeqCst), 1, "looked at while it runs");
    }
}

impl CrashedDomain for Running {
    fn ram(&self) -> &[GfnRange] {
        self.memory.ram()
    }

    fn vcpus(&self) -> Result<Vec<VcpuState>, HostError> {
        self.check_paused();
        (self.at_registers)();
        self.memory.vcpus()
    }

    fn map(&self, frames: GfnRange, access: Access) -> Result<Box<dyn Mapping>, HostError> {
        self.check_paused();
        assert_eq!(access, Access::Read);
        assert!(self.trap.is_none_or(|gfn| !frames.contains(gfn)), "trapped");
        self.memory.map(frames, access)
    }

    fn release(&self, _frames: &[Gfn]) -> Result<u64, HostError> {
        panic!("memory of a domain that goes on running was released")
    }

    fn claim(&self, _pages: u64) -> Result<(), HostError> {
        panic!("memory of a domain that goes on running was claimed")
    }

    fn pages(&self) -> Result<u64, HostError> {
        self.memory.pages()
    }
}

impl Pausable for Running {
    fn pause(&self) -> Result<(), HostError> {
        self.pauses.fetch_add(1, SeqCst);
        Ok(())
    }

    fn unpause(&self) -> Result<(), HostError> {
        self.pauses.fetch_sub(1, SeqCst);
        match self.stays_paused {
            true => Err(HostError::new("unpause", "refused as asked for")),
            false => Ok(()),
        }
    }
}

fn target(sink: impl Sink + 'static) -> Target {
    Target {
        options: Options::parse("dump_level=0,compress=none").unwrap(),
        name: "live".into(),
        dump_dir: "/nonexistent/dumps".into(),
        sink: Mutex::new(Some(Box::new(sink))),
    }
}

/// Runs the job to its end; its error, if any, and its outcome.
fn dump(domain: Running, target: Target) -> (Option<String>, Outcome) {
    let log = JobLog::new("live", Some(Box::new(|_| {})));
    let pauses = Arc::clone(&domain.pauses);
    let job = Job::start(log, move |shared| live::dump(&domain, &target, shared)).unwrap();
    assert!(job.shared.wait(None, |seen| seen.phase == Phase::Done));
    assert_eq!(pauses.load(SeqCst), 0, "paused and unpaused once each");
    let failure = |failure: Option<&Error>| failure.map(Error::chain);
    let result = (
        job.shared.with_failure(failure),
        job.shared.snapshot().outcome,
    );
    job.join();
    result
}

#[test]
fn a_running_domain_is_paused_dumped_and_let_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("wanted");
    let sink = FileSink::create_as(&path).unwrap();
    let (error, outcome) = dump(Running::new(None), target(sink));
    assert_eq!((error, outcome), (None, Outcome::Untouched));
    let report = verify(&path).unwrap();
    assert_eq!(report.finding, Finding::Complete);
    assert!(report.with_manifest);
    assert_eq!(report.wanted_pages, PAGES);
    assert!(!dir.path().join("wanted.incomplete").exists());
}

/// A sink that keeps nothing, and does what a test wants.
struct Watched<P, E> {
    /// When pages are written.
    pages: P,
    /// When the dump is complete.
    end: E,
}

/// A sink that does nothing but this when pages are written.
fn failing<P>(pages: P) -> Watched<P, fn()> {
    Watched { pages, end: || () }
}

impl<P, E> Sink for Watched<P, E>
where
    P: FnMut() -> io::Result<()> + Send,
    E: FnMut() + Send,
{
    fn write_at(&mut self, _offset: u64, _bytes: &[u8]) -> io::Result<()> {
        Ok(())
    }

    fn write_pages(&mut self, _offset: u64, _bytes: &[u8]) -> io::Result<()> {
        (self.pages)()
    }

    fn prepare(&mut self, _tables: u64, _whole: u64) -> io::Result<()> {
        Ok(())
    }

    fn set_length(&mut self, _length: u64) -> io::Result<()> {
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn publish(&mut self, _manifest: Option<&str>) -> io::Result<()> {
        (self.end)();
        Ok(())
    }

    fn path(&self) -> Option<PathBuf> {
        None
    }
}

#[test]
fn it_runs_again_after_a_write_error() {
    let full = || Err(io::Error::from_raw_os_error(libc::ENOSPC));
    let (error, outcome) = dump(Running::new(None), target(failing(full)));
    assert!(error.unwrap().contains("No space left"));
    assert_eq!(outcome, Outcome::Untouched);
}

#[test]
fn it_runs_again_after_a_panic() {
    let end = Gfn(PAGES - 1);
    let (error, outcome) = dump(Running::new(Some(end)), target(failing(|| Ok(()))));
    assert!(error.unwrap().contains("trapped"));
    assert_eq!(outcome, Outcome::Untouched);
}

/// A job's state that says nothing.
fn quiet() -> Arc<JobState> {
    let log = JobLog::new("live", Some(Box::new(|_| {})));
    Arc::new(JobState::new(log))
}

#[test]
fn it_runs_again_as_soon_as_all_of_it_has_been_read() {
    let domain = Running::new(None);
    let pauses = Arc::clone(&domain.pauses);
    let sink = Watched {
        pages: || Ok(()),
        end: move || assert_eq!(pauses.load(SeqCst), 0, "still paused"),
    };
    let (error, _) = dump(domain, target(sink));
    assert_eq!(error, None);
}

#[test]
fn it_runs_again_when_the_caller_cancels() {
    let domain = Running::new(None);
    let shared = quiet();
    let cancel = Arc::clone(&shared);
    let target = target(failing(move || {
        cancel.cancel();
        Ok(())
    }));
    let error = live::dump(&domain, &target, &shared).unwrap_err();
    assert_eq!(error.chain(), "cancelled by the caller");
    assert_eq!(domain.pauses.load(SeqCst), 0);
}

#[test]
fn cancelled_before_anything_is_dumped_it_leaves_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let sink = FileSink::create_as(&dir.path().join("wanted")).unwrap();
    let target = target(sink);
    let shared = quiet();
    let cancel = Arc::clone(&shared);
    let mut domain = Running::new(None);
    domain.at_registers = Box::new(move || cancel.cancel());
    let error = live::dump(&domain, &target, &shared).unwrap_err();
    assert_eq!(error.chain(), "cancelled by the caller");
    assert_eq!(domain.pauses.load(SeqCst), 0);
    drop(target);
    assert_eq!(dir.path().read_dir().unwrap().count(), 0);
}

#[test]
fn cancelled_when_it_is_complete_the_dump_stays_complete() {
    let shared = quiet();
    let cancel = Arc::clone(&shared);
    let target = target(Watched {
        pages: || Ok(()),
        end: move || cancel.cancel(),
    });
    live::dump(&Running::new(None), &target, &shared).unwrap();
}

#[test]
fn a_domain_that_stays_paused_is_an_error_of_the_job() {
    let mut domain = Running::new(None);
    domain.stays_paused = true;
    let (error, _) = dump(domain, target(failing(|| Ok(()))));
    assert_eq!(
        error.unwrap(),
        "unpausing the domain: unpause: refused as asked for"
    );
}
