// SPDX-License-Identifier: LGPL-2.1-or-later
//! Where a dump goes: its directory is made when it is missing, and looked at
//! beforehand, which changes nothing.

use super::error::Error;
use super::format::Format;
use super::seekable;
use crate::os::fd::{open, open_to_read};
use crate::os::file::{free_space, may_write};
use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, ErrorKind, Seek};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt};
use std::path::Path;

fn at(path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Path { path, source }
}

/// The directory that a path is in.
fn parent(path: &Path) -> &Path {
    let parent = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    parent.unwrap_or(Path::new("."))
}

/// Makes the directory, for its owner alone, when it is missing and the one that it
/// is in is there; true when it was missing.
///
/// # Errors
/// When it is missing and cannot be made.
pub fn make_directory(dir: &Path) -> Result<bool, Error> {
    match DirBuilder::new().mode(0o700).create(dir) {
        Ok(()) => {
            // A dump in it is worth nothing when it goes with the power.
            let above = parent(dir);
            let synced = open_to_read(above).and_then(|above| above.sync_all());
            synced.map(|()| true).map_err(at(above))
        }
        // Whether it is a directory, and may be written to, shows at once.
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(at(dir)(error)),
    }
}

/// Bytes that a dump may have in a directory now, which need not be there if it can
/// be made.
///
/// # Errors
/// When no dump could be written there.
pub fn room_in(dir: &Path, reserve: u64) -> Result<Option<u64>, Error> {
    let there = match dir.metadata() {
        Err(error) if error.kind() == ErrorKind::NotFound => parent(dir),
        _ => dir,
    };
    // The directory is what the operator knows of, not what it would be made in.
    let look = || {
        if !there.metadata()?.is_dir() {
            return Err(ErrorKind::NotADirectory.into());
        }
        may_write(there)?;
        free_space(&open_to_read(there)?)
    };
    let free = look().map_err(at(dir))?;
    Ok(seekable::room_in(free, reserve))
}

/// Bytes that a dump may have on what the option `sink` names, where that is known:
/// a FIFO takes what its reader takes.
///
/// # Errors
/// When no dump could be written there.
pub fn room_on(sink: &Path, format: Format) -> Result<Option<u64>, Error> {
    let kind = sink.metadata().map_err(at(sink))?.file_type();
    if kind.is_fifo() {
        may_write(sink).map_err(at(sink))?;
        return match format {
            Format::Elf => Err(Error::NotSeekable { format: "ELF" }),
            Format::Kdump(_) => Ok(None),
        };
    }
    if !kind.is_block_device() {
        return Err(Error::not_a_sink(sink));
    }
    may_write(sink).map_err(at(sink))?;
    // Exclusive: a device that is mounted is refused. Only for reading: closing a
    // device that was open for writing makes udev look at it.
    let flags = libc::O_EXCL | libc::O_NONBLOCK | libc::O_CLOEXEC;
    let device = open(sink, OpenOptions::new().read(true).custom_flags(flags));
    let length = device.and_then(|mut device| device.seek(io::SeekFrom::End(0)));
    length.map(Some).map_err(at(sink))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dump::Codec;
    use std::os::unix::fs::PermissionsExt;

    const KDUMP: Format = Format::Kdump(Codec::NONE);

    #[test]
    fn a_missing_directory_is_made_once_and_for_its_owner_alone() {
        let above = tempfile::tempdir().unwrap();
        let dir = above.path().join("dump");
        assert!(make_directory(&dir).unwrap());
        assert_eq!(dir.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        assert!(!make_directory(&dir).unwrap());
        let deep = above.path().join("missing/dump");
        let error = make_directory(&deep).unwrap_err().chain();
        assert!(
            error.starts_with(&format!("{}: No such file", deep.display())),
            "{error}"
        );
    }

    #[test]
    fn looking_at_a_directory_changes_nothing() {
        let above = tempfile::tempdir().unwrap();
        let dir = above.path().join("dump");
        let room = room_in(&dir, 0).unwrap().unwrap();
        assert!(room > 0 && !dir.exists());
        assert_eq!(room_in(above.path(), u64::MAX).unwrap(), Some(0));
        assert!(room_in(&dir.join("deeper"), 0).is_err());
        std::fs::write(&dir, "").unwrap();
        let error = room_in(&dir, 0).unwrap_err().chain();
        assert!(error.ends_with("not a directory"), "{error}");
        let error = room_in(&dir.join("deeper"), 0).unwrap_err().chain();
        assert!(error.ends_with("Not a directory (os error 20)"), "{error}");
    }

    #[test]
    fn a_sink_that_is_not_there_or_none_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("nope");
        let told = |path: &Path| room_on(path, KDUMP).unwrap_err().chain();
        assert!(told(&missing).contains("nope: No such file"));
        std::fs::write(&missing, "").unwrap();
        assert!(told(&missing).ends_with("neither a block device nor a FIFO"));
        let fifo = dir.path().join("fifo");
        let made = std::process::Command::new("mkfifo").arg(&fifo).status();
        assert!(made.unwrap().success());
        assert_eq!(room_on(&fifo, KDUMP).unwrap(), None);
        assert!(matches!(
            room_on(&fifo, Format::Elf),
            Err(Error::NotSeekable { .. })
        ));
    }

    #[test]
    fn a_path_alone_is_in_the_current_directory() {
        assert_eq!(parent(Path::new("dump")), Path::new("."));
        assert_eq!(parent(Path::new("/var/dump")), Path::new("/var"));
        assert_eq!(parent(Path::new("/")), Path::new("."));
    }
}
