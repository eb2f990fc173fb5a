// SPDX-License-Identifier: LGPL-2.1-or-later
//! Names of dump files: never one that is taken.

use super::error::Error;
use crate::os::fd::{open, open_to_read};
use crate::os::file::{is_unsupported, rename_no_replace};
use crate::units::Utc;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// What is added to the name of a dump that is not complete.
const INCOMPLETE: &str = "incomplete";
/// Dumps of one guest in one second before something else must be wrong.
const MAX_SAME_SECOND: u32 = 1000;
/// Bytes of a guest's name that file names keep.
const MAX_NAME: usize = 100;

/// The name of one dump, before and after it is complete.
#[derive(Clone, Debug)]
pub(super) enum DumpName {
    /// A name that says whose dump it is, and when it was made.
    Descriptive {
        dir: PathBuf,
        stem: String,
        number: u32,
        /// What a complete dump's name ends in.
        suffix: &'static str,
    },
    /// The name that somebody asked for.
    Given(PathBuf),
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Path { path, source }
}

impl DumpName {
    /// The first free name that begins with `stem`, and its file, created for this
    /// process alone.
    ///
    /// # Errors
    /// When the directory does not exist or cannot be written to.
    pub(super) fn create(
        dir: &Path,
        stem: &str,
        suffix: &'static str,
    ) -> Result<(Self, File), Error> {
        let mut this = Self::Descriptive {
            dir: dir.into(),
            stem: stem.into(),
            number: 1,
            suffix,
        };
        if !dir.metadata().map_err(at(dir))?.is_dir() {
            return Err(at(dir)(ErrorKind::NotADirectory.into()));
        }
        loop {
            let incomplete = this.incomplete();
            let taken = is_taken(&this.complete());
            match create_private(&incomplete) {
                Ok(_) if taken => std::fs::remove_file(&incomplete).map_err(at(&incomplete))?,
                Ok(file) => return Ok((this, file)),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(at(&incomplete)(error)),
            }
            if !this.take_next() {
                return Err(at(&this.complete())(ErrorKind::AlreadyExists.into()));
            }
        }
    }

    /// The name `path`, and its file, created for this process alone.
    ///
    /// # Errors
    /// When it, or what would be beside it, is there already; when its directory
    /// does not exist or cannot be written to.
    pub(super) fn create_given(path: &Path) -> Result<(Self, File), Error> {
        if path.file_name().is_none() {
            return Err(at(path)(io::Error::from_raw_os_error(libc::EISDIR)));
        }
        let this = Self::Given(path.into());
        let incomplete = this.incomplete();
        for other in [path, &manifest_path(path)] {
            if is_taken(other) {
                return Err(at(other)(io::Error::from_raw_os_error(libc::EEXIST)));
            }
        }
        let file = create_private(&incomplete).map_err(at(&incomplete))?;
        Ok((this, file))
    }

    /// The name of an incomplete dump that is at `path`, and its file.
    ///
    /// # Errors
    /// When that is none, by its name, or it cannot be opened to be read and written.
    pub(super) fn reopen(path: &Path) -> Result<(Self, File), Error> {
        if path.extension().is_none_or(|end| end != INCOMPLETE) {
            let why = "not the name of an incomplete dump";
            return Err(at(path)(io::Error::new(ErrorKind::InvalidInput, why)));
        }
        let file = open(path, OpenOptions::new().read(true).write(true)).map_err(at(path))?;
        let complete = path.with_extension("");
        if !is_taken(&complete) {
            // A manifest that was there before its dump got its name: there will be
            // another one, and should this one stay, that is told then.
            let _ = std::fs::remove_file(manifest_path(&complete));
        }
        Ok((Self::Given(complete), file))
    }

