// SPDX-License-Identifier: LGPL-2.1-or-later
//! The dump, from its first byte to its last.

use std::fmt;
use std::path::PathBuf;

use log::Level;
use serde::Serialize;

use super::{as_maybe_path, as_path, as_text, Cause};
use crate::addr::Gfn;
use crate::error::ErrorKind;
use crate::host::HostError;
use crate::options::AtMost;
use crate::units::Size;

/// What could not be done with pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Reading them for the dump.
    Read,
    /// Giving them back to the hypervisor.
    Release,
}

/// The option for which a dump is removed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RemovedFor {
    /// `keep`: so many of the guest's are kept.
    Keep(u16),
    /// `keep_free`: so much is to be free.
    KeepFree(Size),
}

impl fmt::Display for RemovedFor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Keep(dumps) => write!(f, "keep={dumps}"),
            Self::KeepFree(size) => write!(f, "keep_free ({size})"),
        }
    }
}

/// The dump, from its first byte to its last.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum DumpEvent {
    /// The directory for dumps was not there and has been made.
    DirectoryMade {
        /// Where.
        #[serde(serialize_with = "as_path")]
        path: PathBuf,
    },
    /// The dump begins.
    Started {
        /// Where it goes; none for a descriptor that the caller handed in.
        #[serde(serialize_with = "as_maybe_path")]
        path: Option<PathBuf>,
    },
    /// The dump goes on that an earlier process has begun.
    GoneOn {
        /// Where it is.
        #[serde(serialize_with = "as_maybe_path")]
        path: Option<PathBuf>,
        /// Pages that are in it already.
        stored_pages: u64,
        /// Pages that are to be in it.
        wanted_pages: u64,
    },
    /// The dump that an earlier process has begun stays as it is: what it lacks goes into
    /// another one.
    NotGoneOn {
        /// Where it is.
        #[serde(serialize_with = "as_maybe_path")]
        path: Option<PathBuf>,
        /// Why.
        why: String,
    },
    /// However well its pages compress, the dump fits.
    Fits {
        /// How large it becomes at most.
        #[serde(rename = "most_bytes")]
        most: Size,
        /// What there is room for.
        #[serde(rename = "room_bytes")]
        room: Size,
    },
    /// The least useful pages are left out, for lack of room.
    LeftOut {
        /// Pages that are dumped.
        kept_pages: u64,
        /// Pages that were to be dumped.
        wanted_pages: u64,
        /// What there is room for.
        #[serde(rename = "room_bytes")]
        room: Size,
    },
    /// How large the dump will be, by a sample of its pages.
    Expected {
        /// Its size.
        #[serde(rename = "expected_bytes")]
        expected: Size,
        /// What there is room for.
        #[serde(rename = "room_bytes")]
        room: Size,
    },
    /// Another tenth is written.
    Progress {
        /// How much of it.
        percent: u64,
        /// Pages written.
        dumped_pages: u64,
        /// Pages to be written.
        planned_pages: u64,
        /// Size of the dump so far.
        #[serde(rename = "written_bytes")]
        written: Size,
        /// Given back to the hypervisor so far.
        #[serde(rename = "released_bytes")]
        released: Size,
    },
    /// Nothing more is written.
    Stopped {
        /// Why.
        why: String,
    },
    /// The dump is incomplete, and even what was written may get lost.
    NotSynced {
        /// Why.
        why: String,
    },
    /// The dump is complete and has its name, and may get lost with the power.
    NotLasting {
        /// Why.
        why: String,
    },
    /// Pages could not be had.
    Missed {
        /// What could not be done with them.
        step: Step,
        /// The first of them.
        #[serde(serialize_with = "as_text")]
        start: Gfn,
        /// One past the last.
        #[serde(serialize_with = "as_text")]
        end: Gfn,
        /// Why not.
        error: HostError,
    },
    /// Other pages could not be had either.
    MoreMissed {
        /// How many ranges, beside those told one by one.
        ranges: u64,
    },
    /// Pages that were expected to fit did not.
    NoRoomForLast {
        /// How many.
        pages: u64,
    },
    /// The dump is complete.
    Complete {
        /// Pages in it.
        pages: u64,
        /// Of these, pages of zeroes.
        zero_pages: u64,
        /// Of these, pages that could not be read.
        unreadable_pages: u64,
        /// Its length.
        #[serde(rename = "length_bytes")]
        length: Size,
        /// Where it is; none for a stream.
        #[serde(serialize_with = "as_maybe_path")]
        path: Option<PathBuf>,
    },
    /// The dump was begun and is not complete.
    Incomplete {
        /// Why.
        why: Cause,
        /// The cause is in the log already.
        is_told: bool,
    },
    /// There is no dump.
    NotMade {
        /// Why.
        why: Cause,
    },
    /// There is to be no dump of this crash: others were made of late.
    NotWanted {
        /// How many.
        dumps: usize,
        /// So many are made.
        #[serde(serialize_with = "as_text")]
        limit: AtMost,
        /// Where the last one is, if it has a path.
        #[serde(serialize_with = "as_maybe_path")]
        last: Option<PathBuf>,
    },
    /// A dump of an earlier crash is removed.
    Removed {
        /// Where it was.
        #[serde(serialize_with = "as_path")]
        path: PathBuf,
        /// What it took on the disk.
        #[serde(rename = "length_bytes")]
        length: Size,
        /// For which option.
        #[serde(rename = "for", serialize_with = "as_text")]
        why: RemovedFor,
    },
    /// No dump, or not all that were to go, could be removed.
    NotRemoved {
        /// What could not be removed, changed or looked at.
        #[serde(serialize_with = "as_path")]
        path: PathBuf,
        /// Why.
        error: String,
    },
}

