// SPDX-License-Identifier: LGPL-2.1-or-later
//! The whole story on the in-memory host, and its invariants.
#![allow(missing_docs)]

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use vicover::drain::Target;
use vicover::error::Error;
use vicover::error::ErrorKind;
use vicover::host::images::SyntheticImage;
use vicover::host::memory::{Faults, HostEvent, MemoryHost};
use vicover::job::{JobState, Outcome};
use vicover::options::Options;
use vicover::story::recover::recover;
use vicover::told::event::{self as told, DumpEvent, RecoveryEvent};
use vicover::told::kept::Kept;
use vicover::units::Span;

const FRAMES: u64 = 16 * 512;

struct Told {
    host: MemoryHost,
    shared: JobState,
    result: Result<(), Error>,
    log: Kept,
    directory: tempfile::TempDir,
}

impl Told {
    fn tells(&self, is_it: impl Fn(&RecoveryEvent) -> bool) -> bool {
        let is_it = |event: &told::Event| matches!(event, told::Event::Recovery(r) if is_it(r));
        self.log.has(is_it)
    }

    /// When the first page was released, and when recovery ran.
    fn times(&self) -> (Option<Span>, Option<Span>) {
        let events = self.log.events();
        let times = events.into_iter().find_map(|event| match event {
            told::Event::Recovery(RecoveryEvent::Times {
                first_release,
                unpaused,
                ..
            }) => Some((first_release, unpaused)),
            _ => None,
        });
        times.unwrap_or_else(|| panic!("{}", self.log))
    }

    fn position(&self, wanted: HostEvent) -> usize {
        let events = self.host.events();
        events
            .iter()
            .position(|event| *event == wanted)
            .unwrap_or_else(|| panic!("no {wanted:?}; log:\n{}", self.log))
    }

    /// Complete dumps in the directory.
    fn dumps(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.directory.path()).unwrap();
        entries
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|e| e == "kdump"))
            .collect()
    }
}

/// Runs a crash through `faults`; `missing` takes the dump directory away, and the
/// one that it would be in.
fn tell(faults: Faults, missing: bool) -> Told {
    tell_with("", faults, missing)
}

fn tell_with(options: &str, faults: Faults, missing: bool) -> Told {
    let directory = tempfile::tempdir().unwrap();
    let host = MemoryHost::new(Arc::new(SyntheticImage::new(FRAMES)), 2, faults);
    let log = Kept::default();
    let shared = JobState::new(log.log("guest"));
    let target = Target {
        options: Options::parse(options).unwrap(),
        name: "guest".into(),
        dump_dir: match missing {
            true => directory.path().join("missing/dump"),
            false => directory.path().into(),
        },
        sink: Mutex::default(),
    };
    let result = recover(&host, Box::new(host.clone()), None, &target, &shared);
    assert_eq!(host.claimed_pages(), 0, "a claim is left behind");
    Told {
        host,
        shared,
        result,
        log,
        directory,
    }
}

#[test]
fn a_crash_ends_with_a_dump_and_a_successor() {
    let told = tell(Faults::default(), false);
    told.result.as_ref().unwrap();
    assert_eq!(told.shared.snapshot().outcome, Outcome::Adopted);
    assert_eq!(told.host.violations(), Vec::<String>::new());
    assert_eq!(told.host.released(), FRAMES);
    let backing = vicover::host::RecoveryDomain::backing(&told.host).unwrap();
    assert_eq!(backing.total, FRAMES, "recovery has its full memory");
    let order = [
        HostEvent::Detached,
        HostEvent::Created,
        HostEvent::Unpaused,
        HostEvent::Destroyed,
        HostEvent::Settled,
    ]
    .map(|event| told.position(event));
    assert!(order.is_sorted(), "{order:?}; log:\n{}", told.log);
    assert_eq!(told.dumps().len(), 1);
}

#[test]
fn the_report_tells_when_memory_came_and_when_recovery_ran() {
    let told = tell(Faults::default(), false);
    let times = &told.shared.milestones;
    let (first, ran) = (times.first_release.get(), times.unpaused.get());
    assert!(first.is_some() && first < ran, "{first:?}, {ran:?}");
    let of = |at: Option<&std::time::Duration>| at.copied().map(Span);
    assert_eq!(told.times(), (of(first), of(ran)));
    let stuck = Faults {
        detach: true,
        ..Faults::default()
    };
    let told = tell(stuck, false);
    assert!(!told.tells(|told| matches!(told, RecoveryEvent::Unpaused { .. })));
}

