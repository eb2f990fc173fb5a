// SPDX-License-Identifier: LGPL-2.1-or-later
//! A guest that crashes again and again, by the clock of the test.
#![allow(missing_docs)]

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use vicover::drain::Target;
use vicover::error::Error;
use vicover::host::images::SyntheticImage;
use vicover::host::memory::{Faults, HostEvent, MemoryHost};
use vicover::job::{Count, JobState, Outcome};
use vicover::options::{OnCrashLoop, Options};
use vicover::story::recover::recover;
use vicover::story::repeated;
use vicover::told::event::{DumpEvent, Event, GuestEvent, JobEvent};
use vicover::told::kept::Kept;

const FRAMES: u64 = 4 * 512;

/// A guest, the directories that outlive its crashes, and a clock.
struct Guest {
    directory: tempfile::TempDir,
    seconds: Arc<AtomicU64>,
    options: Options,
}

/// What a crash came to.
struct Crash {
    outcome: Outcome,
    result: Result<(), Error>,
    host: MemoryHost,
    log: Kept,
}

impl Guest {
    fn with(options: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("dump")).unwrap();
        Self {
            directory,
            seconds: Arc::new(AtomicU64::new(1000)),
            options: Options::parse(&format!("threads=1,compress=none,{options}")).unwrap(),
        }
    }

    fn later(&self, seconds: u64) {
        self.seconds.fetch_add(seconds, SeqCst);
    }

    fn history(&self) -> PathBuf {
        self.directory.path().join("uuid.crashes")
    }

    /// The guest crashes, ten seconds after it was last seen.
    fn crash(&self) -> Crash {
        self.crash_with(Faults::default(), &self.directory.path().join("dump"))
    }

    fn crash_with(&self, faults: Faults, dump_dir: &Path) -> Crash {
        self.later(10);
        let seconds = self.seconds.clone();
        let clock = Box::new(move || Duration::from_secs(seconds.load(SeqCst)));
        let count = Count::of(self.directory.path(), "uuid", clock);
        let counted = count.crash(&self.options);
        let host = MemoryHost::new(Arc::new(SyntheticImage::new(FRAMES)), 1, faults);
        let log = Kept::default();
        let job = JobState::new(log.log("guest"));
        let target = Target {
            options: self.options.clone(),
            name: "guest".into(),
            dump_dir: dump_dir.into(),
            sink: Mutex::default(),
        };
        let result = match repeated::begin(count, &counted, &self.options, &job) {
            true => {
                repeated::set_dump(&counted.treatment, &job);
                recover(&host, Box::new(host.clone()), None, &target, &job)
            }
            false => Ok(()),
        };
        assert_eq!(host.violations(), Vec::<String>::new(), "log:\n{log}");
        Crash {
            outcome: job.snapshot().outcome,
            result,
            host,
            log,
        }
    }

    fn dumps(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.directory.path().join("dump")).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path());
        paths
            .filter(|path| path.extension().is_some_and(|suffix| suffix == "kdump"))
            .collect()
    }
}

impl Crash {
    fn is_recovered(&self) {
        assert_eq!(self.outcome, Outcome::Adopted, "log:\n{}", self.log);
        self.result.as_ref().unwrap();
        assert_eq!(self.host.released(), FRAMES, "log:\n{}", self.log);
        assert!(self.host.events().contains(&HostEvent::Settled));
    }

    fn job_events(&self) -> Vec<JobEvent> {
        let events = self.log.events().into_iter();
        let of_job = events.filter_map(|event| match event {
            Event::Job(event) => Some(event),
            _ => None,
        });
        of_job.collect()
    }

    /// Why there is no dump: how many there are, and where the last one is.
    fn not_wanted(&self) -> Option<(usize, Option<PathBuf>)> {
        self.log.events().into_iter().find_map(|event| match event {
            Event::Dump(DumpEvent::NotWanted { dumps, last, .. }) => Some((dumps, last)),
            _ => None,
        })
    }
}

