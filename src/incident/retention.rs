// SPDX-License-Identifier: LGPL-2.1-or-later
//! Which dumps stay when there are more of them: the options `keep` and `keep_free`.
//!
//! A dump is told by the record beside it; a file without one is never removed. Records
//! stay: they say that there was a dump, and how often a fault was seen.

use std::collections::BTreeMap;
use std::fs::Metadata;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::files::{Files, RECORD};
use super::head::{list, Head};
use super::value::DumpState;
use super::write::write_all;
use crate::dump::manifest_path;
use crate::limits::cancel::Cancel;
use crate::options::Options;
use crate::os::clock::since_boot;
use crate::os::fd::open_to_read;
use crate::os::file::free_space;
use crate::told::event::{DumpEvent, RemovedFor};
use crate::told::log::JobLog;
use crate::units::{Size, Utc};

/// What the names of complete dumps end in. One that is not has another end after it.
const DUMPS: [&str; 2] = ["kdump", "elf"];
const INCOMPLETE: &str = ".incomplete";
/// What a block of a file's length on its disk is (`stat(2)`).
const BLOCK_BYTES: u64 = 512;
/// A dump that was written to since then may still be.
const OF_LATE_S: u64 = 3600;

/// A dump that is there.
struct Dump {
    head: Head,
    path: PathBuf,
    /// What its file takes on the disk.
    bytes: u64,
    is_complete: bool,
    /// It is this crash's, or may be written to.
    stays: bool,
}

impl Dump {
    /// The signature of what the guest died of, as far as that is known.
    fn signature(&self) -> Option<&str> {
        let died = self.head.died.as_ref();
        died.map(|(signature, _)| signature.as_str())
    }
}

/// Removes dumps as the options say, after the crash whose files are `own`, of the guest
/// `uuid`: never this crash's, and the only one of a signature when no other can go. Of those
/// that can, incomplete ones go first, then the oldest.
pub(super) fn tidy(own: &Files, uuid: &str, options: &Options, log: &JobLog, cancel: &Cancel) {
    if options.keep.is_none() && options.keep_free_bytes == 0 {
        return;
    }
    let directory = own.directory();
    let dumps = match dumps_in(own) {
        Ok(dumps) => dumps,
        Err(error) => return tell_not(directory, &error, log),
    };
    let mut room = Room { dumps, log, cancel };
    if let Some(keep) = options.keep {
        let is_one = |dump: &Dump| dump.head.uuid == uuid;
        // A dump that failed takes the place of none.
        let counts = |dump: &&Dump| is_one(dump) && (dump.is_complete || !dump.stays);
        while room.dumps.iter().filter(counts).count() > usize::from(keep) {
            if room.remove_one(is_one, RemovedFor::Keep(keep)).is_none() {
                break;
            }
        }
    }
    if options.keep_free_bytes == 0 {
        return;
    }
    let free = open_to_read(directory).and_then(|directory| free_space(&directory));
    match free {
        Ok(free) => room.make_free(options.keep_free_bytes, free.unwrap_or(u64::MAX)),
        Err(error) => tell_not(directory, &error, log),
    }
}

fn tell_not(path: &Path, error: &io::Error, log: &JobLog) {
    let (path, error) = (path.to_owned(), error.to_string());
    log.tell(DumpEvent::NotRemoved { path, error });
}

/// The dumps that are there and have a record, by their age.
fn dumps_in(own: &Files) -> io::Result<Vec<Dump>> {
    let heads = list(own.directory())?;
    Ok(heads.iter().flat_map(|head| dumps_of(own, head)).collect())
}

/// The dumps of one crash: more than one where the first could not be gone on with.
fn dumps_of(own: &Files, head: &Head) -> Vec<Dump> {
    let may_be_there = matches!(
        head.dump.state,
        DumpState::Written | DumpState::Complete | DumpState::Incomplete
    );
    let whole = DUMPS.map(|end| (end.to_owned(), true));
    let parts = DUMPS.map(|end| (format!("{end}{INCOMPLETE}"), false));
    let ends = whole.into_iter().chain(parts).filter(|_| may_be_there);
    let dumps = ends.filter_map(|(end, is_complete)| {
        let path = Files::of(own.directory(), &head.id).path(&end);
        let file = path.symlink_metadata().ok().filter(Metadata::is_file)?;
        Some(Dump {
            head: head.clone(),
            path,
            bytes: file.blocks().saturating_mul(BLOCK_BYTES),
            is_complete,
            stays: head.id == own.id() || may_be_handled(head, &file),
        })
    });
    dumps.collect()
}