#[test]
fn a_complete_dump_is_told_when_it_is_complete() {
    let told = tell(Faults::default(), false);
    let events = told.log.events();
    let place = |is_it: &dyn Fn(&told::Event) -> bool| events.iter().position(is_it);
    let complete = place(&|event| matches!(event, told::Event::Dump(DumpEvent::Complete { .. })));
    let settled =
        place(&|event| matches!(event, told::Event::Recovery(RecoveryEvent::Settled { .. })));
    assert!(complete.is_some() && complete < settled, "{}", told.log);
}

#[test]
fn recovery_runs_before_half_of_the_memory_is_released() {
    let told = tell(Faults::default(), false);
    let unpaused = told.position(HostEvent::Unpaused) as u64;
    assert!(unpaused < FRAMES / 2, "after {unpaused} events");
}

#[test]
fn no_page_is_released_before_the_disks_are_detached() {
    let told = tell(Faults::default(), false);
    let detached = told.position(HostEvent::Detached);
    let events = told.host.events();
    let released = events
        .iter()
        .position(|e| matches!(e, HostEvent::Released(_)));
    assert!(detached < released.unwrap());
}

#[test]
fn a_dump_that_cannot_be_written_does_not_stop_recovery() {
    let told = tell(Faults::default(), true);
    let text = told.result.as_ref().unwrap_err().chain();
    assert!(text.contains("missing/dump: No such file"), "{text}");
    assert_eq!(told.shared.snapshot().outcome, Outcome::Adopted);
    assert_eq!(told.host.released(), FRAMES);
    assert_eq!(told.host.violations(), Vec::<String>::new());
}

#[test]
fn pages_that_a_dump_has_no_room_for_are_given_back_all_the_same() {
    let room = FRAMES / 4 * 4096;
    let options = format!("dump_level=0,compress=none,max_dump_size={room}");
    let told = tell_with(&options, Faults::default(), false);
    let left_out = |event: &told::Event| {
        matches!(event, told::Event::Dump(DumpEvent::LeftOut { kept_pages, .. })
            if *kept_pages < FRAMES)
    };
    assert!(told.log.has(left_out), "{}", told.log);
    assert_eq!(told.host.released(), FRAMES);
    assert_eq!(told.host.violations(), Vec::<String>::new());
}

#[test]
fn disks_that_do_not_let_go_mean_a_dump_and_no_successor() {
    let faults = Faults {
        detach: true,
        ..Faults::default()
    };
    let told = tell(faults, false);
    told.result.as_ref().unwrap();
    let detaching = "detaching the crashed domain's devices";
    let failed = |told: &RecoveryEvent| match told {
        RecoveryEvent::Failed { why } => why.text.starts_with(detaching),
        _ => false,
    };
    assert!(told.tells(failed), "{}", told.log);
    assert_eq!(told.shared.snapshot().outcome, Outcome::Dirty);
    assert_eq!(told.host.released(), 0, "one writer to the disk");
    assert!(!told.host.events().contains(&HostEvent::Created));
    assert_eq!(told.dumps().len(), 1);
}

#[test]
fn creating_the_successor_is_tried_twice() {
    let told = tell(
        Faults {
            creations: 1,
            ..Faults::default()
        },
        false,
    );
    told.result.as_ref().unwrap();
    assert_eq!(told.shared.snapshot().outcome, Outcome::Adopted);
    let again = |told: &RecoveryEvent| matches!(told, RecoveryEvent::CreatingAgain { .. });
    assert!(told.tells(again), "{}", told.log);
}

#[test]
fn a_successor_that_cannot_be_created_still_leaves_a_dump() {
    let told = tell(
        Faults {
            creations: 2,
            ..Faults::default()
        },
        false,
    );
    // The dump is complete, and nobody is told anything else.
    told.result.as_ref().unwrap();
    let failed = |told: &RecoveryEvent| match told {
        RecoveryEvent::Failed { why } => {
            why.kind == ErrorKind::Host
                && why.text.starts_with("creating the recovery domain: create")
        }
        _ => false,
    };
    assert!(told.tells(failed), "{}", told.log);
    assert_eq!(told.shared.snapshot().outcome, Outcome::Dirty);
    assert_eq!(told.dumps().len(), 1);
}

