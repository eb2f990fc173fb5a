// SPDX-License-Identifier: LGPL-2.1-or-later
//! What a journal can say.

use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::addr::{Gfn, GfnRange};
use crate::dump::Changes;
use crate::os::process::Process;

/// Ranges that are written down one by one.
const MOST_RANGES: usize = 4096;

/// One line.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "entry", rename_all = "snake_case")]
pub enum Entry {
    /// The first line: whose crash it is, and what is to be done about it.
    Begun(Begun),
    /// From here on the crash is this process's.
    Handled {
        /// The process.
        by: Handler,
    },
    /// There is a record of the crash, for people and programs.
    Recorded {
        /// The file.
        path: PathBuf,
    },
    /// A standby was taken for this crash.
    Standby {
        /// Its number in the hypervisor.
        domid: u32,
    },
    /// From here on the crashed domain may have lost devices, name and memory.
    Detaching,
    /// There is a recovery domain; it has not run.
    Built {
        /// Its number in the hypervisor.
        domid: u32,
        /// Released pages that building it took.
        spent_pages: u64,
        /// Pages that it had when it was built.
        backed_pages: u64,
    },
    /// The recovery domain runs.
    Runs {
        /// Its number in the hypervisor.
        domid: u32,
    },
    /// The guard is about to stop the recovery domain, or has let it run again.
    Stopped {
        /// Which of the two.
        is_stopped: bool,
    },
    /// It is known what to dump; from here on memory is given back.
    Understood {
        /// Pages that must not be touched.
        untouched: Untouched,
    },
    /// The dump is begun.
    DumpBegun {
        /// Where it is, if it has a path.
        path: Option<PathBuf>,
        /// In what it is not what the guest's memory is.
        #[serde(default, skip_serializing_if = "Changes::is_none")]
        changes: Changes,
    },
    /// Nothing more will be dumped.
    DumpEnded {
        /// Whether all was.
        is_complete: bool,
    },
}

/// A process that handles a crash.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Handler(pub(super) Process);

impl Handler {
    /// The process that we are in.
    ///
    /// # Errors
    /// When the system does not tell when it was started.
    pub fn this() -> io::Result<Self> {
        Process::this().map(Self)
    }
}

/// Whose crash it is, and what is to be done about it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Begun {
    /// [`Begun::VERSION`].
    pub version: u32,
    /// The guest's name.
    pub guest: String,
    /// What is the same over all crashes of the guest.
    pub uuid: String,
    /// The crashed domain's number in the hypervisor.
    pub domid: u32,
    /// The run of this machine's kernel.
    pub boot_id: String,
    /// The options as they were written.
    pub options: String,
    /// Where a dump of its own name goes.
    pub dump_dir: PathBuf,
    /// There is to be no dump of this crash.
    #[serde(default)]
    pub without_dump: bool,
    /// Pages that the crashed domain had.
    pub memory_pages: u64,
    /// What the host needs to know to act on the crash again.
    pub host: String,
}

impl Begun {
    /// Layout of the journal; others are refused.
    pub const VERSION: u32 = 1;
}

/// Pages of a crashed guest that must not even be written to.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Untouched {
    /// These frames, ascending, as first and one past the last.
    Frames(Vec<(u64, u64)>),
    /// More than are written down: all that are not in the dump.
    NotDumped,
}

impl Untouched {
    /// Of frames in ranges, when there are not too many of those.
    pub fn of(ranges: impl Iterator<Item = GfnRange>) -> Self {
        let frames: Vec<(u64, u64)> = ranges
            .take(MOST_RANGES + 1)
            .map(|range| (range.start.0, range.end.0))
            .collect();
        match frames.len() > MOST_RANGES {
            true => Self::NotDumped,
            false => Self::Frames(frames),
        }
    }

    /// Whether a frame is one of them, of which it is known whether it is to be dumped.
    pub fn has(&self, gfn: Gfn, is_dumped: bool) -> bool {
        match self {
            Self::Frames(frames) => {
                let after = frames.partition_point(|(_, end)| *end <= gfn.0);
                frames.get(after).is_some_and(|(start, _)| *start <= gfn.0)
            }
            Self::NotDumped => !is_dumped,
        }
    }
}
