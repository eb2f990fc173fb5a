//! A dump of a running domain: it is paused while it is read, and runs again
//! however the dump ended.
#![allow(missing_docs)]

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicI32, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use vicover::addr::{Gfn, GfnRange};
use vicover::dump::{verify, FileSink, Sink, Verdict};
use vicover::error::Error;
use vicover::host::images::SyntheticImage;
use vicover::host::memory::{Faults, MemoryHost};
use vicover::host::{Access, CrashedDomain, HostError, Mapping, Pausable, VcpuState};
use vicover::job::{Job, Outcome, Phase, Shared};
use vicover::joblog::JobLog;
use vicover::live;
use vicover::options::Options;
use vicover::recover::Target;

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
}

impl Running {
    fn new(trap: Trap) -> Self {
        let image = Arc::new(SyntheticImage::new(PAGES));
        Self {
            memory: MemoryHost::new(image, 2, Faults::default()),
            pauses: Arc::default(),
            trap,
            stays_paused: false,
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
        dump_dir: "/nonexistent".into(),
        sink: Mutex::new(Some(Box::new(sink))),
    }
}

/// Runs the job to its end; its error, if any, and its outcome.
fn dump(domain: Running, target: Target) -> (Option<String>, Outcome) {
    let log = JobLog::new("live", Some(Box::new(|_, _| {})));
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
    assert_eq!(report.verdict, Verdict::Complete);
    assert!(report.with_manifest);
    assert_eq!(report.wanted_pages, PAGES);
    assert!(!dir.path().join("wanted.incomplete").exists());
}

/// A sink that fails, in one way or another, when pages are written.
struct Failing<F>(F);

impl<F: FnMut() -> io::Result<()> + Send> Sink for Failing<F> {
    fn write_at(&mut self, _offset: u64, _bytes: &[u8]) -> io::Result<()> {
        Ok(())
    }

    fn write_pages(&mut self, _offset: u64, _bytes: &[u8]) -> io::Result<()> {
        (self.0)()
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
        Ok(())
    }

    fn path(&self) -> Option<PathBuf> {
        None
    }
}

#[test]
fn it_runs_again_after_a_write_error() {
    let full = || Err(io::Error::from_raw_os_error(libc::ENOSPC));
    let (error, outcome) = dump(Running::new(None), target(Failing(full)));
    assert!(error.unwrap().contains("No space left"));
    assert_eq!(outcome, Outcome::Untouched);
}

#[test]
fn it_runs_again_after_a_panic() {
    let end = Gfn(PAGES - 1);
    let (error, outcome) = dump(Running::new(Some(end)), target(Failing(|| Ok(()))));
    assert!(error.unwrap().contains("trapped"));
    assert_eq!(outcome, Outcome::Untouched);
}

#[test]
fn it_runs_again_when_the_caller_cancels() {
    let domain = Running::new(None);
    let shared = Arc::new(Shared::new(JobLog::new("live", Some(Box::new(|_, _| {})))));
    let cancel = Arc::clone(&shared);
    let target = target(Failing(move || {
        cancel.cancel();
        Ok(())
    }));
    let error = live::dump(&domain, &target, &shared).unwrap_err();
    assert_eq!(error.chain(), "cancelled by the caller");
    assert_eq!(domain.pauses.load(SeqCst), 0);
}

#[test]
fn a_domain_that_stays_paused_is_an_error_of_the_job() {
    let mut domain = Running::new(None);
    domain.stays_paused = true;
    let (error, _) = dump(domain, target(Failing(|| Ok(()))));
    assert_eq!(
        error.unwrap(),
        "unpausing the domain: unpause: refused as asked for"
    );
}
