// SPDX-License-Identifier: LGPL-2.1-or-later
//! Recoveries whose threads take their steps in an order that chance chooses: all of them
//! end, whoever waits for whom, also when one call goes wrong, when one panics, and when
//! the caller cancels at any moment. Time passes as chance has it, too.
//!
//! `SCHEDULES` says how many there are. They come in blocks, each from a seed: what fails
//! is seen again with `BLOCK=SEED`.

use std::io;
use std::panic::resume_unwind;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use shuttle::scheduler::{PctScheduler, RandomScheduler};

use super::broken::{Broken, Fault, Wrong};
use super::calls::check_host;
use super::chance::{number, Chance};
use super::{keeper, start, Ended, Kept};
use crate::addr::{Gfn, GfnRange, Page, PAGE_SIZE};
use crate::drain::Target;
use crate::dump::Sink;
use crate::error::Error;
use crate::host::images::{Image, View};
use crate::host::memory::{Faults, MemoryHost};
use crate::host::{Access, CrashedDomain, HostError, Mapping, VcpuState};
use crate::job::{JobState, Outcome, Phase};
use crate::options::Options;
use crate::os::modelled::scheduler::run;
use crate::os::modelled::thread::step;
use crate::os::thread::{start as start_thread, Signals};
use crate::story::recover;
use crate::told::event::{DumpEvent, Event, RecoveryEvent};

/// Schedules where nobody says how many: some seconds of them.
const SCHEDULES: u64 = 2_000;
/// Schedules from one seed.
const BLOCK: u64 = 100;

/// Chunks of a guest, and pages of each.
const CHUNKS: u64 = 4;
const PAGES: u64 = 2;

/// A guest with some pages at each place that is a chunk of its own.
struct Sparse(Vec<GfnRange>);

impl Sparse {
    fn new() -> Self {
        let range = |chunk: u64| GfnRange::new(Gfn(512 * chunk), Gfn(512 * chunk + PAGES));
        Self((0..CHUNKS).map(range).collect())
    }
}

fn page(gfn: Gfn) -> Page {
    let mut page = [7; PAGE_SIZE];
    page[..8].copy_from_slice(&gfn.0.to_le_bytes());
    page
}

impl Image for Sparse {
    fn ram(&self) -> &[GfnRange] {
        &self.0
    }
    fn view(&self, frames: GfnRange) -> io::Result<Box<dyn View>> {
        Ok(Box::new(frames))
    }
}

impl View for GfnRange {
    fn read(&self, index: usize, offset: usize, into: &mut [u8]) -> bool {
        let page = page(Gfn(self.start.0 + index as u64));
        let part = page.get(offset..offset + into.len());
        part.map(|part| into.copy_from_slice(part)).is_some()
    }
}

/// A disk on which one call may go wrong.
#[derive(Clone)]
struct Disk {
    /// The guest's pages that are written.
    pages: Arc<Mutex<Vec<Gfn>>>,
    calls: Arc<AtomicU64>,
    wrong: Option<(u64, Wrong)>,
    /// Something has gone wrong.
    is_hit: Arc<AtomicBool>,
}

impl Disk {
    fn call(&self) -> io::Result<()> {
        let number = self.calls.fetch_add(1, SeqCst);
        match self.wrong {
            Some((at, wrong)) if at == number => {
                self.is_hit.store(true, SeqCst);
                match wrong {
                    Wrong::Panics => resume_unwind(Box::new("the disk is broken on purpose")),
                    _ => Err(io::Error::from_raw_os_error(libc::EIO)),
                }
            }
            _ => Ok(()),
        }
    }
}

impl Sink for Disk {
    fn write_at(&mut self, _offset: u64, bytes: &[u8]) -> io::Result<()> {
        // Others may take steps while it is written.
        step();
        self.call()?;
        for written in bytes.chunks_exact(PAGE_SIZE) {
            let gfn = Gfn(u64::from_le_bytes(written[..8].try_into().unwrap()));
            if written == page(gfn) {
                self.pages.lock().unwrap().push(gfn);
            }
        }
        Ok(())
    }
    fn prepare(&mut self, _tables: u64, _whole: u64) -> io::Result<()> {
        self.call()
    }
    fn set_length(&mut self, _length: u64) -> io::Result<()> {
        self.call()
    }
    fn sync(&mut self) -> io::Result<()> {
        self.call()
    }
    fn publish(&mut self, _manifest: Option<&str>) -> io::Result<()> {
        self.call()
    }
    fn path(&self) -> Option<PathBuf> {
        None
    }
}

/// A crashed domain that looks whether its pages are saved when they are released.
struct Watched {
    domain: Broken,
    disk: Disk,
    job: Arc<Mutex<Option<Arc<JobState>>>>,
    unsaved: Arc<Mutex<Vec<Gfn>>>,
}

impl Watched {
    /// Whether there is a reason to release what is not saved.
    fn is_given_up(&self) -> bool {
        let job = self.job.lock().unwrap().clone();
        let is_cancelled = job.is_some_and(|job| job.is_cancelled());
        is_cancelled || self.disk.is_hit.load(SeqCst) || self.domain.hit().is_some()
    }
}

impl CrashedDomain for Watched {
    fn ram(&self) -> &[GfnRange] {
        self.domain.ram()
    }
    fn vcpus(&self) -> Result<Vec<VcpuState>, HostError> {
        self.domain.vcpus()
    }
    fn map(&self, frames: GfnRange, access: Access) -> Result<Box<dyn Mapping>, HostError> {
        self.domain.map(frames, access)
    }
    fn release(&self, frames: &[Gfn]) -> Result<u64, HostError> {
        let saved = self.disk.pages.lock().unwrap().clone();
        if !self.is_given_up() {
            let unsaved = frames.iter().filter(|gfn| !saved.contains(gfn));
            self.unsaved.lock().unwrap().extend(unsaved);
        }
        self.domain.release(frames)
    }
    fn claim(&self, pages: u64) -> Result<(), HostError> {
        self.domain.claim(pages)
    }
    fn pages(&self) -> Result<u64, HostError> {
        self.domain.pages()
    }
    fn check(&self) -> Result<(), HostError> {
        self.domain.check()
    }
}

