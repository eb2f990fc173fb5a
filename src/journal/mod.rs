// SPDX-License-Identifier: LGPL-2.1-or-later
//! What a crash has come to, written down as it happens, so that somebody can go on
//! when the process that handles it is killed; and how often a guest has crashed.
//!
//! A journal is a small text file: one [`Entry`] in each line, as JSON. `book` appends
//! to it, `past` reads it back, and `interrupted` finds journals whose process is gone
//! and takes them over; `history` counts crashes, beside the journals. Journals are in a directory of their own and not beside the
//! dump: whoever looks for crashes to go on with must find those whose dump goes
//! anywhere; and a disk that is full, or does not answer, must keep neither recovery
//! nor its journal. They need not outlast the machine's next start, since the domains
//! that they speak of do not: `/run` is the place, and nothing is synced.
//!
//! What can be asked of the hypervisor is not in a journal: which pages the crashed
//! domain still has, and what the recovery domain has got. So no entry has to be
//! written in the same instant as what it tells of.
#![forbid(unsafe_code)]

mod book;
mod entry;
mod history;
mod interrupted;
mod past;
#[cfg(test)]
mod tests;

pub use book::{Book, Journal, JournalFile, Notes};
pub use entry::{Begun, Entry, Handler, Untouched};
pub use history::{Changed, History, HistoryFile};
pub use interrupted::{find, take_over, Interrupted, TakeOver};
pub use past::{Past, PastDump, PastRecovery};

/// Where journals are unless somebody says otherwise.
pub const DIRECTORY: &str = "/run/vicover";

/// Whether a crash of the guest `uuid` is being written down here: whoever handles it, or
/// goes on with it, has not ended.
pub fn is_written(uuid: &str) -> bool {
    let journals = crate::os::fd::entries(std::path::Path::new(DIRECTORY));
    let is_it = |path: &std::path::PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| name.starts_with(uuid) && name.ends_with(".journal"))
    };
    journals.is_ok_and(|paths| paths.iter().any(is_it))
}