impl DumpEvent {
    pub(super) fn level(&self) -> Level {
        match self {
            Self::Incomplete { why, is_told } => match *is_told || why.kind == ErrorKind::Cancelled
            {
                true => Level::Warn,
                false => Level::Error,
            },
            Self::Stopped { .. } | Self::NotMade { .. } => Level::Error,
            Self::LeftOut { .. }
            | Self::NotGoneOn { .. }
            | Self::NotWanted { .. }
            | Self::NotRemoved { .. }
            | Self::NotSynced { .. }
            | Self::NotLasting { .. }
            | Self::Missed { .. }
            | Self::MoreMissed { .. }
            | Self::NoRoomForLast { .. } => Level::Warn,
            _ => Level::Info,
        }
    }

    /// The lines that tell of what went wrong.
    fn trouble(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stopped { why } => write!(f, "dump stopped: {why}"),
            Self::NotSynced { why } => {
                write!(f, "the incomplete dump may not be on the disk: {why}")
            }
            Self::NotLasting { why } => write!(
                f,
                "the dump is complete, but may not outlast a power cut: {why}"
            ),
            Self::Missed {
                step,
                start,
                end,
                error,
            } => {
                let done = match step {
                    Step::Read => "read",
                    Step::Release => "given back",
                };
                write!(f, "pages {start}..{end} were not {done}: {error}")
            }
            Self::MoreMissed { ranges } => write!(f, "the same of {ranges} more ranges"),
            Self::NoRoomForLast { pages } => {
                write!(f, "dump: no room for the last {pages} pages")
            }
            Self::LeftOut {
                kept_pages,
                wanted_pages,
                room,
            } => write!(
                f,
                "dump: no room for all in {room}, the most useful {kept_pages} of {wanted_pages} \
                 pages are kept"
            ),
            Self::NotGoneOn { path, why } => write!(
                f,
                "{} stays incomplete, another dump gets what it lacks: {why}",
                Named(path)
            ),
            Self::Incomplete { why, .. } => write!(f, "dump incomplete: {why}"),
            Self::NotMade { why } => write!(f, "no dump: {why}"),
            Self::NotWanted { dumps, limit, last } => {
                let place = last.as_ref().map(|path| path.display().to_string());
                write!(
                    f,
                    "no dump of this crash: {dumps} of the guest were made of late \
                     (max_dumps={limit}), the last one is {}",
                    place.as_deref().unwrap_or("a stream")
                )
            }
            Self::NotRemoved { path, error } => {
                write!(f, "dumps were not removed: {}: {error}", path.display())
            }
            _ => Ok(()),
        }
    }
}

impl fmt::Display for DumpEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DirectoryMade { path } => {
                write!(f, "made the dump directory {}", path.display())
            }
            Self::Started { path: Some(path) } => write!(f, "dumping to {}", path.display()),
            Self::Started { path: None } => f.write_str("dumping to the descriptor handed in"),
            Self::GoneOn {
                path,
                stored_pages,
                wanted_pages,
            } => write!(
                f,
                "dump: going on with {}, which has {stored_pages} of {wanted_pages} pages",
                Named(path)
            ),
            Self::Fits { most, room } => write!(f, "dump: at most {most}, {room} free"),
            Self::Expected { expected, room } => {
                write!(f, "dump: {expected} expected, {room} free")
            }
            Self::Progress {
                percent,
                dumped_pages,
                planned_pages,
                written,
                released,
            } => write!(
                f,
                "dump {percent} %: {dumped_pages} of {planned_pages} pages, {written} written, \
                 {released} released"
            ),
            Self::Complete {
                pages,
                zero_pages,
                unreadable_pages,
                length,
                path,
            } => {
                let place = path.as_ref().map(|path| path.display().to_string());
                write!(
                    f,
                    "dump complete: {pages} pages ({zero_pages} zero, {unreadable_pages} \
                     unreadable), {length}, {}",
                    place.as_deref().unwrap_or("a stream")
                )
            }
            Self::Removed { path, length, why } => {
                write!(f, "removed {} ({length}) for {why}", path.display())
            }
            _ => self.trouble(f),
        }
    }
}

/// A dump by its path, if it has one.
struct Named<'a>(&'a Option<PathBuf>);

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(path) => path.display().fmt(f),
            None => f.write_str("the dump"),
        }
    }
}
