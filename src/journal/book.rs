// SPDX-License-Identifier: LGPL-2.1-or-later
//! Writing a journal.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::entry::{Begun, Entry, Handler};
use crate::os::fd::open;
use crate::os::file::rename_no_replace;

/// What journals' names end in.
pub(super) const SUFFIX: &str = "journal";

/// What a journal is written to.
pub trait Book: Send {
    /// Adds a line, which has its end.
    fn append(&mut self, line: &str) -> io::Result<()>;

    /// The crash is over: nobody is to find the journal any more.
    fn remove(&mut self) -> io::Result<()>;
}

/// The journal of one job, which may have none.
#[derive(Default)]
pub struct Journal(Mutex<Option<Box<dyn Book>>>);

impl Journal {
    fn book(&self) -> MutexGuard<'_, Option<Box<dyn Book>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Entries go to `book` from now on.
    pub fn open(&self, book: Box<dyn Book>) {
        *self.book() = Some(book);
    }

    /// Writes an entry down. After a failure there is no journal any more: what comes
    /// later would be understood wrongly without the entry.
    pub fn note(&self, entry: &Entry) -> io::Result<()> {
        let mut book = self.book();
        let Some(open) = book.as_mut() else {
            return Ok(());
        };
        let noted = line(entry).and_then(|line| open.append(&line));
        if noted.is_err() {
            // What it failed for is what the caller tells.
            let _ = open.remove();
            *book = None;
        }
        noted
    }

    /// The crash is over.
    pub fn close(&self) -> io::Result<()> {
        let book = self.book().take();
        book.map_or(Ok(()), |mut book| book.remove())
    }
}

/// An entry as it stands in a journal.
pub(super) fn line(entry: &Entry) -> io::Result<String> {
    let mut text = serde_json::to_string(entry)?;
    text.push('\n');
    Ok(text)
}

/// Makes a directory of journals, unless it is there.
pub(super) fn make(directory: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}

/// Opens a file of root's own that nobody reads before it gets its last name. What a
/// process that was killed has left in it is dropped.
pub(super) fn anew(path: &Path) -> io::Result<File> {
    let options = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .to_owned();
    let file = open(path, &options)?;
    file.set_len(0)?;
    Ok(file)
}

/// Where and how a crash is written down while it is handled.
#[derive(Clone, Debug)]
pub struct Notes {
    /// The directory of journals.
    pub directory: PathBuf,
    /// The job's options as they were written.
    pub options: String,
}

/// A journal in a file.
pub struct JournalFile {
    file: File,
    path: PathBuf,
}

impl JournalFile {
    /// Begins the journal of a crash that this process handles, in a directory that is
    /// made where it is missing. The file is there with its first lines, or not at all.
    pub fn begin(directory: &Path, begun: Begun) -> io::Result<Self> {
        make(directory)?;
        let name = format!("{}-{}.{SUFFIX}", begun.uuid, begun.domid);
        let path = directory.join(name);
        let unfinished = path.with_extension("new");
        let mut file = anew(&unfinished)?;
        let by = Handler::this()?;
        let first = line(&Entry::Begun(begun))? + &line(&Entry::Handled { by })?;
        file.write_all(first.as_bytes())?;
        rename_no_replace(&unfinished, &path)?;
        Ok(Self { file, path })
    }

    /// Goes on in a journal that another process has begun.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = open(path, OpenOptions::new().read(true).append(true))?;
        Ok(Self {
            file,
            path: path.into(),
        })
    }

    /// The directory of journals that this one is in.
    pub fn directory(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("/"))
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }
}

impl Book for JournalFile {
    fn append(&mut self, line: &str) -> io::Result<()> {
        // In one call: a reader sees all of a line or an end that is missing.
        self.file.write_all(line.as_bytes())
    }

    fn remove(&mut self) -> io::Result<()> {
        std::fs::remove_file(&self.path)
    }
}
