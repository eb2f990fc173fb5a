// SPDX-License-Identifier: LGPL-2.1-or-later
//! Whatever becomes of the dump, memory is given back, and none of it too early.

use std::path::Path;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Mutex};

use super::*;
use crate::addr::Pfn;
use crate::drain::handover::tests::{waits, Grown};
use crate::drain::{start_dump, Target};
use crate::dump::{Bitmap, Bitmaps};
use crate::host::images::SyntheticImage;
use crate::host::memory::{Faults, HostEvent, MemoryHost};
use crate::host::VcpuState;
use crate::journal::Untouched;
use crate::options::Options;
use crate::told::event::Event;
use crate::told::kept::Kept;
use crate::understand::{nothing_wanted, understand, Awaited};

const FRAMES: u64 = 8 * 512;

fn guest() -> MemoryHost {
    MemoryHost::new(Arc::new(SyntheticImage::new(FRAMES)), 1, Faults::default())
}

/// What is known about `host` when all of it is to be dumped.
fn all_of(host: &MemoryHost, job: &JobState) -> Understanding {
    let options = Options::parse("dump_level=0").unwrap();
    understand(host, &[], &options, &Awaited::default(), job).unwrap()
}

fn target(directory: &Path) -> Target {
    Target {
        options: Options::parse("dump_level=0,compress=none").unwrap(),
        name: "guest".into(),
        dump_dir: directory.into(),
        sink: Mutex::new(None),
    }
}

/// Every page was given back, once, and none with the guest's bytes.
fn all_is_given_back(host: &MemoryHost, kept: &Kept) {
    assert_eq!(host.released(), FRAMES, "{kept}");
    let violations = host.violations();
    assert!(violations.is_empty(), "{violations:?}");
}

#[test]
fn a_dump_that_panics_when_it_is_started_costs_the_dump_alone() {
    let (host, kept) = (guest(), Kept::default());
    let job = JobState::new(kept.log("guest"));
    let handover = Handover::new(&host, &job.log, &job.cancel);
    handover.detached();
    let mut known = all_of(&host, &job);
    let start = |_: &mut Understanding| panic!("nothing starts here");
    let failed = run(&host, &mut known, Work::HandOver(&handover), start, &job);
    let Err(Error::Internal(why)) = failed else {
        panic!("it did not fail as it should: {kept}");
    };
    assert!(why.contains("nothing starts here"), "{why}");
    let told = |event: &Event| matches!(event, Event::Dump(DumpEvent::NotMade { .. }));
    assert!(kept.has(told), "{kept}");
    all_is_given_back(&host, &kept);
    assert!(handover.is_drained());
}

#[test]
fn what_the_thread_that_gives_back_has_left_is_given_back_after_it() {
    let directory = tempfile::tempdir().unwrap();
    let (host, kept) = (guest(), Kept::default());
    let job = JobState::new(kept.log("guest"));
    let handover = Handover::new(&host, &job.log, &job.cancel);
    handover.detached();
    let recovery = Arc::new(Grown::default());
    recovery.panics_once.store(true, SeqCst);
    handover.adopt(recovery);
    let (mut known, target) = (all_of(&host, &job), target(directory.path()));
    let start = |known: &mut Understanding| start_dump(&host, &target, known, &job);
    let failed = run(&host, &mut known, Work::HandOver(&handover), start, &job);
    let Err(Error::Internal(why)) = failed else {
        panic!("the panic is not told: {kept}");
    };
    assert!(why.contains("no memory wanted"), "{why}");
    all_is_given_back(&host, &kept);
}

/// Checks that `work` leaves the domain alone until it is let go.
fn leaves_alone(work: impl FnOnce(&MemoryHost, &Handover<'_>, &JobState) + Send, is_paused: bool) {
    let (host, kept) = (guest(), Kept::default());
    let job = JobState::new(kept.log("guest"));
    let handover = Handover::new(&host, &job.log, &job.cancel);
    if is_paused {
        handover.detached();
        handover.pause_drain();
    }
    let let_go = || {
        let touched = (host.released(), host.mappings());
        match is_paused {
            true => handover.resume_drain(),
            false => handover.detached(),
        }
        assert_eq!(touched, (0, 0));
    };
    waits(|| work(&host, &handover, &job), let_go);
    all_is_given_back(&host, &kept);
}

#[test]
fn nothing_is_given_back_before_the_last_device_is_gone() {
    leaves_alone(
        |host, handover, job| {
            let known = nothing_wanted(host, Untouched::Frames(vec![])).unwrap();
            release_all(host, &known, Work::HandOver(handover), job);
        },
        false,
    );
}

#[test]
fn a_paused_drain_neither_reads_nor_gives_back() {
    let directory = tempfile::tempdir().unwrap();
    let target = target(directory.path());
    // Pages that nobody wants, and those of a dump.
    for is_wanted in [false, true] {
        leaves_alone(
            |host, handover, job| {
                let mut known = nothing_wanted(host, Untouched::Frames(vec![])).unwrap();
                if is_wanted {
                    let present = known.bitmaps.present().clone();
                    known.bitmaps = Arc::new(Bitmaps::new(present.clone(), present).unwrap());
                }
                let start = |known: &mut Understanding| start_dump(host, &target, known, job);
                run(host, &mut known, Work::HandOver(handover), start, job).unwrap();
            },
            true,
        );
    }
}

/// A guest whose successor sees only what it has.
struct Paravirtual<'a>(&'a MemoryHost);