#[test]
fn a_successor_that_dies_at_once_does_not_disturb_the_dump() {
    let told = tell(
        Faults {
            recovery_lost: true,
            ..Faults::default()
        },
        false,
    );
    told.result.as_ref().unwrap();
    assert_eq!(told.shared.snapshot().outcome, Outcome::Adopted);
    assert_eq!(told.host.released(), FRAMES);
    assert_eq!(told.host.violations(), Vec::<String>::new());
    assert_eq!(told.dumps().len(), 1);
    told.position(HostEvent::Destroyed);
    assert!(!told.host.events().contains(&HostEvent::Settled));
    assert!(told.tells(|told| matches!(told, RecoveryEvent::Gone { .. })));
    assert!(!told.tells(|told| matches!(told, RecoveryEvent::NotSettled { .. })));
    let error = |event: &told::Event| event.level() == log::Level::Error;
    assert!(!told.log.has(error), "{}", told.log);
}

#[test]
fn a_limited_dump_holds_back_neither_recovery_nor_those_who_come_after_it() {
    // At this rate the headers alone would take hours.
    let slow = "io=fixed:1K,dump_level=0";
    let lost = Faults {
        recovery_lost: true,
        ..Faults::default()
    };
    let told = tell_with(slow, lost, false);
    told.result.as_ref().unwrap();
    assert_eq!(told.host.released(), FRAMES);
}

#[test]
fn no_other_domain_gets_the_memory_that_is_given_back() {
    let greedy = Faults {
        greedy_neighbour: true,
        ..Faults::default()
    };
    let told = tell(greedy, false);
    told.result.as_ref().unwrap();
    assert_eq!(told.shared.snapshot().outcome, Outcome::Adopted);
    let backing = vicover::host::RecoveryDomain::backing(&told.host).unwrap();
    assert_eq!(backing.total, FRAMES, "recovery has its full memory");
    let refused = |told: &RecoveryEvent| matches!(told, RecoveryEvent::NotReserved { .. });
    assert!(!told.tells(refused), "{}", told.log);
}

#[test]
fn what_recovery_does_not_take_is_claimed_no_longer_than_there_is_a_crashed_domain() {
    let late = Faults {
        growth: true,
        greedy_neighbour: true,
        ..Faults::default()
    };
    let told = tell(late, false);
    told.result.as_ref().unwrap();
    assert_eq!(told.host.violations(), Vec::<String>::new());
    let backing = vicover::host::RecoveryDomain::backing(&told.host).unwrap();
    assert_eq!(backing.total, FRAMES, "recovery has its full memory");
}

#[test]
fn a_dump_that_was_cancelled_before_it_began_leaves_no_file_and_recovery_completes() {
    let directory = tempfile::tempdir().unwrap();
    let host = MemoryHost::new(Arc::new(SyntheticImage::new(FRAMES)), 1, Faults::default());
    let shared = JobState::new(Kept::default().log("guest"));
    shared.cancel();
    let target = Target {
        options: Options::default(),
        name: "guest".into(),
        dump_dir: directory.path().into(),
        sink: Mutex::default(),
    };
    let result = recover(&host, Box::new(host.clone()), None, &target, &shared);
    assert!(matches!(result, Err(Error::Cancelled)));
    assert_eq!(shared.snapshot().outcome, Outcome::Adopted);
    assert_eq!(host.released(), FRAMES);
    assert_eq!(host.violations(), Vec::<String>::new());
    assert_eq!(shared.dump_path(), None);
    assert_eq!(directory.path().read_dir().unwrap().count(), 0);
}

#[test]
fn pages_that_are_not_there_are_neither_dumped_nor_released() {
    let told = tell(
        Faults {
            absent_every: Some(7),
            ..Faults::default()
        },
        false,
    );
    told.result.as_ref().unwrap();
    assert_eq!(told.host.released(), FRAMES - FRAMES.div_ceil(7));
    let stated = |event: &told::Event| match event {
        told::Event::Dump(DumpEvent::Complete {
            unreadable_pages, ..
        }) => *unreadable_pages == FRAMES.div_ceil(7),
        _ => false,
    };
    assert!(told.log.has(stated), "{}", told.log);
}