/// Whether another process may be writing the dump, or be about to go on with it: not when
/// dom0 was started since, and the dump was not written to of late. Either alone could come
/// of a clock that was set.
fn may_be_handled(head: &Head, dump: &Metadata) -> bool {
    let now_s = Utc::now().0;
    let booted_s = now_s.saturating_sub(since_boot().as_secs());
    let written_s = u64::try_from(dump.mtime()).unwrap_or(0);
    let is_of_late = written_s.saturating_add(OF_LATE_S) > now_s;
    !head.is_over && (head.crashed_s.0 >= booted_s || is_of_late)
}

/// The dumps there are, while some are removed.
struct Room<'a> {
    dumps: Vec<Dump>,
    log: &'a JobLog,
    cancel: &'a Cancel,
}

impl Room<'_> {
    /// Removes dumps of any guest until `wanted` bytes are free where `free` are now.
    fn make_free(&mut self, wanted: u64, free: u64) {
        let mut free = free;
        while free < wanted {
            let why = RemovedFor::KeepFree(Size(wanted));
            let Some(bytes) = self.remove_one(|_| true, why) else {
                return;
            };
            free = free.saturating_add(bytes);
        }
    }

    /// Removes the one of the dumps that `may_go` whose loss is the smallest; the bytes
    /// that its file had. None when none can go or the job is cancelled.
    fn remove_one(&mut self, may_go: impl Fn(&Dump) -> bool, why: RemovedFor) -> Option<u64> {
        if self.cancel.is_asked() {
            return None;
        }
        let mut dumps_of: BTreeMap<&str, usize> = BTreeMap::new();
        for signature in self.dumps.iter().filter_map(Dump::signature) {
            *dumps_of.entry(signature).or_default() += 1;
        }
        // Of what a guest died of that did not say it there may be no other.
        let is_only = |dump: &Dump| dump.signature().is_none_or(|of| dumps_of[of] == 1);
        let candidates = self.dumps.iter().enumerate();
        let (place, _) = candidates
            .filter(|(_, dump)| !dump.stays && may_go(dump))
            .min_by_key(|(_, dump)| {
                let Head { crashed_s, id, .. } = &dump.head;
                (is_only(dump), dump.is_complete, *crashed_s, id)
            })?;
        let dump = self.dumps.remove(place);
        match remove(&dump, why) {
            Ok(()) => {
                self.log.tell(DumpEvent::Removed {
                    path: dump.path,
                    length: Size(dump.bytes),
                    why,
                });
                Some(dump.bytes)
            }
            Err((path, error)) => {
                tell_not(&path, &error, self.log);
                Some(0)
            }
        }
    }
}

/// Removes a dump's file and that of its checksums, and has its record say so. The file
/// goes first: a record must not say that there is none while it takes room.
fn remove(dump: &Dump, why: RemovedFor) -> Result<(), (PathBuf, io::Error)> {
    for path in [dump.path.clone(), manifest_path(&dump.path)] {
        match std::fs::remove_file(&path) {
            // Another process keeps order, too.
            Err(error) if error.kind() != ErrorKind::NotFound => return Err((path, error)),
            _ => {}
        }
    }
    let directory = dump.path.parent().unwrap_or(Path::new("."));
    let files = Files::of(directory, &dump.head.id);
    let mut incident = files.read().map_err(|error| (files.path(RECORD), error))?;
    let part = &mut incident.dump;
    part.state = DumpState::Removed;
    part.why = Some(why.to_string());
    (part.path, part.open_with) = (None, Vec::new());
    write_all(&files, &mut incident, None)
}

#[cfg(test)]
mod tests;
