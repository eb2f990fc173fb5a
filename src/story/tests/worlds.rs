// SPDX-License-Identifier: LGPL-2.1-or-later
//! Worlds from seeds: guest, options, faults, a call that goes wrong, a cancel and another
//! crash of the recovered guest as chance has it. A seed is a world: what fails is seen
//! again with `WORLD=SEED make test-worlds`.
//!
//! `WORLDS` says how many there are, one after the other from `FIRST_WORLD` on.

use std::sync::Arc;
use std::time::Instant;

use tempfile::TempDir;

use super::broken::{Broken, Fault, Wrong};
use super::calls::{check_dump, check_host};
use super::chance::{number, Chance};
use super::{
    ended, files, for_each_below, guest, guest_of, keeper, scratch, Ended, Kept, DEADLINE, FRAMES,
};
use crate::drain::Target;
use crate::error::Error;
use crate::host::memory::{Faults, HostEvent};
use crate::host::Access;
use crate::incident::{self, DumpState};
use crate::job::{Job, JobState, Outcome, Phase, Snapshot};
use crate::journal::Notes;
use crate::options::{Options, Recrash};
use crate::story::begin;
use crate::told::event::{DumpEvent, Event};

/// Worlds where nobody says how many: some seconds of them.
const WORLDS: u64 = 60;

/// What a world is made of.
#[derive(Debug)]
struct World {
    /// Pages of the guest.
    frames: u64,
    options: String,
    faults: Faults,
    /// The call that goes wrong, and how.
    wrong: Option<(u64, Wrong)>,
    with_standby: bool,
    /// The caller cancels when so many events have been told.
    cancel_after: Option<usize>,
    /// The guest crashes again as soon as it runs; what is done about that.
    again: Option<Recrash>,
}

impl World {
    fn of(seed: u64) -> Self {
        let mut chance = Chance(seed);
        let format = chance.one_of(&["elf", "kdump,compress=none", "kdump", "kdump,compress=zstd"]);
        let io = chance.one_of(&[
            "adaptive",
            "unlimited",
            "recovery-first",
            "share:50",
            "fixed:1G",
        ]);
        let mut options = format!(
            "format={format},io={io},threads={},dump_level={}",
            1 + chance.below(3),
            chance.one_of(&[0, 1, 16, 31])
        );
        if chance.once_in(4) {
            options += &format!(",max_dump_size={}", chance.below(64 << 20));
        }
        let count = |chance: &mut Chance, times, most| match chance.once_in(times) {
            true => Some(1 + chance.below(most)),
            false => None,
        };
        let access = chance.one_of(&[Access::Read, Access::Scrub]);
        let faults = Faults {
            map: chance.once_in(30),
            detach: chance.once_in(10),
            interfaces: chance.once_in(10),
            creations: count(&mut chance, 5, 2).unwrap_or(0) as u32,
            adoptions: count(&mut chance, 5, 1).unwrap_or(0) as u32,
            destruction: chance.once_in(10),
            recovery_lost: chance.once_in(10),
            growth: chance.once_in(10),
            map_every: count(&mut chance, 10, 20),
            destroyed_after: count(&mut chance, 10, 60).map(|after| (access, after)),
            absent_every: count(&mut chance, 10, 1000),
            greedy_neighbour: chance.once_in(10),
            ..Faults::default()
        };
        Self {
            options,
            faults,
            frames: chance.one_of(&[8, 513, 3 * 512, FRAMES, FRAMES + 77]),
            wrong: count(&mut chance, 2, 120).map(|number| (number, wrong(&mut chance))),
            with_standby: chance.once_in(3),
            cancel_after: count(&mut chance, 4, 20).map(|events| events as usize),
            again: match chance.once_in(4) {
                true => Some(chance.one_of(&[Recrash::Restart, Recrash::Queue])),
                false => None,
            },
        }
    }

    /// Whether pages may stay with the crashed domain for another reason than that one
    /// call was refused.
    fn may_keep_pages(&self) -> bool {
        let Faults {
            map,
            map_every,
            destroyed_after,
            absent_every,
            ..
        } = self.faults;
        map || map_every.is_some() || destroyed_after.is_some() || absent_every.is_some()
    }

    /// Begins to recover a crash of the guest whose journals are in `journals`.
    fn begin(
        &self,
        journals: &TempDir,
        dumps: &TempDir,
        broken: &Broken,
        keeper: Option<Arc<JobState>>,
        on_recrash: Recrash,
        kept: &Kept,
    ) -> Result<Job, Error> {
        let options = Options {
            on_recrash,
            ..Options::parse(&self.options).unwrap()
        };
        let target = Target {
            options,
            name: "guest".into(),
            dump_dir: dumps.path().into(),
            sink: None.into(),
        };
        let notes = Notes {
            directory: journals.path().into(),
            options: self.options.clone(),
        };
        let broken = broken.clone();
        let open = move || Ok((broken.clone(), Box::new(broken) as Box<_>));
        // One that no other world has.
        let guest = journals.path().file_name().unwrap().to_str().unwrap();
        begin::recovery(guest, open, keeper, target, notes, None, kept.log("guest"))
    }