/// What happens in a recovery.
#[derive(Clone, Copy, Debug)]
struct Play {
    /// The host's call of this number goes wrong.
    host: Option<(u64, Wrong)>,
    /// The disk's call of this number goes wrong.
    disk: Option<(u64, Wrong)>,
    is_cancelled: bool,
    with_standby: bool,
}

impl Play {
    fn of(number: u64) -> Self {
        let mut chance = Chance(number);
        let mut wrong = |times, most| {
            let how = chance.one_of(&[Wrong::Refused, Wrong::Panics]);
            let at = chance.below(most);
            chance.once_in(times).then_some((at, how))
        };
        Self {
            host: wrong(3, 60),
            disk: wrong(4, 20),
            is_cancelled: chance.once_in(3),
            with_standby: chance.once_in(3),
        }
    }

    /// Whether everything may go well.
    fn is_smooth(&self) -> bool {
        self.host.is_none() && self.disk.is_none() && !self.is_cancelled
    }

    fn run(self) {
        let host = MemoryHost::new(Arc::new(Sparse::new()), 2, Faults::default());
        let fault = self
            .host
            .map_or(Fault::Mortal, |(at, wrong)| Fault::At(at, wrong));
        let broken = Broken::new(&host, fault);
        let disk = Disk {
            pages: Arc::default(),
            calls: Arc::default(),
            wrong: self.disk,
            is_hit: Arc::default(),
        };
        let (unsaved, known) = (Arc::<Mutex<Vec<_>>>::default(), Arc::new(Mutex::new(None)));
        let domain = Watched {
            domain: broken.clone(),
            disk: disk.clone(),
            job: known.clone(),
            unsaved: unsaved.clone(),
        };
        let options = "threads=2,buffer=8M,compress=none,dump_level=0";
        let target = Target {
            options: Options::parse(options).unwrap(),
            name: "guest".into(),
            dump_dir: PathBuf::new(),
            sink: Mutex::new(Some(Box::new(disk))),
        };
        let (kept, toolstack) = (Kept::default(), Box::new(broken.clone()));
        let keeper = self.with_standby.then(keeper);
        let job = start(&kept, move |job| {
            recover::recover(&domain, toolstack, keeper.as_ref(), &target, job)
        });
        *known.lock().unwrap() = Some(job.shared.clone());
        let cancelling = self.is_cancelled.then(|| {
            let shared = job.shared.clone();
            start_thread("cancel", Signals::ToOthers, move || shared.cancel()).unwrap()
        });
        job.shared.wait(None, |now| now.phase == Phase::Done);
        let ended = Ended {
            what: format!("{self:?}"),
            error: job.shared.with_failure(|failure| failure.map(Error::chain)),
            outcome: job.shared.snapshot().outcome,
            log: kept,
        };
        job.join();
        cancelling.map(|thread| thread.join());
        known.lock().unwrap().take();
        let unsaved = unsaved.lock().unwrap();
        ended.check(
            unsaved.is_empty(),
            &format!("released unsaved: {unsaved:?}"),
        );
        self.check(&ended, &host, &broken);
    }

    fn check(&self, ended: &Ended, host: &MemoryHost, broken: &Broken) {
        let hit = broken.hit();
        check_host(ended, host, hit.unwrap_or("none"), false);
        if hit.is_some() {
            return;
        }
        ended.check(ended.outcome == Outcome::Adopted, "outcome");
        ended.check(host.released() == CHUNKS * PAGES, "memory is kept");
        let refused =
            |event: &Event| matches!(event, Event::Recovery(RecoveryEvent::NotReserved { .. }));
        ended.check(!ended.log.has(refused), "more was claimed than there is");
        let complete = |event: &Event| matches!(event, Event::Dump(DumpEvent::Complete { .. }));
        ended.check(
            ended.log.has(complete) == ended.error.is_none(),
            "complete by word or by error",
        );
        ended.check(
            ended.error.is_none() || !self.is_smooth(),
            "a dump without a fault",
        );
    }
}

/// Runs the schedules of one seed.
fn block(seed: u64) {
    let next = AtomicU64::new(seed * BLOCK);
    let play = move || Play::of(next.fetch_add(1, SeqCst)).run();
    let schedules = BLOCK as usize;
    // Chance at every step, or few changes of who is preferred.
    match seed % 2 {
        0 => run(RandomScheduler::new_from_seed(seed, schedules), play),
        _ => run(PctScheduler::new_from_seed(seed, 3, schedules), play),
    };
}

#[test]
fn a_recovery_ends_as_it_should_in_whatever_order_threads_take_steps() {
    if let Some(seed) = number("BLOCK") {
        return block(seed);
    }
    let blocks = number("SCHEDULES").unwrap_or(SCHEDULES).div_ceil(BLOCK);
    let next = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| loop {
                let seed = next.fetch_add(1, SeqCst);
                if seed >= blocks {
                    return;
                }
                let failed = std::panic::catch_unwind(|| block(seed)).err();
                if let Some(panic) = failed {
                    eprintln!("seen again with BLOCK={seed}");
                    resume_unwind(panic);
                }
            });
        }
    });
    println!("faults: schedules {}, by chance", blocks * BLOCK);
}
