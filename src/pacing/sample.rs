// SPDX-License-Identifier: LGPL-2.1-or-later
//! What a controller sees and what it answers. All of it plain numbers.

use std::time::Duration;

/// What the recovery domain has asked of its disks so far. Every member but
/// `in_flight` only grows.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct DiskTotals {
    /// Requests that it sent.
    pub sent: u64,
    /// Requests that were answered. Fewer where some are merged, none where
    /// nobody measures how long they take.
    pub requests: u64,
    /// The time these took, added up.
    pub wait: Duration,
    /// Time with at least one request on its way; of several disks, added up.
    pub busy: Duration,
    /// Requests on their way now.
    pub in_flight: u64,
}

impl DiskTotals {
    /// Those of some disks and of others.
    pub fn plus(self, other: Self) -> Self {
        Self {
            sent: self.sent.saturating_add(other.sent),
            requests: self.requests.saturating_add(other.requests),
            wait: self.wait.saturating_add(other.wait),
            busy: self.busy.saturating_add(other.busy),
            in_flight: self.in_flight.saturating_add(other.in_flight),
        }
    }
}

/// What the dump has written so far. Only grows.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct WriterTotals {
    /// Bytes.
    pub bytes: u64,
    /// Time spent in writing them, without the time in which there was nothing
    /// to write or it was not allowed.
    pub busy: Duration,
}

/// How the recovery domain's memory stands, in bytes.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct MemoryState {
    /// What it has touched: backed for good.
    pub touched: u64,
    /// What is there for it to touch before the memory guard stops it.
    pub left: u64,
    /// What it can touch and nothing is there for. Zero when it is wholly backed.
    pub missing: u64,
}

/// One look at everything.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sample {
    /// When, on a clock that never goes back.
    pub at: Duration,
    /// Recovery's disks; `None` when nothing is known of them.
    pub disk: Option<DiskTotals>,
    /// The dump's writer.
    pub dump: WriterTotals,
    /// Recovery's memory; `None` when nothing is known of it.
    pub memory: Option<MemoryState>,
    /// The guard has stopped recovery for lack of memory.
    pub stopped: bool,
}

/// What the dump's writer is to do until the next limits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WriteLimits {
    /// Bytes a second; `None`: as fast as the disk takes it.
    pub limit: Option<u64>,
    /// Bytes that go to the disk at once, its queue of writes: no more, and where
    /// there are so many no less. `None`: what [`Bucket::burst`] grants.
    ///
    /// [`Bucket::burst`]: super::bucket::Bucket::burst
    pub piece: Option<u64>,
    /// Whether others on the same disk go first, where its scheduler can tell.
    pub yields: bool,
}

impl WriteLimits {
    /// Nothing holds the writer back.
    pub const NONE: Self = Self {
        limit: None,
        piece: None,
        yields: false,
    };
}
