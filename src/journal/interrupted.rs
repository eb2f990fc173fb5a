// SPDX-License-Identifier: LGPL-2.1-or-later
//! Crashes that a process was handling when it was killed.

use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::book::{line, make, Book, JournalFile, SUFFIX};
use super::entry::{Entry, Handler};
use super::past::{whole_lines, Past};
use crate::os::fd::{entries, read_text};
use crate::os::file::lock;
use crate::os::process::{boot_id, Living};
use crate::os::wait::{wait_readable, DirectoryWatch};

/// More than any journal has: a configuration, and a few thousand frames.
const MOST_BYTES: u64 = 16 << 20;
/// Processes that may handle one crash. What ends each of them would end the next.
const MOST_HANDLERS: usize = 16;

/// A crash whose process is gone.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Interrupted {
    /// Its journal.
    pub journal: PathBuf,
    /// The guest's name; empty when the journal cannot be read.
    pub guest: String,
    /// The crashed domain's number in the hypervisor.
    pub domid: u32,
}

/// Waits until the process of some crash is gone before the crash was over: of the
/// guest called `guest`, or of any. None when `timeout` passed.
///
/// # Errors
/// When the directory of journals, or a process, cannot be looked at.
pub fn find(
    directory: &Path,
    guest: Option<&str>,
    timeout: Option<Duration>,
) -> io::Result<Option<Interrupted>> {
    let deadline = timeout.map(|timeout| Instant::now() + timeout);
    let boot_id = boot_id()?;
    // Before the look: what comes after it is told.
    if timeout != Some(Duration::ZERO) {
        make(directory)?;
    } else if !directory.exists() {
        return Ok(None);
    }
    let watch = DirectoryWatch::of(directory)?;
    loop {
        watch.drain();
        let mut handled = Vec::new();
        for path in entries(directory)? {
            if path.extension().is_none_or(|suffix| suffix != SUFFIX) {
                continue;
            }
            match look(&path, guest, &boot_id)? {
                Look::Interrupted(found) => return Ok(Some(found)),
                Look::Handled(living) => handled.push(living),
                Look::NotWanted => {}
            }
        }
        let left_ms = match deadline.map(|at| at.saturating_duration_since(Instant::now())) {
            Some(left) if left.is_zero() => return Ok(None),
            // Rounded up: no more looks than there are things to see.
            Some(left) => Some(i32::try_from(left.as_millis() + 1).unwrap_or(i32::MAX)),
            None => None,
        };
        let mut descriptors: Vec<BorrowedFd<'_>> = vec![watch.as_fd()];
        descriptors.extend(handled.iter().map(Living::as_fd));
        wait_readable(&descriptors, left_ms)?;
    }
}

enum Look {
    /// Nobody handles the crash any more.
    Interrupted(Interrupted),
    /// Somebody does.
    Handled(Living),
    /// It is another guest's, or gone.
    NotWanted,
}

/// A journal that cannot be read is nobody's: whoever takes it over learns why.
fn look(path: &Path, guest: Option<&str>, boot_id: &str) -> io::Result<Look> {
    let journal = path.to_owned();
    let past = match read_text(path, MOST_BYTES).and_then(|text| Past::read(&text)) {
        Ok(past) => past,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Look::NotWanted),
        Err(_) if guest.is_some() => return Ok(Look::NotWanted),
        Err(_) => {
            return Ok(Look::Interrupted(Interrupted {
                journal,
                ..Interrupted::default()
            }))
        }
    };
    if guest.is_some_and(|guest| guest != past.begun.guest) {
        return Ok(Look::NotWanted);
    }
    Ok(match handler(&past, boot_id)? {
        Some(living) => Look::Handled(living),
        None => Look::Interrupted(Interrupted {
            journal,
            guest: past.begun.guest,
            domid: past.begun.domid,
        }),
    })
}

/// The process that handles a crash, if it still does.
fn handler(past: &Past, boot_id: &str) -> io::Result<Option<Living>> {
    match past.handlers.last() {
        Some(handler) if past.begun.boot_id == boot_id => handler.0.living(),
        _ => Ok(None),
    }
}

/// What comes of taking over a journal.
pub enum TakeOver {
    /// The crash is this process's now.
    Taken(Box<Past>, JournalFile),
    /// Somebody else handles it, or it is over.
    NotNeeded,
    /// Nobody can, for this reason; the journal has been put aside.
    PutAside(String),
}

/// Takes over the crash of a journal, so that nobody else does.
///
/// # Errors
/// When the journal cannot be read, or written to.
pub fn take_over(path: &Path) -> io::Result<TakeOver> {
    // Two may try it at the same time: the lock is there until this is closed.
    let locked = match JournalFile::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(TakeOver::NotNeeded),
        Err(error) => return Err(error),
    };
    lock(locked.file())?;
    let is_same = path.metadata().is_ok_and(|now| {
        let opened = locked.file().metadata();
        opened.is_ok_and(|opened| (opened.dev(), opened.ino()) == (now.dev(), now.ino()))
    });
    if !is_same {
        return Ok(TakeOver::NotNeeded);
    }
    let read = read_text(path, MOST_BYTES).and_then(|text| Ok((Past::read(&text)?, text)));
    let (past, text) = match read {
        Ok(read) => read,
        Err(error) => return put_aside(path, error.to_string()),
    };
    let boot_id = boot_id()?;
    if past.begun.boot_id != boot_id {
        let why = "the machine has been started anew since: none of its domains is left";
        return put_aside(path, why.into());
    }
    if handler(&past, &boot_id)?.is_some() {
        return Ok(TakeOver::NotNeeded);
    }
    if past.handlers.len() >= MOST_HANDLERS {
        let why = format!("{MOST_HANDLERS} processes have ended while they handled it");
        return put_aside(path, why);
    }
    let mut file = JournalFile::open(path)?;
    // The end of a line that was being written must not spoil the next one.
    file.file().set_len(whole_lines(&text).len() as u64)?;
    let by = Handler::this()?;
    file.append(&line(&Entry::Handled { by })?)?;
    Ok(TakeOver::Taken(Box::new(past), file))
}

fn put_aside(path: &Path, why: String) -> io::Result<TakeOver> {
    std::fs::rename(path, path.with_extension("put-aside"))?;
    Ok(TakeOver::PutAside(why))
}
