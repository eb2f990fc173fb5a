// SPDX-License-Identifier: LGPL-2.1-or-later
//! The options of a job as values, with their defaults.

use std::path::PathBuf;

use crate::dump::{CodecSpec, Format, ZLIB};
use crate::pacing::policy::Policy;

/// What a crash of the recovery domain means while the dump of the domain before
/// it is still being written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Recrash {
    /// A restart at once, without a second dump.
    Restart,
    /// The crash waits for the first dump's end, then the domain is dumped and recovered
    /// itself.
    Queue,
}

/// How far a standby is on its way before it is stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standby {
    /// There is none.
    No,
    /// Built: its first instruction is still to come.
    Built,
    /// Booted until it waits for its disk.
    Booted,
}

/// The codec of a dump when nothing is said of it: every reader opens it.
pub(super) const DEFAULT_CODEC: &CodecSpec = ZLIB;

/// Every option, with its default where the text does not say.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    /// What the dump looks like, and how its pages are compressed.
    pub format: Format,
    /// Compressing threads; `None` is half the online processors, at least one.
    pub threads: Option<u16>,
    /// Bytes that may wait between memory and disk.
    pub buffer_bytes: u64,
    /// Which pages are left out: makedumpfile's bits.
    pub dump_level: u8,
    /// Bytes that the dump may have; `None`: as many as there is room for.
    pub max_dump_bytes: Option<u64>,
    /// Bytes to leave free on the dump's file system.
    pub reserve_bytes: u64,
    /// A block device or FIFO to write to, instead of a file of its own.
    pub sink: Option<PathBuf>,
    /// Disk I/O policy of the dump.
    pub io: Policy,
    /// What a second crash means while the first dump is being written.
    pub on_recrash: Recrash,
    /// A datagram socket that events are sent to.
    pub events: Option<PathBuf>,
    /// Whether a recovery domain is kept beside the running guest.
    pub standby: Standby,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            format: Format::Kdump(DEFAULT_CODEC.fastest()),
            threads: None,
            buffer_bytes: 64 << 20,
            dump_level: 31,
            max_dump_bytes: None,
            reserve_bytes: 64 << 20,
            sink: None,
            io: Policy::Adaptive,
            on_recrash: Recrash::Restart,
            events: None,
            standby: Standby::No,
        }
    }
}
