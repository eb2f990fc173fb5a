// SPDX-License-Identifier: LGPL-2.1-or-later
//! The system grants one thread less than is asked for, each in its turn.

use std::sync::atomic::Ordering::SeqCst;

use super::{ended, files, guest, scratch, target, Kept, FRAMES};
use crate::drain::Target;
use crate::error::Error;
use crate::host::memory::{Faults, HostEvent, MemoryHost};
use crate::job::{Job, JobState, Outcome};
use crate::os::thread::refusal;
use crate::story::recover::{dump_only, recover};
use crate::told::event::{self as told, ControlEvent, DumpEvent, JobEvent};

const WHY: &str = "cannot start a thread: Resource temporarily unavailable";
/// More than any job starts.
const MANY: u64 = 50;

/// Refuses each start in turn to a job, and has `check` look at what it came to, with
/// the job's error and log, and the number of the start.
fn refuse_each(
    work: impl Fn(MemoryHost, Target, &JobState) -> Result<(), Error> + Copy + Send + 'static,
    check: impl Fn(&super::Ended, &MemoryHost, u64),
) {
    for number in 1..MANY {
        let directory = scratch();
        let (host, kept) = (guest(Faults::default()), Kept::default());
        let (inside, target) = (host.clone(), target(&directory, None));
        let left = refusal::of_number(number);
        let started = Job::start(kept.log("guest"), move |shared| {
            work(inside, target, shared)
        });
        let job = match started {
            Ok(job) => job,
            Err(error) => {
                assert_eq!(number, 1, "the job's own thread is the first");
                assert!(error.chain().starts_with(WHY), "{}", error.chain());
                assert_eq!(files(&directory).len(), 0);
                continue;
            }
        };
        let ended = ended(&format!("start number {number}"), job, &kept);
        if left.load(SeqCst) > 0 {
            ended.check(ended.error.is_none(), "nothing was refused");
            assert!(number > 4, "too few threads to have seen anything");
            return;
        }
        let said = ended.log.has(|event| match event {
            told::Event::Control(ControlEvent::NoThread { .. }) => true,
            told::Event::Dump(DumpEvent::NotMade { why } | DumpEvent::Incomplete { why, .. }) => {
                why.text.contains(WHY)
            }
            told::Event::Dump(DumpEvent::Stopped { why }) => why.contains(WHY),
            told::Event::Job(JobEvent::Failed { why }) => why.text.contains(WHY),
            _ => false,
        });
        ended.check(said, "nobody says so");
        check(&ended, &host, number);
    }
    panic!("a job starts more than {MANY} threads");
}

#[test]
fn a_dump_without_one_of_its_threads_is_an_error_that_says_so() {
    refuse_each(
        |host, target, shared| dump_only(&host, &target, &|| (), shared),
        |ended, _, number| {
            // The first after the job's own only looks after the pace.
            let failed = ended.error.as_ref();
            let right = match number {
                2 => failed.is_none(),
                _ => failed.is_some_and(|error| error.contains(WHY)),
            };
            ended.check(right, "another error");
        },
    );
}

#[test]
fn recovery_comes_whichever_thread_is_refused() {
    refuse_each(
        |host, target, shared| recover(&host, Box::new(host.clone()), None, &target, shared),
        |ended, host, _| {
            ended.check(ended.outcome == Outcome::Adopted, "no recovery");
            ended.check(host.released() == FRAMES, "memory is kept");
            let violations = host.violations();
            ended.check(violations.is_empty(), &format!("{violations:?}"));
            // A guard that had stopped it lets it run after that.
            let settled = host.events().contains(&HostEvent::Settled);
            ended.check(settled, "recovery did not become an ordinary domain");
            let error = ended.error.as_ref();
            ended.check(error.is_none_or(|error| error.contains(WHY)), "error");
        },
    );
}
