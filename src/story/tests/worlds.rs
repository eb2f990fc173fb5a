// SPDX-License-Identifier: LGPL-2.1-or-later
//! Worlds from seeds: options, faults, a refused call and a cancel as chance has it. A
//! seed is a world: what fails is seen again with `WORLD=SEED make test-worlds`.
//!
//! `WORLDS` says how many there are, one after the other from `FIRST_WORLD` on.

use std::time::Instant;

use super::broken::{Broken, Fault, Wrong};
use super::calls::{check_dump, check_host};
use super::{ended, guest, keeper, start, Kept, DEADLINE};
use crate::drain::Target;
use crate::host::memory::{Faults, HostEvent};
use crate::host::Access;
use crate::job::{Outcome, Phase};
use crate::options::Options;
use crate::story::recover;

/// Worlds where nobody says how many: some seconds of them.
const WORLDS: u64 = 60;

/// SplitMix64.
pub(super) struct Chance(pub(super) u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// A number below `end`.
    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// True once in so many times.
    pub(super) fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    pub(super) fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len() as u64) as usize]
    }
}

/// What a world is made of.
#[derive(Debug)]
struct World {
    options: String,
    faults: Faults,
    refuse: Option<u64>,
    with_standby: bool,
    /// The caller cancels when so many events have been told.
    cancel_after: Option<usize>,
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
            refuse: count(&mut chance, 2, 120),
            with_standby: chance.once_in(3),
            cancel_after: count(&mut chance, 4, 20).map(|events| events as usize),
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

    fn run(&self, seed: u64) {
        let directory = tempfile::tempdir().unwrap();
        let (host, kept) = (guest(self.faults), Kept::default());
        let number = self.refuse.unwrap_or(u64::MAX);
        let fault = Fault::At(number, Wrong::Refused);
        let broken = Broken::new(&host, fault);
        let target = Target {
            options: Options::parse(&self.options).unwrap(),
            name: "guest".into(),
            dump_dir: directory.path().into(),
            sink: None.into(),
        };
        let inside = broken.clone();
        let keeper = self.with_standby.then(keeper);
        let job = start(&kept, move |job| {
            let toolstack = Box::new(inside.clone());
            recover::recover(&inside, toolstack, keeper.as_ref(), &target, job)
        });
        if let Some(events) = self.cancel_after {
            let since = Instant::now();
            let is_over = || job.shared.snapshot().phase == Phase::Done;
            while kept.events().len() < events && !is_over() && since.elapsed() < DEADLINE {
                std::thread::yield_now();
            }
            job.shared.cancel();
        }
        let ended = ended(&format!("WORLD={seed}: {self:?}"), job, &kept);
        let refused = broken.hit().unwrap_or("none");
        check_host(&ended, &host, refused, self.may_keep_pages());
        check_dump(&ended, &directory);
        let events = host.events();
        let settled = events.contains(&HostEvent::Settled);
        let alone = ended.outcome != Outcome::Adopted && settled;
        ended.check(!alone, "a recovery that is none has settled");
    }
}

pub(super) fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{variable}={text} is no number")),
    )
}

#[test]
fn whatever_chance_brings_a_crash_ends_as_it_should() {
    if let Some(seed) = number("WORLD") {
        return World::of(seed).run(seed);
    }
    let first = number("FIRST_WORLD").unwrap_or(0);
    let worlds = number("WORLDS").unwrap_or(WORLDS);
    for seed in first..first + worlds {
        World::of(seed).run(seed);
    }
    println!("faults: worlds {worlds}, from {first} on");
}
