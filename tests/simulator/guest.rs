// SPDX-License-Identifier: LGPL-2.1-or-later
//! The recovering guest: clients that compute, touch memory and read, first to
//! boot, then to serve.

use super::scenario::{Numbers, Scenario, Work};
use super::Time;

/// What a client does next.
pub enum Next {
    Compute(Time),
    Nothing,
}

pub struct Guest {
    boot: Work,
    serve: Work,
    memory: u64,
    /// Bytes that have a page behind them for good.
    touched: u64,
    numbers: Vec<Numbers>,
    begun: u64,
    done: u64,
    stopped: Vec<u32>,
    processors: Processors,
    /// When the service answered first.
    service: Option<Time>,
    /// When it had done all its work.
    full_service: Option<Time>,
}

/// How many compute, and the time that they have used.
#[derive(Default)]
struct Processors {
    busy: u32,
    used: Time,
    at: Time,
}

impl Processors {
    fn used(&mut self, now: Time) -> Time {
        self.used += u64::from(self.busy) * (now - std::mem::replace(&mut self.at, now));
        self.used
    }
}

impl Guest {
    pub fn new(scenario: &Scenario) -> Self {
        let clients = scenario.boot.clients.max(scenario.serve.clients);
        Self {
            boot: scenario.boot,
            serve: scenario.serve,
            memory: scenario.memory_bytes,
            touched: scenario.touched_bytes,
            numbers: (0..clients)
                .map(|client| Numbers(scenario.seed ^ u64::from(client) << 32))
                .collect(),
            begun: 0,
            done: 0,
            stopped: Vec::new(),
            processors: Processors::default(),
            service: None,
            full_service: None,
        }
    }

    pub fn clients(&self) -> u32 {
        self.numbers.len() as u32
    }

    pub fn touched(&self) -> u64 {
        self.touched
    }

    pub fn service(&self) -> Option<Time> {
        self.service
    }

    pub fn full_service(&self) -> Option<Time> {
        self.full_service
    }

    pub fn processor_time(&mut self, now: Time) -> Time {
        self.processors.used(now)
    }

    fn work(&self) -> &Work {
        match self.service {
            None => &self.boot,
            Some(_) => &self.serve,
        }
    }

    pub fn next(&mut self, client: u32, now: Time) -> Next {
        let work = *self.work();
        if client >= work.clients || self.begun == work.items && self.full_service.is_none() {
            return Next::Nothing;
        }
        self.begun += 1;
        self.processors.used(now);
        self.processors.busy += 1;
        let spread = 0.5 + self.numbers[client as usize].next();
        Next::Compute((work.compute_s * spread * 1e9) as Time + 1)
    }

    /// A client has computed.
    pub fn computed(&mut self, now: Time) {
        self.processors.used(now);
        self.processors.busy -= 1;
    }

    /// Touches the memory of an item; the bytes that are to be read for it.
    pub fn touch(&mut self) -> u64 {
        let (touch, read) = (self.work().touch_bytes, self.work().read_bytes);
        self.touched = (self.touched + touch + read).min(self.memory);
        read
    }

    /// An item is done; whether the next stage begins with that, in which every
    /// client has something to do.
    pub fn finish(&mut self, now: Time) -> bool {
        self.done += 1;
        if self.done != self.work().items || self.full_service.is_some() {
            return false;
        }
        if self.service.is_none() {
            self.service = Some(now);
            self.begun = 0;
            self.done = 0;
        } else {
            self.full_service = Some(now);
        }
        true
    }

    /// A client whose processor was stopped; it goes on later.
    pub fn stop(&mut self, client: u32) {
        self.stopped.push(client);
    }

    pub fn take_stopped(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.stopped)
    }
}
