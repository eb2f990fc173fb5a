// SPDX-License-Identifier: LGPL-2.1-or-later
//! The disk: one request after the other, in the order in which they came.

use std::collections::VecDeque;
use std::time::Duration;

use vicover::pacing::sample::DiskTotals;

use super::scenario::Scenario;
use super::{Owner, Time, SECOND};

/// A tick of Debian's kernels, by which they count the time that a disk is busy.
const JIFFY: Time = 4_000_000;
const MS: Time = 1_000_000;

struct Request {
    owner: Owner,
    bytes: u64,
    queued_at: Time,
}

/// Has a rate, a latency that requests share, and on rotating disks a seek from
/// one stream to another.
pub struct Disk {
    nanos_per_byte: f64,
    latency: Time,
    seek: Time,
    queue: VecDeque<Request>,
    working: bool,
    last: Option<Owner>,
    counted: Counted,
    /// When the requests were queued that the disk has begun with.
    in_service: VecDeque<Time>,
}

/// Recovery's requests as Linux 6.1 counts them (`block/blk-core.c`
/// update_io_ticks(), `block/genhd.c` part_stat_show()): the time they take to
/// the millisecond, the time with any on their way by ticks.
#[derive(Default)]
struct Counted {
    sent: u64,
    answered: u64,
    wait: Time,
    in_flight: u64,
    busy_ticks: u64,
    /// The tick in which that was counted last.
    stamp: u64,
}

impl Counted {
    fn tick(&mut self, now: Time, ends: bool) {
        let tick = now / JIFFY;
        if tick > self.stamp {
            self.busy_ticks += if ends { tick - self.stamp } else { 1 };
            self.stamp = tick;
        }
    }

    fn totals(&mut self, now: Time) -> DiskTotals {
        if self.in_flight > 0 {
            self.tick(now, true);
        }
        DiskTotals {
            sent: self.sent,
            requests: self.answered,
            wait: Duration::from_nanos(self.wait / MS * MS),
            busy: Duration::from_nanos(self.busy_ticks * JIFFY),
            in_flight: self.in_flight,
        }
    }
}

impl Disk {
    pub fn new(scenario: &Scenario) -> Self {
        Self {
            nanos_per_byte: SECOND / scenario.disk_bytes_per_s,
            latency: (scenario.disk_latency_s * SECOND) as Time,
            seek: (scenario.disk_seek_s * SECOND) as Time,
            queue: VecDeque::new(),
            working: false,
            last: None,
            counted: Counted::default(),
            in_service: VecDeque::new(),
        }
    }

    /// Takes a request; whether the disk was waiting for one.
    pub fn queue(&mut self, owner: Owner, bytes: u64, now: Time) -> bool {
        self.queue.push_back(Request {
            owner,
            bytes,
            queued_at: now,
        });
        if owner != Owner::Dump {
            self.counted.tick(now, false);
            self.counted.sent += 1;
            self.counted.in_flight += 1;
        }
        !std::mem::replace(&mut self.working, true)
    }

    /// Begins with the next request; says whose it is, when the disk can take
    /// another, and when the answer arrives.
    pub fn start(&mut self, now: Time) -> Option<(Owner, Time, Time)> {
        let Some(request) = self.queue.pop_front() else {
            self.working = false;
            return None;
        };
        let moves = self.last != Some(request.owner) || request.owner != Owner::Dump;
        self.last = Some(request.owner);
        let seek = if moves { self.seek } else { 0 };
        let free_at = now + seek + (request.bytes as f64 * self.nanos_per_byte) as Time;
        if request.owner != Owner::Dump {
            self.in_service.push_back(request.queued_at);
        }
        Some((request.owner, free_at, free_at + self.latency))
    }

    /// An answer has reached recovery. Those come in the order of the requests.
    pub fn answered_recovery(&mut self, now: Time) {
        if let Some(queued_at) = self.in_service.pop_front() {
            self.counted.tick(now, true);
            self.counted.answered += 1;
            self.counted.in_flight -= 1;
            self.counted.wait += now - queued_at;
        }
    }

    /// What the kernel's statistics of recovery's disks would say.
    pub fn totals(&mut self, now: Time) -> DiskTotals {
        self.counted.totals(now)
    }
}
