// SPDX-License-Identifier: LGPL-2.1-or-later
//! The dump: memory is released or compressed at some rate, and its writer goes as
//! the pace allows.

use std::time::Duration;

use vicover::pacing::bucket::Bucket;
use vicover::pacing::sample::{WriteLimits, WriterTotals};

use super::scenario::Scenario;
use super::{Time, SECOND};

/// The engine writes blocks of this size.
const BLOCK: u64 = 1 << 20;
/// So much may wait between memory and disk.
const BUFFER: f64 = (64 << 20) as f64;

/// What the writer does now.
pub enum Step {
    Write(u64),
    /// Looks again then; the number says whether that is still the newest plan.
    Wait(Time, u64),
    Nothing,
}

pub struct Dump {
    length: u64,
    written: u64,
    /// Guest memory behind a byte of the dump.
    memory_per_byte: f64,
    /// Bytes that are given back before the dump begins, and those that were.
    unwanted: f64,
    released: f64,
    released_per_ns: f64,
    produced_per_ns: f64,
    /// Compressed and not written, at the time `filled_at`.
    ready: f64,
    filled_at: Time,
    /// Rests: recovery has its head start.
    held: bool,
    /// What is left of the block that is being written.
    block: u64,
    writing: Option<(u64, Time)>,
    busy: Time,
    bucket: Option<Bucket>,
    piece: Option<u64>,
    urgent: bool,
    plans: u64,
}

impl Dump {
    pub fn new(scenario: &Scenario) -> Self {
        Self {
            length: scenario.dump_bytes(),
            written: 0,
            memory_per_byte: 1.0 / scenario.compressed_to,
            unwanted: scenario.unwanted_bytes() as f64,
            released: 0.0,
            released_per_ns: scenario.release_bytes_per_s / SECOND,
            produced_per_ns: scenario.dump_bytes_per_s / SECOND,
            ready: 0.0,
            filled_at: 0,
            held: false,
            block: 0,
            writing: None,
            busy: 0,
            bucket: None,
            piece: None,
            urgent: false,
            plans: 0,
        }
    }

    /// Bytes of guest memory that were given back since recovery runs.
    pub fn freed(&mut self, now: Time) -> u64 {
        self.fill(now);
        (self.released + self.written as f64 * self.memory_per_byte) as u64
    }

    pub fn is_complete(&self) -> bool {
        self.written >= self.length
    }

    pub fn is_newest(&self, plan: u64) -> bool {
        self.plans == plan
    }

    pub fn totals(&self, now: Time) -> WriterTotals {
        let writing = self.writing.map_or(0, |(_, since)| now - since);
        WriterTotals {
            bytes: self.written,
            busy: Duration::from_nanos(self.busy + writing),
        }
    }

    /// As the library's pace does.
    pub fn set_limits(&mut self, limits: WriteLimits, now: Time) {
        let now = Duration::from_nanos(now);
        self.piece = limits.piece;
        let old = self.bucket.take();
        self.bucket = limits.limit.map(|rate| {
            let mut bucket = old.unwrap_or(Bucket::new(rate, now));
            bucket.change(rate, limits.piece.unwrap_or(0), now);
            bucket
        });
    }

    /// Whether recovery waits for memory.
    pub fn set_urgent(&mut self, urgent: bool) {
        self.urgent = urgent;
    }

    /// Whether reading memory is to rest; whether that is news.
    pub fn hold(&mut self, held: bool, now: Time) -> bool {
        self.fill(now);
        std::mem::replace(&mut self.held, held) != held
    }

    pub fn answered(&mut self, now: Time) {
        if let Some((bytes, since)) = self.writing.take() {
            self.written += bytes;
            self.busy += now - since;
        }
    }

    /// What was released and compressed until `now`.
    fn fill(&mut self, now: Time) {
        let mut passed = (now - std::mem::replace(&mut self.filled_at, now)) as f64;
        if self.held {
            return;
        }
        let released = (passed * self.released_per_ns).min(self.unwanted);
        self.unwanted -= released;
        self.released += released;
        passed -= released / self.released_per_ns;
        let room = (self.length - self.written) as f64;
        self.ready = (self.ready + passed.max(0.0) * self.produced_per_ns)
            .min(BUFFER)
            .min(room);
    }

    /// As the library's writer does: whole blocks when there is data, in the
    /// parts that the pace grants.
    pub fn step(&mut self, now: Time) -> Step {
        if self.writing.is_some() || self.is_complete() {
            return Step::Nothing;
        }
        self.plans += 1;
        self.fill(now);
        if self.block == 0 {
            let wanted = BLOCK.min(self.length - self.written);
            let lacking = wanted as f64 - self.ready;
            if lacking > 0.5 {
                if self.held {
                    return Step::Nothing;
                }
                let wait = self.unwanted / self.released_per_ns + lacking / self.produced_per_ns;
                return Step::Wait(now + (wait.ceil() as Time).max(1), self.plans);
            }
            self.block = wanted;
        }
        let wanted = self.block.min(self.piece.unwrap_or(u64::MAX));
        let granted = match &mut self.bucket {
            Some(bucket) if !self.urgent => match bucket.take(Duration::from_nanos(now), wanted) {
                Ok(granted) => granted,
                Err(wait) => return Step::Wait(now + wait.as_nanos() as Time, self.plans),
            },
            _ => wanted,
        };
        self.block -= granted;
        self.ready = (self.ready - granted as f64).max(0.0);
        self.writing = Some((granted, now));
        Step::Write(granted)
    }
}
