// SPDX-License-Identifier: LGPL-2.1-or-later
//! What a journal says a crash has come to.

use std::io;
use std::path::PathBuf;

use super::entry::{Begun, Entry, Handler, Untouched};
use crate::dump::Changes;

/// What became of a crash's dump.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum PastDump {
    /// Nothing yet.
    #[default]
    None,
    /// It was begun, in this file if it has a path.
    Begun {
        /// The file.
        path: Option<PathBuf>,
        /// In what it is not what the guest's memory is.
        changes: Changes,
    },
    /// Nothing more is to be dumped.
    Ended,
}

/// A recovery domain.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PastRecovery {
    /// Its number in the hypervisor.
    pub domid: u32,
    /// Released pages that building it took.
    pub spent_pages: u64,
    /// Pages that it had when it was built.
    pub backed_pages: u64,
}

/// What a crash has come to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Past {
    /// Whose crash it is.
    pub begun: Begun,
    /// Who has handled it, the last one last.
    pub handlers: Vec<Handler>,
    /// The file of its record, if it has one.
    pub record: Option<PathBuf>,
    /// The standby that was taken for it.
    pub standby: Option<u32>,
    /// Whether anything may have been changed.
    pub is_detaching: bool,
    /// The recovery domain that was built last.
    pub recovery: Option<PastRecovery>,
    /// Whether the recovery domain has been let run.
    pub runs: bool,
    /// Whether the guard may have left the recovery domain stopped.
    pub is_stopped: bool,
    /// Pages that must not be touched, once any may be given back.
    pub untouched: Option<Untouched>,
    /// What became of the dump.
    pub dump: PastDump,
}

fn invalid(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}

/// The text without a last line that lacks its end.
pub(super) fn whole_lines(text: &str) -> &str {
    text.rfind('\n').map_or("", |end| &text[..=end])
}

impl Past {
    /// Reads a journal. A last line without its end was being written when the process
    /// was killed: it counts as not written.
    ///
    /// # Errors
    /// When a line is none of this version's; its number is told.
    pub fn read(text: &str) -> io::Result<Self> {
        let mut entries = whole_lines(text).lines().enumerate().map(|(index, line)| {
            serde_json::from_str::<Entry>(line)
                .map_err(|error| invalid(format!("line {}: {error}", index + 1)))
        });
        let begun = match entries.next().transpose()? {
            Some(Entry::Begun(begun)) => begun,
            Some(_) => return Err(invalid("line 1 does not say whose crash it is")),
            None => return Err(invalid("there is no whole line")),
        };
        if begun.version != Begun::VERSION {
            return Err(invalid(format!(
                "it is of version {}; known is {}",
                begun.version,
                Begun::VERSION
            )));
        }
        let mut past = Self {
            begun,
            handlers: Vec::new(),
            record: None,
            standby: None,
            is_detaching: false,
            recovery: None,
            runs: false,
            is_stopped: false,
            untouched: None,
            dump: PastDump::None,
        };
        for entry in entries {
            past.add(entry?)?;
        }
        Ok(past)
    }

    fn add(&mut self, entry: Entry) -> io::Result<()> {
        match entry {
            Entry::Begun(_) => return Err(invalid("it begins twice")),
            Entry::Handled { by } => self.handlers.push(by),
            Entry::Recorded { path } => self.record = Some(path),
            Entry::Standby { domid } => self.standby = Some(domid),
            Entry::Detaching => self.is_detaching = true,
            Entry::Built {
                domid,
                spent_pages,
                backed_pages,
            } => {
                self.runs = false;
                self.recovery = Some(PastRecovery {
                    domid,
                    spent_pages,
                    backed_pages,
                });
            }
            Entry::Runs { .. } => self.runs = true,
            Entry::Stopped { is_stopped } => self.is_stopped = is_stopped,
            Entry::Understood { untouched } => self.untouched = Some(untouched),
            Entry::DumpBegun { path, changes } => self.dump = PastDump::Begun { path, changes },
            Entry::DumpEnded { .. } => self.dump = PastDump::Ended,
        }
        Ok(())
    }
}