#[test]
fn a_guest_that_crashes_at_every_boot_is_dumped_then_recovered_then_left() {
    let guest = Guest::with("");
    for number in 1..=3 {
        guest.crash().is_recovered();
        assert_eq!(guest.dumps().len(), number);
    }
    for number in 4..=5 {
        let crash = guest.crash();
        crash.is_recovered();
        let (dumps, last) = crash.not_wanted().expect("it is told");
        assert_eq!(dumps, 3);
        assert!(guest.dumps().contains(&last.unwrap()), "{}", crash.log);
        let again = JobEvent::CrashedAgain {
            crashes: number,
            limit: guest.options.max_crashes.unwrap(),
        };
        assert_eq!(crash.job_events(), [again]);
        // Nothing else of a dump is told, and no page is said to be in one.
        let dumped = |event: &Event| match event {
            Event::Dump(event) => !matches!(event, DumpEvent::NotWanted { .. }),
            Event::Guest(GuestEvent::Planned { wanted_pages, .. }) => *wanted_pages > 0,
            _ => false,
        };
        assert!(!crash.log.has(dumped), "{}", crash.log);
    }
    let crash = guest.crash();
    assert_eq!(crash.outcome, Outcome::GivenUp(OnCrashLoop::Preserve));
    let given_up = JobEvent::GivenUp {
        crashes: 6,
        limit: guest.options.max_crashes.unwrap(),
        action: OnCrashLoop::Preserve,
    };
    assert_eq!(crash.job_events(), [given_up]);
    assert_eq!(crash.host.events(), [], "nothing is done to the domain");
    assert_eq!(guest.dumps().len(), 3);
}

#[test]
fn who_starts_a_guest_anew_that_was_given_up_on_gets_it_recovered_again() {
    let guest = Guest::with("max_crashes=1/10m,max_dumps=1/10m,on_crash_loop=destroy");
    guest.crash().is_recovered();
    let crash = guest.crash();
    assert_eq!(crash.outcome, Outcome::GivenUp(OnCrashLoop::Destroy));
    // But what there is a dump of is still known.
    let crash = guest.crash();
    crash.is_recovered();
    assert!(crash.not_wanted().is_some(), "{}", crash.log);
}

#[test]
fn a_guest_that_is_started_anew_for_ever_is_not_recovered_until_it_runs_for_a_while() {
    let guest = Guest::with("max_crashes=2/1m,on_crash_loop=restart");
    let outcomes: Vec<Outcome> = (0..4).map(|_| guest.crash().outcome).collect();
    let restart = Outcome::GivenUp(OnCrashLoop::Restart);
    assert_eq!(
        outcomes,
        [Outcome::Adopted, Outcome::Adopted, restart, restart]
    );
    guest.later(60);
    guest.crash().is_recovered();
}

#[test]
fn a_minimum_time_is_kept_between_dumps() {
    let guest = Guest::with("max_dumps=1/10m,max_crashes=0");
    let mut dumps = Vec::new();
    // A crash every 200 s, for an hour.
    for _ in 0..18 {
        guest.later(190);
        guest.crash().is_recovered();
        dumps.push(guest.dumps().len());
    }
    assert_eq!(
        dumps,
        [1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4, 5, 5, 5, 6, 6, 6]
    );
}

#[test]
fn a_dump_that_could_not_be_made_does_not_count() {
    let guest = Guest::with("max_dumps=1/1h");
    let nowhere = guest.directory.path().join("missing/dump");
    let failed = guest.crash_with(Faults::default(), &nowhere);
    assert!(failed.result.is_err());
    assert_eq!(failed.outcome, Outcome::Adopted);
    guest.crash().is_recovered();
    assert_eq!(guest.dumps().len(), 1);
    assert!(guest.crash().not_wanted().is_some());
}

#[test]
fn disks_that_do_not_let_go_need_no_dump_either() {
    let guest = Guest::with("max_dumps=1/1h");
    guest.crash().is_recovered();
    let stuck = Faults {
        detach: true,
        ..Faults::default()
    };
    let crash = guest.crash_with(stuck, &guest.directory.path().join("dump"));
    assert_eq!(crash.outcome, Outcome::Dirty);
    crash.result.unwrap();
    assert_eq!(crash.host.released(), 0);
    assert_eq!(guest.dumps().len(), 1);
}

#[test]
fn a_history_that_is_damaged_means_none_and_is_told() {
    let guest = Guest::with("max_dumps=1/1h");
    guest.crash().is_recovered();
    std::fs::write(guest.history(), "{\"version\":1,").unwrap();
    let crash = guest.crash();
    crash.is_recovered();
    assert!(
        matches!(&crash.job_events()[..], [JobEvent::HistoryLost { .. }]),
        "{}",
        crash.log
    );
    assert_eq!(guest.dumps().len(), 2);
    assert!(guest.crash().not_wanted().is_some());
}

#[test]
fn crashes_that_cannot_be_counted_are_all_dumped_and_that_is_told() {
    let guest = Guest::with("max_dumps=1/1h,max_crashes=1/1h");
    std::fs::create_dir(guest.history()).unwrap();
    for number in 1..=3 {
        let crash = guest.crash();
        crash.is_recovered();
        // Of the crash, and of its dump.
        let not_counted = |event: &JobEvent| matches!(event, JobEvent::NotCounted { .. });
        let told = crash.job_events();
        assert!(
            told.len() == 2 && told.iter().all(not_counted),
            "{}",
            crash.log
        );
        assert_eq!(guest.dumps().len(), number);
    }
}
