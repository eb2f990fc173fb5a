// SPDX-License-Identifier: LGPL-2.1-or-later
//! A model of dump and recovery on one disk, in discrete events. The bucket, the
//! memory guard, the head start and the controllers are the library's own.
//!
//! Time begins when the recovery domain runs for the first time; everything
//! before that is the same under every policy. A disk serves one request after
//! the other. A guest boots and then does the first work of its service, both as
//! clients that compute, touch memory and read; the service answers when it has
//! booted, and is fully back when that work is done. The dump gives back what it
//! leaves out, then writes; recovery may touch what was given back.
#![allow(dead_code, unreachable_pub, missing_docs)]

mod disk;
mod dump;
mod guest;
pub mod scenario;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use vicover::pacing::controller::{Controller, INTERVAL};
use vicover::pacing::guard::{look_again, Act, Guard, LOW_PAGES};
use vicover::pacing::headstart::HeadStart;
use vicover::pacing::policy::Policy;
use vicover::pacing::sample::{MemoryState, Sample, WriteLimits};

use disk::Disk;
use dump::{Dump, Step};
use guest::{Guest, Next};
pub use scenario::Scenario;

/// Nanoseconds since recovery runs.
pub type Time = u64;

const SECOND: f64 = 1e9;
const PAGE: u64 = 4096;
/// The guard's shortest interval here: it looks after every other event, too.
const GUARD_LEAST: Duration = Duration::from_millis(10);

/// Who waits for a request.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Owner {
    Dump,
    Client(u32),
}

/// What happens next to whom. The order is that of events of one time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Event {
    /// The disk's head is free for the next request.
    DiskFree,
    /// A request's answer arrives.
    Answered(Owner),
    /// A client of recovery has done its computing.
    Computed(u32),
    /// The writer looks for data or for leave to write; only the newest of
    /// these counts.
    Writer(u64),
    /// The memory guard looks.
    Guard,
    /// The controller looks.
    Look,
}

/// What a run showed.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Seconds until the service answers.
    pub downtime_s: f64,
    /// Seconds until it has done its first work.
    pub full_service_s: f64,
    /// Seconds until the dump is complete, when the run went on so long.
    pub dump_s: Option<f64>,
    /// Seconds that the guard had recovery stopped.
    pub stopped_s: f64,
    /// Each look of the controller and its time in seconds, when they were kept.
    pub looks: Vec<(f64, Sample, WriteLimits)>,
}

/// When a run ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Until {
    FullService,
    DumpComplete,
}

/// Changes what the controller gets to see.
pub type Lens<'a> = Box<dyn FnMut(Sample) -> Sample + 'a>;

/// Runs a scenario under a policy.
pub fn run(scenario: &Scenario, policy: Policy) -> Outcome {
    World::new(scenario, policy, None).run(Until::FullService, false)
}

/// The same to another end, keeping the controller's looks; it sees every sample
/// through `lens`.
pub fn observe(scenario: &Scenario, policy: Policy, until: Until, lens: Lens<'_>) -> Outcome {
    World::new(scenario, policy, Some(lens)).run(until, true)
}

struct World<'a> {
    now: Time,
    events: BinaryHeap<Reverse<(Time, Event)>>,
    disk: Disk,
    dump: Dump,
    guest: Guest,
    guard: Guard,
    head_start: Option<HeadStart>,
    controller: Controller,
    lens: Option<Lens<'a>>,
    stopped_at: Time,
    stopped: Time,
    /// Memory behind recovery at first, in bytes; what the dump frees is added.
    backed: u64,
    full: u64,
}

impl<'a> World<'a> {
    fn new(scenario: &Scenario, policy: Policy, lens: Option<Lens<'a>>) -> Self {
        Self {
            now: 0,
            events: BinaryHeap::new(),
            disk: Disk::new(scenario),
            dump: Dump::new(scenario),
            guest: Guest::new(scenario),
            guard: Guard::default(),
            head_start: scenario.head_start.then(|| HeadStart::new(Duration::ZERO)),
            controller: Controller::new(policy),
            lens,
            stopped_at: 0,
            stopped: 0,
            backed: scenario.backed_bytes,
            full: scenario.memory_bytes,
        }
    }

    fn at(&mut self, time: Time, event: Event) {
        self.events.push(Reverse((time.max(self.now), event)));
    }

    /// What recovery may touch before it has no memory left, and what is missing.
    fn memory(&mut self) -> (u64, u64) {
        let backed = (self.backed + self.dump.freed(self.now)).min(self.full);
        let cache = backed.saturating_sub(self.guest.touched());
        (cache, self.full - backed)
    }

