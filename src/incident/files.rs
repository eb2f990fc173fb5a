// SPDX-License-Identifier: LGPL-2.1-or-later
//! The files about a crash: their names, and writing them.

use std::fs::OpenOptions;
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::value::Incident;
use crate::os::fd::{open, read_text};

/// What the name of a record ends in.
pub(super) const RECORD: &str = "json";
/// What the names of a crash's other files end in, those of its dump included.
const OTHERS: [&str; 7] = [
    "txt",
    "dmesg",
    "svg",
    "kdump",
    "kdump.incomplete",
    "elf",
    "elf.incomplete",
];
/// Crashes of one guest in one second before something else must be wrong.
const MOST_SAME_SECOND: u32 = 1000;
/// A record is smaller: its lists are bounded, and so is what a guest's log gives to it.
const MOST_RECORD_BYTES: u64 = 1 << 20;

/// The files about one crash.
#[derive(Clone, Debug)]
pub(super) struct Files {
    directory: PathBuf,
    id: String,
}

impl Files {
    /// Names that begin with `stem` and that no other crash has; the record is there from
    /// now on, without anything in it.
    ///
    /// # Errors
    /// When the directory is not there or cannot be written to.
    pub(super) fn claim(directory: &Path, stem: &str) -> io::Result<Self> {
        for number in 1..=MOST_SAME_SECOND {
            let id = match number {
                1 => stem.to_owned(),
                _ => format!("{stem}-{number}"),
            };
            let files = Self {
                directory: directory.into(),
                id,
            };
            let is_taken = |end: &&str| files.path(end).symlink_metadata().is_ok();
            if OTHERS.iter().any(is_taken) {
                continue;
            }
            match open(&files.path(RECORD), private().create_new(true)) {
                Ok(_) => return Ok(files),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Err(ErrorKind::AlreadyExists.into())
    }

    /// The files of the crash `id`, whose record is in `directory`.
    pub(super) fn of(directory: &Path, id: &str) -> Self {
        let (directory, id) = (directory.into(), id.into());
        Self { directory, id }
    }

    /// The files whose record is at `path`.
    pub(super) fn of_record(path: &Path) -> Option<Self> {
        let id = path.file_stem()?.to_str()?.to_owned();
        let directory = path.parent()?;
        (path.extension()? == RECORD).then(|| Self::of(directory, &id))
    }

    /// What their names begin with.
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// The directory that they are in.
    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// The file whose name ends so.
    pub(super) fn path(&self, end: &str) -> PathBuf {
        self.directory.join(format!("{}.{end}", self.id))
    }

    /// Puts `text` into a file in one step: whoever reads it has this text or the one
    /// before; so has who finds it after a power cut, where it `is_lasting`.
    ///
    /// # Errors
    /// Those of the file system; then the file is as it was.
    pub(super) fn replace(&self, end: &str, text: &str, is_lasting: bool) -> io::Result<()> {
        let beside = self.directory.join(format!(".{}.{end}.new", self.id));
        let written = open(&beside, private().create(true).truncate(true))
            .and_then(|mut file| {
                file.write_all(text.as_bytes())?;
                match is_lasting {
                    true => file.sync_data(),
                    false => Ok(()),
                }
            })
            .and_then(|()| std::fs::rename(&beside, self.path(end)));
        if written.is_err() {
            // Why it is not written is what matters.
            let _ = std::fs::remove_file(&beside);
        }
        written
    }

    /// Nothing was ever written into the record: its name is free again.
    pub(super) fn give_up(&self) {
        // An empty file says as little as one that is not there.
        let _ = std::fs::remove_file(self.path(RECORD));
    }

    /// What is in the record.
    ///
    /// # Errors
    /// When it is not there, cannot be read, or is no record of this version.
    pub(super) fn read(&self) -> io::Result<Incident> {
        let text = read_text(&self.path(RECORD), MOST_RECORD_BYTES)?;
        let incident: Incident = serde_json::from_str(&text)?;
        match incident.version {
            Incident::VERSION => Ok(incident),
            version => Err(io::Error::new(
                ErrorKind::InvalidData,
                format!(
                    "a record of version {version}; known is {}",
                    Incident::VERSION
                ),
            )),
        }
    }
}

/// The record of the crash `id` in `directory`.
///
/// # Errors
/// When it is not there, cannot be read, or is no record of this version.
pub fn read(directory: &Path, id: &str) -> io::Result<Incident> {
    Files::of(directory, id).read()
}

/// Files that only their owner reads: there may be secrets in a guest's log.
fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).mode(0o600);
    options
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_crash_has_names_that_no_other_has() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        std::fs::write(at("web1-T.kdump.incomplete"), "").unwrap();
        std::os::unix::fs::symlink("/nonexistent", at("web1-T-2.svg")).unwrap();
        let claim = || Files::claim(directory.path(), "web1-T").unwrap();
        let (first, second) = (claim(), claim());
        assert_eq!((first.id(), second.id()), ("web1-T-3", "web1-T-4"));
        let mode = at("web1-T-3.json").metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let error = Files::claim(&at("missing"), "web1-T").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
    }

    #[test]
    fn a_file_has_one_text_or_the_other() {
        let directory = tempfile::tempdir().unwrap();
        let files = Files::claim(directory.path(), "web1-T").unwrap();
        let mut incident = Incident::new(files.id(), "web1", "uuid", crate::units::Utc(0));
        for guest in ["a longer name", "web2"] {
            incident.guest = guest.into();
            let text = serde_json::to_string(&incident).unwrap();
            files.replace(RECORD, &text, guest == "web2").unwrap();
        }
        assert_eq!(read(directory.path(), files.id()).unwrap(), incident);
        incident.version = 2;
        let text = serde_json::to_string(&incident).unwrap();
        files.replace(RECORD, &text, false).unwrap();
        let error = files.read().unwrap_err().to_string();
        assert_eq!(error, "a record of version 2; known is 1");
        std::fs::create_dir(files.path("txt")).unwrap();
        files.replace("txt", "text", true).unwrap_err();
        let names = directory.path().read_dir().unwrap();
        assert_eq!(names.count(), 2, "nothing is left beside them");
        let again = Files::of_record(&files.path(RECORD)).unwrap();
        assert_eq!(
            (again.id(), again.directory()),
            (files.id(), directory.path())
        );
        assert!(Files::of_record(&files.path("txt")).is_none());
    }
}
