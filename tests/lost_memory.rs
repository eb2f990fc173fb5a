// SPDX-License-Identifier: LGPL-2.1-or-later
//! Memory that could not be had: the dump is what there is of it, and nobody is told
//! that it is complete.
#![allow(missing_docs)]

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use vicover::drain::Target;
use vicover::dump::{verify, Finding, Report};
use vicover::error::Error;
use vicover::host::images::SyntheticImage;
use vicover::host::memory::{Faults, MemoryHost};
use vicover::host::Access;
use vicover::job::{JobState, Outcome};
use vicover::options::Options;
use vicover::story::recover::{dump_only, recover};
use vicover::told::event::{DumpEvent, Event};
use vicover::told::kept::Kept;
use vicover::told::log::JobLog;

const FRAMES: u64 = 64 * 512;

struct Told {
    host: MemoryHost,
    outcome: Outcome,
    error: Option<String>,
    log: Kept,
    path: PathBuf,
    report: Report,
    _directory: tempfile::TempDir,
}

impl Told {
    fn check(&self, is_right: bool, what: &str) {
        let Self { error, log, .. } = self;
        assert!(
            is_right,
            "{what}: {error:?}, {:?}; log:\n{log}",
            self.report
        );
    }

    /// The dump ended incomplete, and everybody says so, briefly, and why.
    fn is_incomplete(&self, why: &str) {
        let said = self.error.as_ref().is_some_and(|error| error.contains(why));
        self.check(said, "the job's error");
        let incomplete = |event: &Event| match event {
            Event::Dump(DumpEvent::Incomplete { why: told, .. }) => told.text.contains(why),
            _ => false,
        };
        self.check(self.log.has(incomplete), "the log says why");
        let complete = |event: &Event| matches!(event, Event::Dump(DumpEvent::Complete { .. }));
        self.check(!self.log.has(complete), "the log");
        self.check(self.log.events().len() < 40, "the log is long");
        let named = self.path.extension().is_some_and(|end| end == "incomplete");
        self.check(named, "the name");
        let unfinished = Finding::Incomplete("was not finished".into());
        self.check(self.report.finding == unfinished, "the finding");
    }
}

type Work = fn(&MemoryHost, &Target, &JobState) -> Result<(), Error>;

fn recovered(host: &MemoryHost, target: &Target, shared: &JobState) -> Result<(), Error> {
    recover(host, Box::new(host.clone()), None, target, shared)
}

fn dumped(host: &MemoryHost, target: &Target, shared: &JobState) -> Result<(), Error> {
    dump_only(host, target, &|| (), shared)
}

fn tell(work: Work, options: &str, faults: Faults) -> Told {
    let directory = tempfile::tempdir().unwrap();
    let host = MemoryHost::new(Arc::new(SyntheticImage::new(FRAMES)), 1, faults);
    let log = Kept::default();
    let shared = JobState::new(log.log("guest"));
    let target = Target {
        options: Options::parse(&format!("dump_level=0,{options}")).unwrap(),
        name: "guest".into(),
        dump_dir: directory.path().into(),
        sink: Mutex::default(),
    };
    let result = work(&host, &target, &shared);
    let path = shared.dump_path().unwrap_or_default();
    let report = verify(&path).unwrap_or_else(|error| panic!("{error}; log:\n{log}"));
    Told {
        host,
        outcome: shared.snapshot().outcome,
        error: result.err().map(|error| error.chain()),
        log,
        path,
        report,
        _directory: directory,
    }
}

/// Mappings until the plan of a dump alone is made, all only to read. In a recovery the
/// search ends with the devices; what is dumped is mapped to be scrubbed.
fn maps_to_understand() -> u64 {
    let faults = Faults::default();
    let host = MemoryHost::new(Arc::new(SyntheticImage::new(FRAMES)), 1, faults);
    let directory = tempfile::tempdir().unwrap();
    let shared = JobState::new(JobLog::new("guest", Some(Box::new(|_| {}))));
    let target = Target {
        options: Options::parse("dump_level=0").unwrap(),
        name: "guest".into(),
        dump_dir: directory.path().join("missing/dumps"),
        sink: Mutex::default(),
    };
    dump_only(&host, &target, &|| (), &shared).unwrap_err();
    host.mappings()
}

#[test]
fn a_domain_that_is_destroyed_meanwhile_leaves_an_incomplete_dump() {
    let before = maps_to_understand();
    for (work, options, access, before) in [
        (recovered as Work, "", Access::Scrub, 0),
        (dumped, "", Access::Read, before),
        (dumped, "format=elf", Access::Read, before),
        (dumped, "compress=none", Access::Read, before),
    ] {
        for after in [1, 20] {
            let faults = Faults {
                destroyed_after: Some((access, before + after)),
                ..Faults::default()
            };
            let told = tell(work, options, faults);
            told.is_incomplete("the crashed domain is gone");
            assert_eq!(told.host.violations(), Vec::<String>::new());
            let in_it = told.report.stored_pages + told.report.zero_pages;
            // An ELF dump does not say.
            let all_before = options.contains("elf") || in_it == (after - 1) * 512;
            told.check(all_before, "pages that were there");
        }
    }
}

#[test]
fn recovery_runs_on_when_the_crashed_domain_is_destroyed() {
    let faults = Faults {
        destroyed_after: Some((Access::Scrub, 40)),
        ..Faults::default()
    };
    let told = tell(recovered, "", faults);
    told.check(told.outcome == Outcome::Adopted, "outcome");
    told.is_incomplete("the crashed domain is gone");
    let backing = vicover::host::RecoveryDomain::backing(&told.host).unwrap();
    assert_eq!(backing.total, FRAMES, "recovery has its full memory");
}

#[test]
fn mappings_that_fail_leave_an_incomplete_dump_with_all_the_rest() {
    for work in [recovered as Work, dumped] {
        let faults = Faults {
            map_every: Some(3),
            ..Faults::default()
        };
        let told = tell(work, "", faults);
        told.is_incomplete("refused as asked for");
        let in_it = told.report.stored_pages + told.report.zero_pages;
        told.check(in_it > FRAMES / 2, "pages that were there");
        let (mut missed, mut more) = (0, 0);
        for event in told.log.events() {
            match event {
                Event::Dump(DumpEvent::Missed { .. }) => missed += 1,
                Event::Dump(DumpEvent::MoreMissed { ranges }) => {
                    told.check(ranges > 0, "nothing is told of none");
                    more += ranges;
                }
                _ => {}
            }
        }
        told.check(missed == 3, "some are told one by one");
        let ranges = told.report.lost_pages / 512;
        told.check(missed + more == ranges, "how many more is said");
    }
}

#[test]
fn pages_that_the_guest_does_not_have_are_stated_in_a_complete_dump() {
    let faults = Faults {
        absent_every: Some(7),
        ..Faults::default()
    };
    let told = tell(dumped, "", faults);
    let absent = FRAMES.div_ceil(7);
    told.check(told.error.is_none(), "no error");
    let stated = |event: &Event| match event {
        Event::Dump(DumpEvent::Complete {
            unreadable_pages, ..
        }) => *unreadable_pages == absent,
        _ => false,
    };
    told.check(told.log.has(stated), "the log");
    told.check(told.report.finding == Finding::Complete, "the finding");
    assert_eq!(told.report.lost_pages, absent);
}

#[test]
fn a_dump_without_a_page_is_not_complete() {
    let faults = Faults {
        absent_every: Some(1),
        ..Faults::default()
    };
    let told = tell(dumped, "", faults);
    told.is_incomplete(&format!("none of {FRAMES} pages could be read"));
}
