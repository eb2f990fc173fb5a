// SPDX-License-Identifier: LGPL-2.1-or-later
//! Every call fails once: of all calls to the host, and to the dump's sink, each in its
//! turn is refused, until a story has none left. No list says which calls there are.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, OnceLock};

use super::broken::{Broken, Fault, Running};
use super::hooked_sink::HookedSink;
use super::{ended, files, guest, keeper, start, target, Ended, Kept, FRAMES};
use crate::dump::{verify, Finding};
use crate::host::memory::{Faults, HostEvent, MemoryHost};
use crate::job::Outcome;
use crate::story::{live, recover};
use crate::told::event::{DumpEvent, Event};

/// More calls than any story here has.
const MANY: u64 = 10_000;
/// Frames of a chunk: what may stay with a crashed domain whose chunk was refused.
const CHUNK: u64 = 512;

/// The dump agrees with what the job says of it: its name, what is in it, and whether
/// it is told to be complete.
pub(super) fn check_dump(ended: &Ended, directory: &tempfile::TempDir) {
    let names = files(directory);
    let dumps: Vec<&String> = names
        .iter()
        .filter(|name| !name.ends_with(".sums"))
        .collect();
    ended.check(dumps.len() < 2, &format!("{dumps:?}"));
    let told = |event: &Event| matches!(event, Event::Dump(DumpEvent::Complete { .. }));
    let is_named = dumps
        .first()
        .is_some_and(|name| name.ends_with(".kdump") || name.ends_with(".elf"));
    ended.check(
        is_named == ended.log.has(told),
        "complete by name or by word",
    );
    ended.check(
        is_named == ended.error.is_none(),
        "complete by name or by error",
    );
    if let Some(name) = dumps.first() {
        let report = verify(&directory.path().join(name));
        let finding = report.map(|report| report.finding);
        let right = match &finding {
            Ok(Finding::Complete) => is_named,
            Ok(Finding::Incomplete(_)) => !is_named,
            Ok(Finding::Damaged(_)) => false,
            // Not even a header was written.
            Err(_) => !is_named,
        };
        ended.check(right, &format!("{name}: {finding:?}"));
    }
}

/// What must hold of the host however a recovery went in which the method `refused` was
/// refused; whether pages may stay with the crashed domain for other reasons.
pub(super) fn check_host(ended: &Ended, host: &MemoryHost, refused: &str, may_keep_pages: bool) {
    let violations = host.violations();
    ended.check(violations.is_empty(), &format!("{violations:?}"));
    let events = host.events();
    let at = |wanted: HostEvent| events.iter().position(|event| *event == wanted);
    let released = |event: &HostEvent| matches!(event, HostEvent::Released(_));
    let first = events.iter().position(released);
    let fair = first.is_none() || at(HostEvent::Detached).is_some_and(|at| Some(at) < first);
    ended.check(fair, "one writer to the disk");
    // A claim that cannot be given up ends with the crashed domain.
    let kept = host.claimed_pages() > 0 && refused != "claim";
    ended.check(!kept, "memory is claimed for nobody");
    let runs = at(HostEvent::Unpaused).is_some() && at(HostEvent::Discarded).is_none();
    match ended.outcome {
        Outcome::Adopted => {
            ended.check(runs, "there is no recovery");
            let all = host.released() + CHUNK >= FRAMES;
            ended.check(all || may_keep_pages, "recovery lacks memory");
        }
        Outcome::Dirty => ended.check(!runs, "recovery runs and nobody knows"),
        Outcome::Untouched => {
            let untouched = at(HostEvent::Detached).is_none() && first.is_none();
            ended.check(untouched, "something was done");
        }
        Outcome::Undecided => ended.check(false, "nothing was decided"),
    }
}

/// Recovers a guest once for each of its calls; returns how many those were.
fn refuse_each_call_of_a_recovery(with_standby: bool) -> u64 {
    for number in 0..MANY {
        let directory = tempfile::tempdir().unwrap();
        let (host, kept) = (guest(Faults::default()), Kept::default());
        let broken = Broken::new(&host, Fault::Refuse(number));
        let (inside, target) = (broken.clone(), target(&directory, None));
        let keeper = with_standby.then(keeper);
        let job = start(&kept, move |job| {
            let toolstack = Box::new(inside.clone());
            recover::recover(&inside, toolstack, keeper.as_ref(), &target, job)
        });
        let refused = broken.refused();
        let ended = ended(&format!("call {number}"), job, &kept);
        let refused = broken.refused().or(refused).unwrap_or("none");
        check_host(&ended, &host, refused, false);
        check_dump(&ended, &directory);
        if refused == "none" {
            ended.check(ended.outcome == Outcome::Adopted, "a story without a fault");
            return number;
        }
    }
    panic!("a recovery has more than {MANY} calls");
}

#[test]
fn a_recovery_ends_as_it_should_whichever_call_is_refused() {
    for with_standby in [false, true] {
        let calls = refuse_each_call_of_a_recovery(with_standby);
        println!("standby {with_standby}: {calls} calls, each refused once");
        assert!(calls > 50, "{calls} calls: most were not seen");
    }
}

#[test]
fn a_running_domain_stays_as_it_is_whichever_call_is_refused() {
    for number in 0..MANY {
        let directory = tempfile::tempdir().unwrap();
        let (host, kept) = (guest(Faults::default()), Kept::default());
        let broken = Broken::new(&host, Fault::Refuse(number));
        let running = Running(broken.clone());
        let target = target(&directory, None);
        let job = start(&kept, move |job| live::dump(&running, &target, job));
        let ended = ended(&format!("call {number}"), job, &kept);
        ended.check(ended.outcome == Outcome::Untouched, "outcome");
        if broken.refused() != Some("unpause") {
            check_dump(&ended, &directory);
        }
        if broken.refused().is_none() {
            println!("{number} calls, each refused once");
            assert!(number > 10, "{number} calls: most were not seen");
            return;
        }
    }
    panic!("a dump has more than {MANY} calls");
}

#[test]
fn recovery_comes_whichever_write_of_the_dump_is_refused() {
    for number in 0..MANY {
        let directory = tempfile::tempdir().unwrap();
        let (host, kept) = (guest(Faults::default()), Kept::default());
        let (calls, refused) = (AtomicU64::new(0), Arc::new(OnceLock::new()));
        let seen = Arc::clone(&refused);
        let sink = HookedSink::create(&directory, move |call| {
            if calls.fetch_add(1, SeqCst) != number {
                return Ok(());
            }
            let _ = seen.set(call);
            Err(io::Error::from_raw_os_error(libc::EIO))
        });
        let target = target(&directory, Some(Box::new(sink)));
        let inside = host.clone();
        let job = start(&kept, move |job| {
            recover::recover(&inside, Box::new(inside.clone()), None, &target, job)
        });
        let ended = ended(&format!("call {number}, {refused:?}"), job, &kept);
        check_host(&ended, &host, "none", false);
        ended.check(ended.outcome == Outcome::Adopted, "outcome");
        ended.check(host.released() == FRAMES, "memory is kept");
        check_dump(&ended, &directory);
        if refused.get().is_none() {
            println!("{number} calls, each refused once");
            assert!(number > 20, "{number} calls: most were not seen");
            return;
        }
    }
    panic!("a dump has more than {MANY} calls");
}