impl CrashedDomain for Paravirtual<'_> {
    fn ram(&self) -> &[GfnRange] {
        self.0.ram()
    }
    fn vcpus(&self) -> Result<Vec<VcpuState>, HostError> {
        self.0.vcpus()
    }
    fn map(&self, frames: GfnRange, access: Access) -> Result<Box<dyn Mapping>, HostError> {
        self.0.map(frames, access)
    }
    fn release(&self, frames: &[Gfn]) -> Result<u64, HostError> {
        self.0.release(frames)
    }
    fn claim(&self, pages: u64) -> Result<(), HostError> {
        self.0.claim(pages)
    }
    fn is_paravirtual(&self) -> bool {
        true
    }
    fn pages(&self) -> Result<u64, HostError> {
        self.0.pages()
    }
}

#[test]
fn what_nobody_wants_does_not_wait_for_a_successor_that_sees_only_what_it_has() {
    let directory = tempfile::tempdir().unwrap();
    let (host, kept) = (guest(), Kept::default());
    let job = JobState::new(kept.log("guest"));
    let handover = Handover::new(&host, &job.log, &job.cancel);
    handover.detached();
    handover.pause_drain();
    let mut known = nothing_wanted(&host, Untouched::Frames(vec![])).unwrap();
    let half = Pfn(FRAMES / 2);
    let mut wanted = Bitmap::new(Pfn(FRAMES)).unwrap();
    wanted.set_range(half, Pfn(FRAMES));
    let present = known.bitmaps.present().clone();
    known.bitmaps = Arc::new(Bitmaps::new(present, wanted).unwrap());
    let (domain, target) = (Paravirtual(&host), target(directory.path()));
    let start = |known: &mut Understanding| {
        assert_eq!(host.released(), half.0);
        start_dump(&domain, &target, known, &job)
    };
    let work = Work::HandOver(&handover);
    let drain = || drop(run(&domain, &mut known, work, start, &job).unwrap());
    waits(drain, || handover.resume_drain());
    all_is_given_back(&host, &kept);
}

/// Xen passes on in one piece what it got so.
#[test]
fn chunks_of_which_nothing_is_dumped_are_given_back_first() {
    let (host, kept) = (guest(), Kept::default());
    let job = JobState::new(kept.log("guest"));
    let handover = Handover::new(&host, &job.log, &job.cancel);
    handover.detached();
    let mut known = all_of(&host, &job);
    let present = known.bitmaps.present().clone();
    let mut wanted = Bitmap::new(Pfn(FRAMES)).unwrap();
    let (with_pages, without) = known.chunks.split_at(5);
    for chunk in with_pages {
        wanted.set(Pfn(chunk.start.0 + 7));
    }
    let mut whole: Vec<Gfn> = without.iter().flat_map(GfnRange::iter).collect();
    known.bitmaps = Arc::new(Bitmaps::new(present, wanted).unwrap());
    let start = |_: &mut Understanding| Err(Error::Cancelled);
    run(&host, &mut known, Work::HandOver(&handover), start, &job).unwrap_err();
    let released = host.events().into_iter().filter_map(|event| match event {
        HostEvent::Released(gfn) => Some(gfn),
        _ => None,
    });
    let mut first: Vec<Gfn> = released.take(whole.len()).collect();
    first.sort_unstable();
    whole.sort_unstable();
    assert_eq!(first, whole);
    all_is_given_back(&host, &kept);
}

#[test]
fn of_a_domain_that_goes_on_running_nothing_is_given_back() {
    let (host, kept) = (guest(), Kept::default());
    let job = JobState::new(kept.log("guest"));
    let known = all_of(&host, &job);
    let mappings = host.mappings();
    release_all(&host, &known, Work::DumpOnly(&|| ()), &job);
    assert_eq!((host.released(), host.mappings()), (0, mappings));
}

#[test]
fn what_gives_nothing_back_is_not_the_first_release() {
    for (untouched, is_released) in [(vec![(0, FRAMES)], false), (vec![(1, FRAMES)], true)] {
        let (host, kept) = (guest(), Kept::default());
        let job = JobState::new(kept.log("guest"));
        let handover = Handover::new(&host, &job.log, &job.cancel);
        handover.detached();
        let known = nothing_wanted(&host, Untouched::Frames(untouched)).unwrap();
        release_all(&host, &known, Work::HandOver(&handover), &job);
        assert_eq!(host.released(), u64::from(is_released));
        let first = job.milestones.first_release.get();
        assert_eq!(first.is_some(), is_released);
    }
}
