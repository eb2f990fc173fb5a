// SPDX-License-Identifier: LGPL-2.1-or-later
//! The options of a job as values, with their defaults.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::dump::{CodecSpec, Format, ZLIB};
use crate::pacing::policy::Policy;
use crate::units::{number, time};

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

/// What becomes of a guest that keeps crashing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnCrashLoop {
    /// It is destroyed and started anew, each time.
    Restart,
    /// It is destroyed.
    Destroy,
    /// It is left as it crashed.
    Preserve,
}

/// What is done with the domain, for people, with the option that says so.
impl fmt::Display for OnCrashLoop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Restart => "it is started anew (on_crash_loop=restart)",
            Self::Destroy => "it is destroyed (on_crash_loop=destroy)",
            Self::Preserve => "it is left as it crashed (on_crash_loop=preserve)",
        })
    }
}

/// What can be counted of a guest: more crashes of it are not remembered.
const MOST_COUNTED: u64 = 99;

/// So many in a time, and no more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AtMost {
    /// How many.
    pub count: usize,
    /// In which time.
    pub within: Duration,
}

impl AtMost {
    /// Reads a limit as an operator writes it: `5/10m`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (count, within) = text.split_once('/')?;
        Some(Self {
            count: number(count, 1, MOST_COUNTED)? as usize,
            within: time(within)?,
        })
    }
}

/// As an operator writes it.
impl fmt::Display for AtMost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.within.as_secs();
        let units = [("d", 24 * 3600), ("h", 3600), ("m", 60)];
        let whole = units.iter().find(|(_, unit_s)| seconds % unit_s == 0);
        let (unit, unit_s) = whole.copied().unwrap_or(("s", 1));
        write!(f, "{}/{}{unit}", self.count, seconds / unit_s)
    }
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
    /// Dumps of the guest that are kept; `None`: all.
    pub keep: Option<u16>,
    /// Bytes that are to be free on the dumps' file system after a crash.
    pub keep_free_bytes: u64,
    /// A block device or FIFO to write to, instead of a file of its own.
    pub sink: Option<PathBuf>,
    /// Disk I/O policy of the dump.
    pub io: Policy,
    /// What a second crash means while the first dump is being written.
    pub on_recrash: Recrash,
    /// Dumps of the guest in a time; `None`: of every crash.
    pub max_dumps: Option<AtMost>,
    /// Crashes of the guest in a time that are recovered; `None`: all.
    pub max_crashes: Option<AtMost>,
    /// What becomes of a guest that crashes more often.
    pub on_crash_loop: OnCrashLoop,
    /// A datagram socket that events are sent to.
    pub events: Option<PathBuf>,
    /// Whether a crash is recorded beside its dump.
    pub record: bool,
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
            keep: None,
            keep_free_bytes: 0,
            sink: None,
            io: Policy::Adaptive,
            on_recrash: Recrash::Restart,
            max_dumps: Some(AtMost {
                count: 3,
                within: Duration::from_secs(3600),
            }),
            max_crashes: Some(AtMost {
                count: 5,
                within: Duration::from_secs(600),
            }),
            on_crash_loop: OnCrashLoop::Preserve,
            events: None,
            record: true,
            standby: Standby::No,
        }
    }
}