    fn run(mut self, until: Until, keep: bool) -> Outcome {
        let mut outcome = Outcome::default();
        self.guard();
        self.look(&mut outcome, keep);
        self.step_writer();
        for client in 0..self.guest.clients() {
            self.step_client(client);
        }
        while let Some(Reverse((time, event))) = self.events.pop() {
            self.now = time;
            match event {
                Event::DiskFree => self.start_request(),
                Event::Answered(Owner::Dump) => {
                    self.dump.answered(time);
                    if self.dump.is_complete() && outcome.dump_s.is_none() {
                        outcome.dump_s = Some(time as f64 / SECOND);
                    }
                    self.step_writer();
                }
                Event::Answered(Owner::Client(client)) => {
                    self.disk.answered_recovery(time);
                    self.finish(client);
                }
                Event::Computed(client) => self.after_computing(client),
                Event::Writer(number) => {
                    if self.dump.is_newest(number) {
                        self.step_writer();
                    }
                }
                Event::Guard => self.guard(),
                Event::Look => self.look(&mut outcome, keep),
            }
            self.look_at_memory();
            let done = match until {
                Until::FullService => self.guest.full_service().is_some(),
                Until::DumpComplete => self.dump.is_complete(),
            };
            if done {
                break;
            }
        }
        let seconds = |time: Option<Time>| time.map_or(f64::NAN, |time| time as f64 / SECOND);
        outcome.downtime_s = seconds(self.guest.service());
        outcome.full_service_s = seconds(self.guest.full_service());
        outcome.stopped_s = self.stopped as f64 / SECOND;
        outcome
    }

    /// The guard and the head start look by themselves while memory is missing.
    fn guard(&mut self) {
        let (cache, missing) = self.memory();
        let (cache, missing) = (cache / PAGE, missing / PAGE);
        let used = Duration::from_nanos(self.guest.processor_time(self.now));
        let now = Duration::from_nanos(self.now);
        let held = self
            .head_start
            .as_mut()
            .is_some_and(|start| start.look(now, used, cache, missing));
        if self.dump.hold(held, self.now) {
            self.step_writer();
        }
        if self
            .head_start
            .as_ref()
            .is_some_and(|start| start.is_over(now))
        {
            self.head_start = None;
        }
        if missing > 0 {
            let again = look_again(cache, missing).max(GUARD_LEAST);
            self.at(self.now + again.as_nanos() as Time, Event::Guard);
        }
    }

    fn look_at_memory(&mut self) {
        let (cache, missing) = self.memory();
        match self.guard.look(cache / PAGE, missing / PAGE) {
            Act::Leave => {}
            Act::Pause => {
                self.stopped_at = self.now;
                self.dump.set_urgent(true);
                self.step_writer();
            }
            Act::Unpause => {
                self.stopped += self.now - self.stopped_at;
                self.dump.set_urgent(false);
                for client in self.guest.take_stopped() {
                    self.at(self.now, Event::Computed(client));
                }
            }
        }
    }

    fn step_client(&mut self, client: u32) {
        match self.guest.next(client, self.now) {
            Next::Compute(nanos) => self.at(self.now + nanos, Event::Computed(client)),
            Next::Nothing => {}
        }
    }

    /// A client that a stop has caught goes on where it was when recovery runs.
    fn after_computing(&mut self, client: u32) {
        if self.guard.is_paused() {
            self.guest.stop(client);
            return;
        }
        self.guest.computed(self.now);
        match self.guest.touch() {
            0 => self.finish(client),
            bytes => self.request(Owner::Client(client), bytes),
        }
    }

    fn finish(&mut self, client: u32) {
        match self.guest.finish(self.now) {
            true => (0..self.guest.clients()).for_each(|each| self.step_client(each)),
            false => self.step_client(client),
        }
    }

    fn request(&mut self, owner: Owner, bytes: u64) {
        if self.disk.queue(owner, bytes, self.now) {
            self.start_request();
        }
    }

    fn start_request(&mut self) {
        if let Some((owner, free_at, answered_at)) = self.disk.start(self.now) {
            self.at(free_at, Event::DiskFree);
            self.at(answered_at, Event::Answered(owner));
        }
    }

    fn step_writer(&mut self) {
        match self.dump.step(self.now) {
            Step::Write(bytes) => self.request(Owner::Dump, bytes),
            Step::Wait(until, number) => self.at(until, Event::Writer(number)),
            Step::Nothing => {}
        }
    }

    fn look(&mut self, outcome: &mut Outcome, keep: bool) {
        let (cache, missing) = self.memory();
        let seen = Sample {
            at: Duration::from_nanos(self.now),
            disk: Some(self.disk.totals(self.now)),
            dump: self.dump.totals(self.now),
            memory: Some(MemoryState {
                touched: self.guest.touched(),
                left: cache.saturating_sub(LOW_PAGES * PAGE),
                missing,
            }),
            stopped: self.guard.is_paused(),
        };
        let sample = self.lens.as_mut().map_or(seen, |lens| lens(seen));
        let limits = self.controller.limits(&sample);
        if keep {
            outcome
                .looks
                .push((self.now as f64 / SECOND, sample, limits));
        }
        self.dump.set_limits(limits, self.now);
        self.step_writer();
        // Constant limits need no looking after.
        if !self.controller.is_constant() {
            self.at(self.now + INTERVAL.as_nanos() as Time, Event::Look);
        }
    }
}