    /// What comes of a crash of the recovered guest, while `first` may still be at work.
    fn crash_again(&self, what: &str, policy: Recrash, journals: &TempDir, first: &Job) {
        let dumps = scratch();
        let (host, kept) = (guest(Faults::default()), Kept::default());
        let broken = Broken::new(&host, Fault::At(u64::MAX, Wrong::Refused));
        let was_over = first.shared.snapshot().phase == Phase::Done;
        let again = match self.begin(journals, &dumps, &broken, None, policy, &kept) {
            Ok(job) => job,
            Err(Error::Busy(_)) => {
                assert!(!was_over && policy == Recrash::Restart, "{what}: refused");
                return;
            }
            Err(error) => panic!("{what}: {error}"),
        };
        let ended = ended(what, again, &kept);
        let is_first_over = first.shared.snapshot().phase == Phase::Done;
        ended.check(is_first_over, "it did not wait for its turn");
        check_host(&ended, &host, "none", false);
        ended.check(ended.outcome == Outcome::Adopted, "the second crash");
    }

    fn run(&self, seed: u64) {
        let (journals, dumps) = (scratch(), scratch());
        let (host, kept) = (guest_of(self.frames, self.faults), Kept::default());
        let (number, wrong) = self.wrong.unwrap_or((u64::MAX, Wrong::Refused));
        let broken = Broken::new(&host, Fault::At(number, wrong));
        let keeper = self.with_standby.then(|| Arc::new(keeper()));
        let job = self
            .begin(&journals, &dumps, &broken, keeper, Recrash::Restart, &kept)
            .unwrap();
        if let Some(events) = self.cancel_after {
            let since = Instant::now();
            let is_over = || job.shared.snapshot().phase == Phase::Done;
            while kept.events().len() < events && !is_over() && since.elapsed() < DEADLINE {
                std::thread::yield_now();
            }
            job.shared.cancel();
        }
        let what = format!("WORLD={seed}: {self:?}");
        if let Some(policy) = self.again {
            let decided = |now: &Snapshot| now.outcome != Outcome::Undecided;
            job.shared.wait(Some(DEADLINE), decided);
            self.crash_again(&what, policy, &journals, &job);
        }
        let ended = ended(&what, job, &kept);
        let hit = broken.hit().unwrap_or("none");
        check_host(&ended, &host, hit, self.may_keep_pages());
        check_dump(&ended, &dumps);
        check_record(&ended, &dumps);
        let is_open = files(&journals)
            .iter()
            .any(|name| name.ends_with(".journal"));
        ended.check(!is_open, "a journal is left");
        let events = host.events();
        let settled = events.contains(&HostEvent::Settled);
        let alone = ended.outcome != Outcome::Adopted && settled;
        ended.check(!alone, "a recovery that is none has settled");
    }
}

/// The crash has one record, and that says what was told.
fn check_record(ended: &Ended, directory: &TempDir) {
    let heads = incident::list(directory.path()).unwrap();
    ended.check(heads.len() == 1, &format!("{heads:?}"));
    let read = || incident::read(directory.path(), &heads[0].id).unwrap();
    let since = Instant::now();
    // A job that was cancelled does not wait for it on a slow machine.
    while !read().is_over && since.elapsed() < DEADLINE {
        std::thread::yield_now();
    }
    let record = read();
    let what = format!("{record:?}");
    ended.check(record.is_over, &what);
    ended.check(record.outcome == ended.outcome, &what);
    ended.check(record.failure == ended.error, &what);
    let told = |event: &Event| matches!(event, Event::Dump(DumpEvent::Complete { .. }));
    let is_complete = record.dump.state == DumpState::Complete;
    ended.check(is_complete == ended.log.has(told), &what);
    let path = record.dump.path.as_ref();
    let is_there = path.is_none_or(|path| std::path::Path::new(path).exists());
    ended.check(is_there, &what);
}

/// How a call goes wrong in a world.
fn wrong(chance: &mut Chance) -> Wrong {
    chance.one_of(&[Wrong::Refused, Wrong::Panics, Wrong::Late])
}

#[test]
fn whatever_chance_brings_a_crash_ends_as_it_should() {
    if let Some(seed) = number("WORLD") {
        return World::of(seed).run(seed);
    }
    let first = number("FIRST_WORLD").unwrap_or(0);
    let worlds = number("WORLDS").unwrap_or(WORLDS);
    for_each_below(worlds, |number| {
        World::of(first + number).run(first + number);
        true
    });
    println!("faults: worlds {worlds}, from {first} on");
}
