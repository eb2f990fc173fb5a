// SPDX-License-Identifier: LGPL-2.1-or-later
//! What can go wrong with a dump.

use crate::addr::Pfn;
use crate::error::text::{chain, panic_text};
use crate::limits::bounded::TooMany;
use crate::units::Size;
use std::any::Any;
use std::io;
use std::path::{Path, PathBuf};

/// Why memory could not be had.
pub type Reason = Box<dyn std::error::Error + Send + Sync>;

/// Why a dump could not be started, written or finished.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The two bitmaps do not describe the same frames.
    #[error("bitmaps differ in length: {present:#x} frames present, {wanted:#x} wanted")]
    BitmapLengths {
        /// Frames that the bitmap of present pages covers.
        present: u64,
        /// Frames that the bitmap of wanted pages covers.
        wanted: u64,
    },
    /// A page to be dumped is not among the pages there are.
    #[error("frame {pfn} is to be dumped but is not RAM")]
    WantedButAbsent {
        /// The first such frame.
        pfn: Pfn,
    },
    /// A field of the dump's format cannot hold the value.
    #[error("{what} does not fit the format: {value:#x}")]
    TooLarge {
        /// What the value counts.
        what: &'static str,
        /// The value.
        value: u64,
    },
    /// A codec's library refused to begin.
    #[error("{codec} cannot be used")]
    Codec {
        /// The codec's name.
        codec: &'static str,
        /// What the library said.
        #[source]
        source: io::Error,
    },
    /// The buffers are too small to work with.
    #[error(
        "{} of buffers are too few: at least {} are needed for {threads} threads",
        Size(*given as u64),
        Size(*least as u64)
    )]
    Buffers {
        /// Bytes allowed.
        given: usize,
        /// Bytes needed.
        least: usize,
        /// Compression threads asked for.
        threads: usize,
    },
    /// There is no memory for something that the guest has too much of.
    #[error(transparent)]
    TooMany(#[from] TooMany),
    /// There is no memory for buffers.
    #[error("no memory for buffers")]
    Memory(#[source] io::Error),
    /// The operating system refused to write.
    #[error("{}cannot write {what}", prefix(path.as_deref()))]
    Write {
        /// Where the dump goes, if that has a name.
        path: Option<PathBuf>,
        /// Which part of the dump.
        what: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A dump that could not be begun, for a reason that does not say which.
    #[error("{}", path.display())]
    At {
        /// Where the dump was to go.
        path: PathBuf,
        /// Why it could not be begun.
        #[source]
        source: Box<Error>,
    },
    /// A file or directory could not be used.
    #[error("{}", path.display())]
    Path {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The format writes in place, the sink is a stream.
    #[error("a stream cannot hold {format}: write to a file or a block device, or use kdump")]
    NotSeekable {
        /// The format.
        format: &'static str,
    },
    /// Not even headers, tables and one page fit.
    #[error("no room: a dump takes at least {}, there is room for {}", Size(*least), Size(*room))]
    NoRoom {
        /// Bytes that a dump needs at least.
        least: u64,
        /// Bytes that it may have.
        room: u64,
    },
    /// A thread could not be started.
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
    /// A bug, contained: a thread of the engine panicked.
    #[error("internal error while {doing}: {message}")]
    Panicked {
        /// What the thread did.
        doing: &'static str,
        /// The panic's own words.
        message: String,
    },
    /// The dump was finished before every wanted page had been handed in.
    #[error("{missing} of {wanted} pages were never handed in")]
    Unsubmitted {
        /// Pages that were not.
        missing: u64,
        /// Pages that the dump's bitmap promises.
        wanted: u64,
    },
    /// Memory that the guest has, or had, could not be had.
    #[error("pages {first} to {end} could not be read")]
    Unread {
        /// The first such page.
        first: Pfn,
        /// One past the last such page.
        end: Pfn,
        /// Why.
        #[source]
        reason: Reason,
    },
    /// Not one page could be read.
    #[error("none of {wanted} pages could be read")]
    Nothing {
        /// Pages that the dump's bitmap promises.
        wanted: u64,
    },
    /// The engine takes no more chunks.
    #[error("the dump is closed")]
    Closed,
    /// Somebody asked to stop.
    #[error("cancelled by the caller")]
    Cancelled,
}

impl Error {
    /// The error with the path of the dump that it is about, unless it says that
    /// itself or there is none.
    pub fn at(self, path: Option<&Path>) -> Self {
        match (self, path) {
            (error @ (Self::Write { .. } | Self::Path { .. } | Self::At { .. }), _) => error,
            (error, None) => error,
            (error, Some(path)) => Self::At {
                path: path.into(),
                source: Box::new(error),
            },
        }
    }

    /// What the option `sink` names is nothing that a dump can be written to.
    pub(super) fn not_a_sink(path: &Path) -> Self {
        Self::Path {
            path: path.into(),
            source: io::Error::new(
                io::ErrorKind::Unsupported,
                "neither a block device nor a FIFO",
            ),
        }
    }

    /// What a thread was doing when it panicked, and what the panic said.
    pub(super) fn panicked(doing: &'static str, panic: Box<dyn Any + Send>) -> Self {
        let message = panic_text(&*panic);
        Self::Panicked { doing, message }
    }

    /// The error with everything that led to it, in one line.
    pub fn chain(&self) -> String {
        chain(self)
    }
}

/// "PATH: ", or nothing.
fn prefix(path: Option<&Path>) -> String {
    path.map_or_else(String::new, |path| format!("{}: ", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_has_the_path_of_its_dump_once() {
        let dump = Path::new("/dumps/guest");
        let refused = || io::Error::from(io::ErrorKind::PermissionDenied);
        let write = |path: Option<&Path>| Error::Write {
            path: path.map(Path::to_owned),
            what: "pages",
            source: refused(),
        };
        let other = Error::Path {
            path: "/other".into(),
            source: refused(),
        };
        for (error, path, said) in [
            (Error::Closed, None, "the dump is closed"),
            (
                Error::Closed,
                Some(dump),
                "/dumps/guest: the dump is closed",
            ),
            (
                Error::Closed.at(Some(dump)),
                Some(Path::new("/x")),
                "/dumps/guest: the dump is closed",
            ),
            (
                write(Some(dump)),
                Some(dump),
                "/dumps/guest: cannot write pages: permission denied",
            ),
            (
                write(None),
                Some(dump),
                "cannot write pages: permission denied",
            ),
            (other, Some(dump), "/other: permission denied"),
        ] {
            assert_eq!(error.at(path).chain(), said);
        }
    }
}
