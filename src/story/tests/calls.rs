// SPDX-License-Identifier: LGPL-2.1-or-later
//! Every call goes wrong once: of all calls to the host, and to the dump's file, each in
//! its turn is refused, panics or is late, until a story has none left. No list says which
//! calls there are.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, OnceLock};

use super::broken::{Broken, Fault, Running, Wrong, LATENESS};
use super::hooked_sink::HookedSink;
use super::{
    ended, files, for_each_number, guest, keeper, scratch, start, target, Ended, Kept, FRAMES,
};
use crate::dump::{verify, Finding};
use crate::host::memory::{Faults, HostEvent, MemoryHost};
use crate::host::CrashedDomain;
use crate::job::Outcome;
use crate::story::{live, recover};
use crate::told::event::{DumpEvent, Event};

/// Frames of a chunk: what may stay with a crashed domain whose chunk was refused.
const CHUNK: u64 = 512;

/// The dump agrees with what the job says of it: its name, what is in it, and whether
/// it is told to be complete.
pub(super) fn check_dump(ended: &Ended, directory: &tempfile::TempDir) {
    let names = files(directory);
    let dumps: Vec<&String> = names
        .iter()
        .filter(|name| {
            [".kdump", ".elf", ".incomplete"]
                .iter()
                .any(|end| name.ends_with(end))
        })
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
            let stopped = host.is_recovery_stopped() && refused != "unpause";
            ended.check(!stopped, "recovery is stopped");
            let all = CrashedDomain::pages(host).unwrap() <= CHUNK;
            ended.check(all || may_keep_pages, "recovery lacks memory");
        }
        Outcome::Dirty => ended.check(!runs, "recovery runs and nobody knows"),
        Outcome::Untouched => {
            let untouched = at(HostEvent::Detached).is_none() && first.is_none();
            ended.check(untouched, "something was done");
        }
        Outcome::Undecided | Outcome::GivenUp(_) => ended.check(false, "nothing was decided"),
    }
}

/// What goes wrong with one call, and where that is looked for.
#[derive(Clone, Copy, Debug)]
struct Trial {
    wrong: Wrong,
    with_standby: bool,
}

const WRONGS: [Wrong; 3] = [Wrong::Refused, Wrong::Panics, Wrong::Late];

/// Does something for each call, until it says that there is none of this number;
/// returns how many there were.
fn for_each_call(what: &str, trial: impl Fn(u64) -> bool + Sync) -> u64 {
    let calls = for_each_number(trial);
    println!("faults: {what}: injected {calls}, survived {calls}");
    calls
}

/// Recovers a guest of which one call goes wrong; whether there was a call of this number.
fn recover_with(trial: Trial, number: u64) -> bool {
    let directory = scratch();
    let (host, kept) = (guest(Faults::default()), Kept::default());
    let broken = Broken::new(&host, Fault::At(number, trial.wrong));
    let (inside, target) = (broken.clone(), target(&directory, None));
    let keeper = trial.with_standby.then(keeper);
    let job = start(&kept, move |job| {
        let toolstack = Box::new(inside.clone());
        recover::recover(&inside, toolstack, keeper.as_ref(), &target, job)
    });
    let ended = ended(&format!("call {number}, {trial:?}"), job, &kept);
    let hit = broken.hit().unwrap_or("none");
    check_host(&ended, &host, hit, false);
    check_dump(&ended, &directory);
    if hit == "none" || trial.wrong == Wrong::Late {
        ended.check(ended.outcome == Outcome::Adopted, "a story without a fault");
        ended.check(ended.error.is_none(), "a dump without a fault");
    }
    hit != "none"
}

#[test]
fn a_recovery_ends_as_it_should_whichever_call_goes_wrong() {
    for wrong in WRONGS {
        for with_standby in [false, true] {
            let trial = Trial {
                wrong,
                with_standby,
            };
            let what = format!("recovery, {wrong:?}, standby {with_standby}");
            let calls = for_each_call(&what, |number| recover_with(trial, number));
            assert!(calls > 50, "{calls} calls: most were not seen");
        }
    }
}

#[test]
fn a_running_domain_stays_as_it_is_whichever_call_goes_wrong() {
    for wrong in WRONGS {
        let calls = for_each_call(&format!("running domain, {wrong:?}"), |number| {
            let directory = scratch();
            let (host, kept) = (guest(Faults::default()), Kept::default());
            let broken = Broken::new(&host, Fault::At(number, wrong));
            let running = Running(broken.clone());
            let target = target(&directory, None);
            let job = start(&kept, move |job| live::dump(&running, &target, job));
            let ended = ended(&format!("call {number}, {wrong:?}"), job, &kept);
            ended.check(ended.outcome == Outcome::Untouched, "outcome");
            if broken.hit() != Some("unpause") {
                check_dump(&ended, &directory);
            }
            broken.hit().is_some()
        });
        assert!(calls > 10, "{calls} calls: most were not seen");
    }
}

/// How a call to a file goes wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Disk {
    Fails,
    /// And stays so. What is in its place already can be written again.
    IsFull,
    Panics,
    IsLate,
}

impl Disk {
    fn does(self) -> io::Result<()> {
        match self {
            Self::Fails => Err(io::Error::from_raw_os_error(libc::EIO)),
            Self::IsFull => Err(io::Error::from_raw_os_error(libc::ENOSPC)),
            Self::Panics => panic!("the disk is broken on purpose"),
            Self::IsLate => {
                std::thread::sleep(LATENESS);
                Ok(())
            }
        }
    }
}

/// Recovers a guest while one call to the dump's file goes wrong, and, when the disk is
/// full, all that follow; whether there was a call of this number.
fn recover_onto(disk: Disk, number: u64) -> bool {
    let directory = scratch();
    let (host, kept) = (guest(Faults::default()), Kept::default());
    let (calls, hit) = (AtomicU64::new(0), Arc::new(OnceLock::new()));
    let seen = Arc::clone(&hit);
    let sink = HookedSink::create(&directory, move |call| {
        let now = calls.fetch_add(1, SeqCst);
        let grows = matches!(call, "prepare" | "write_pages" | "set_length" | "publish");
        let is_due = match disk {
            Disk::IsFull => now >= number && grows,
            _ => now == number,
        };
        if !is_due {
            return Ok(());
        }
        let _ = seen.set(call);
        disk.does()
    });
    let target = target(&directory, Some(Box::new(sink)));
    let inside = host.clone();
    let job = start(&kept, move |job| {
        recover::recover(&inside, Box::new(inside.clone()), None, &target, job)
    });
    let ended = ended(&format!("call {number}, {disk:?}, {hit:?}"), job, &kept);
    check_host(&ended, &host, "none", false);
    ended.check(ended.outcome == Outcome::Adopted, "outcome");
    ended.check(host.released() == FRAMES, "memory is kept");
    check_dump(&ended, &directory);
    if disk == Disk::IsLate {
        ended.check(ended.error.is_none(), "a dump without a fault");
    }
    hit.get().is_some()
}

#[test]
fn recovery_comes_whichever_write_of_the_dump_goes_wrong() {
    for disk in [Disk::Fails, Disk::IsFull, Disk::Panics, Disk::IsLate] {
        let what = format!("dump's file, {disk:?}");
        let calls = for_each_call(&what, |number| recover_onto(disk, number));
        assert!(calls > 20, "{calls} calls: most were not seen");
    }
}