    /// The name of the dump once it is complete.
    pub(super) fn complete(&self) -> PathBuf {
        match self {
            Self::Given(path) => path.clone(),
            Self::Descriptive {
                dir,
                stem,
                number: 1,
                suffix,
            } => dir.join(format!("{stem}.{suffix}")),
            Self::Descriptive {
                dir,
                stem,
                number,
                suffix,
            } => dir.join(format!("{stem}-{number}.{suffix}")),
        }
    }

    /// Goes on to the next name that would do; false when there is none.
    fn take_next(&mut self) -> bool {
        match self {
            Self::Descriptive { number, .. } if *number < MAX_SAME_SECOND => {
                *number += 1;
                true
            }
            _ => false,
        }
    }

    /// The name of the dump until then.
    pub(super) fn incomplete(&self) -> PathBuf {
        let mut path = self.complete().into_os_string();
        path.push(".");
        path.push(INCOMPLETE);
        path.into()
    }

    /// Gives the dump its final name; should somebody have taken that
    /// meanwhile, the next free one. Puts the manifest beside it first, so that
    /// a complete dump has one.
    pub(super) fn publish(&mut self, manifest: Option<&str>) -> io::Result<()> {
        let from = self.incomplete();
        loop {
            match self.publish_as(&from, &self.complete(), manifest) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists && self.take_next() => {}
                result => return result,
            }
        }
    }

    /// Returns when the name, too, is on the disk.
    pub(super) fn sync(&self) -> io::Result<()> {
        let path = self.complete();
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
        open_to_read(dir.unwrap_or(Path::new(".")))?.sync_all()
    }

    fn publish_as(&self, from: &Path, to: &Path, manifest: Option<&str>) -> io::Result<()> {
        let Some(manifest) = manifest else {
            return move_to(from, to);
        };
        let beside = manifest_path(to);
        let mut file = create_private(&beside)?;
        let result = file
            .write_all(manifest.as_bytes())
            .and_then(|()| file.sync_all())
            .and_then(|()| move_to(from, to));
        if result.is_err() {
            // It describes no dump of that name. Why there is none is what matters.
            let _ = std::fs::remove_file(&beside);
        }
        result
    }
}

/// Where the manifest of a dump is.
pub(crate) fn manifest_path(dump: &Path) -> PathBuf {
    let mut path = dump.as_os_str().to_owned();
    path.push(".sums");
    path.into()
}

/// Whether anything has that name, be it a link to nothing.
fn is_taken(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

fn create_private(path: &Path) -> io::Result<File> {
    let options = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .to_owned();
    open(path, &options)
}

fn move_to(from: &Path, to: &Path) -> io::Result<()> {
    unless_unsupported(rename_no_replace(from, to), from, to)
}

/// Neither every kernel nor every file system has the call, and not every one that
/// has it knows the flag; a link never replaces either.
fn unless_unsupported(renamed: io::Result<()>, from: &Path, to: &Path) -> io::Result<()> {
    match renamed {
        Err(error) if is_unsupported(&error) => {
            std::fs::hard_link(from, to)?;
            // With both names it is still a dump that has its final one.
            let _ = std::fs::remove_file(from);
            Ok(())
        }
        result => result,
    }
}

/// What the names of all files about one crash of the guest `name` begin with; other
/// crashes in the same second get a number after it.
pub fn stem(name: &str, at: Utc) -> String {
    format!("{}-{}", sanitised(name), at.compact())
}

/// A guest's name as part of a file name: nothing that leaves the directory,
/// hides the file or surprises a shell.
fn sanitised(name: &str) -> String {
    let fine = |c: char| c.is_ascii_alphanumeric() || "-_.+".contains(c);
    let mut safe: String = name
        .chars()
        .take(MAX_NAME)
        .map(|c| if fine(c) { c } else { '_' })
        .collect();
    if safe.starts_with(['.', '-']) {
        safe.replace_range(..1, "_");
    }
    if safe.is_empty() {
        safe.push_str("guest");
    }
    safe
}

#[cfg(test)]
mod tests;
