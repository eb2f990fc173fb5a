// SPDX-License-Identifier: LGPL-2.1-or-later
//! Dumps in files of their own.

use super::error::Error;
use super::format::Format;
use super::naming::{stem, DumpName};
use super::place::DumpPlace;
use super::seekable::Seekable;
use super::sink::Sink;
use crate::units::Utc;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// A dump file of its own: `NAME-UTCTIME.kdump` in a directory (or `.elf`), or
/// under a name that was asked for; with `.incomplete` until it is complete, then
/// with its manifest beside it as `.sums`. Never replaces an older file.
pub struct FileSink {
    name: DumpName,
    seekable: Seekable,
    /// Whether anything of a dump may be in the file.
    begun: bool,
    place: DumpPlace,
    doubt: Option<io::Error>,
}

impl Drop for FileSink {
    /// A file that no dump was begun in is of no use to anybody.
    fn drop(&mut self) {
        if !self.begun && std::fs::remove_file(self.name.incomplete()).is_ok() {
            self.place.set(None);
        }
    }
}

impl FileSink {
    /// Creates the file, with mode 0600, in a directory that exists.
    ///
    /// # Errors
    /// When that is not possible; the message names the path.
    pub fn create(dir: &Path, name: &str, timestamp_s: u64, format: Format) -> Result<Self, Error> {
        Self::create_beside(dir, &stem(name, Utc(timestamp_s)), format)
    }

    /// Creates the file, as [`FileSink::create`] does, beside others whose names begin
    /// with `stem`.
    ///
    /// # Errors
    /// When that is not possible; the message names the path.
    pub fn create_beside(dir: &Path, stem: &str, format: Format) -> Result<Self, Error> {
        let created = DumpName::create(dir, stem, format.suffix());
        created.map(|(name, file)| Self::of(name, file))
    }

    /// Creates the file that is called `path` once the dump in it is complete.
    ///
    /// # Errors
    /// When that is not possible, or something of that name is there already;
    /// the message names the path.
    pub fn create_as(path: &Path) -> Result<Self, Error> {
        DumpName::create_given(path).map(|(name, file)| Self::of(name, file))
    }

    /// Opens the file of a dump that was begun and is not complete, to go on with it.
    ///
    /// # Errors
    /// When it cannot be opened, or its name is not that of an incomplete dump; the
    /// message names the path.
    pub(super) fn reopen(path: &Path) -> Result<Self, Error> {
        let (name, file) = DumpName::reopen(path)?;
        let mut this = Self::of(name, file);
        this.begun = true;
        Ok(this)
    }

    fn of(name: DumpName, file: File) -> Self {
        Self {
            place: DumpPlace::new(Some(name.incomplete())),
            name,
            seekable: Seekable::new(file),
            begun: false,
            doubt: None,
        }
    }
}

impl Sink for FileSink {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.seekable.write_at(offset, bytes)
    }

    fn write_pages(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.seekable.write_pages(offset, bytes)
    }

    fn block(&self) -> usize {
        self.seekable.block()
    }

    fn prepare(&mut self, tables: u64, whole: u64) -> io::Result<()> {
        self.begun = true;
        self.seekable.reserve(tables, whole)
    }

    fn set_length(&mut self, length: u64) -> io::Result<()> {
        self.seekable.file.set_len(length)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.seekable.file.sync_data()
    }

    fn read_back(&mut self, offset: u64, into: &mut [u8]) -> io::Result<bool> {
        self.seekable.file.read_exact_at(into, offset)?;
        Ok(true)
    }

    fn publish(&mut self, manifest: Option<&str>) -> io::Result<()> {
        self.name.publish(manifest)?;
        // It has that name, whatever comes of the rest.
        self.place.set(Some(self.name.complete()));
        self.doubt = self.name.sync().err();
        Ok(())
    }

    fn path(&self) -> Option<PathBuf> {
        self.place.path()
    }

    fn place(&self) -> DumpPlace {
        self.place.clone()
    }

    fn doubt(&mut self) -> Option<io::Error> {
        self.doubt.take()
    }

    fn room(&self, reserve: u64) -> Option<u64> {
        self.seekable.room(reserve)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dump::Codec;

    fn create(dir: &Path) -> FileSink {
        FileSink::create(dir, "guest", 0, Format::Kdump(Codec::NONE)).unwrap()
    }

    #[test]
    fn a_file_without_anything_of_a_dump_does_not_stay() {
        let dir = tempfile::tempdir().unwrap();
        for is_begun in [false, true] {
            let mut sink = create(dir.path());
            let (path, place) = (sink.path().unwrap(), sink.place());
            if is_begun {
                sink.prepare(4096, 8192).unwrap();
            }
            drop(sink);
            assert_eq!(path.exists(), is_begun);
            assert_eq!(place.path(), is_begun.then_some(path));
        }
    }

    #[test]
    fn a_file_has_what_was_written_and_its_name_once_it_is_published() {
        let dir = tempfile::tempdir().unwrap();
        let mut sink = create(dir.path());
        let other = Seekable::new(tempfile::tempfile_in(dir.path()).unwrap());
        assert_eq!(sink.block(), other.block());
        sink.prepare(4096, 8192).unwrap();
        sink.write_pages(0, b"\0abcd").unwrap();
        sink.write_at(1, b"ab").unwrap();
        sink.set_length(3).unwrap();
        sink.sync().unwrap();
        let mut back = [7; 2];
        assert!(sink.read_back(1, &mut back).unwrap());
        assert_eq!(&back, b"ab");
        sink.read_back(2, &mut back).unwrap_err();
        let place = sink.place();
        sink.publish(Some("sums")).unwrap();
        assert!(sink.doubt().is_none());
        let path = dir.path().join("guest-19700101T000000Z.kdump");
        assert_eq!(place.path(), Some(path.clone()));
        assert_eq!(std::fs::read(path).unwrap(), b"\0ab");
        assert!(sink.room(0) > Some(0) && sink.room(u64::MAX) == Some(0));
    }

    #[test]
    fn a_doubt_about_a_name_is_told_once() {
        let dir = tempfile::tempdir().unwrap();
        let mut sink = create(dir.path());
        sink.doubt = Some(io::ErrorKind::TimedOut.into());
        let doubts = [sink.doubt(), sink.doubt()].map(|doubt| doubt.map(|error| error.kind()));
        assert_eq!(doubts, [Some(io::ErrorKind::TimedOut), None]);
    }
}
