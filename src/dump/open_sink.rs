// SPDX-License-Identifier: LGPL-2.1-or-later
//! Dumps in what the caller chose: a file, a block device, or a stream.

use super::error::Error;
use super::flat::{FlatSink, PatientStream};
use super::seekable::Seekable;
use super::sink::Sink;
use crate::addr::PAGE_SIZE;
use crate::os::fd::open;
use crate::os::file::{self, is_unsupported};
use std::fs::{File, OpenOptions};
use std::io::{self, Seek};
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A file or block device that the caller chose. What was in it is lost; there
/// is no manifest and no change of name.
pub struct OpenSink {
    seekable: Seekable,
    is_device: bool,
    path: Option<PathBuf>,
}

/// Why something cannot be a sink.
fn unfit(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, why)
}

/// How long a pipe's reader may take nothing before the dump gives up.
const PATIENCE: Duration = Duration::from_secs(60);

impl OpenSink {
    /// The right sink for an open descriptor: a file or block device is written
    /// in place; a pipe, socket or other device gets a flattened stream.
    ///
    /// # Errors
    /// When the descriptor is something else, or open in a way that no dump can be
    /// written by.
    pub fn from_file(file: File, path: Option<PathBuf>) -> io::Result<Box<dyn Sink>> {
        let kind = file.metadata()?.file_type();
        let in_place = kind.is_file() || kind.is_block_device();
        if kind.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        if !(in_place || kind.is_fifo() || kind.is_socket() || kind.is_char_device()) {
            return Err(unfit("neither a file nor a device, pipe or socket"));
        }
        let flags = file::status_flags(&file)?;
        if flags & libc::O_PATH != 0 || flags & libc::O_ACCMODE == libc::O_RDONLY {
            return Err(unfit("not open for writing"));
        }
        if in_place && flags & libc::O_APPEND != 0 {
            return Err(unfit("open with O_APPEND, which writes at the end only"));
        }
        if flags & libc::O_DIRECT != 0 {
            return Err(unfit(
                "open with O_DIRECT; allowed: without, pages are written so by themselves",
            ));
        }
        if !in_place {
            let stream = PatientStream::new(file, PATIENCE);
            return Ok(Box::new(FlatSink::new(stream).named(path)));
        }
        Ok(Box::new(Self {
            seekable: Seekable::new(file),
            is_device: kind.is_block_device(),
            path,
        }))
    }

    /// Opens a block device that nobody else uses, or a FIFO that somebody
    /// reads. Other files are refused: dumps in files get names of their own.
    ///
    /// # Errors
    /// When it is something else, in use, or without a reader.
    pub fn open(path: &Path) -> Result<Box<dyn Sink>, Error> {
        let failed = |source| Error::Path {
            path: path.into(),
            source,
        };
        let kind = path.metadata().map_err(failed)?.file_type();
        // Exclusive: the kernel refuses a device that is mounted. Not blocking:
        // a FIFO without a reader is refused, not waited for.
        let (read, flags) = if kind.is_block_device() {
            (true, libc::O_EXCL)
        } else if kind.is_fifo() {
            (false, libc::O_NONBLOCK)
        } else {
            return Err(Error::not_a_sink(path));
        };
        let options = OpenOptions::new()
            .read(read)
            .write(true)
            .custom_flags(flags | libc::O_CLOEXEC)
            .to_owned();
        open(path, &options)
            .and_then(|file| Self::from_file(file, Some(path.into())))
            .map_err(failed)
    }

    /// Makes `0..length` of a device read as zero.
    fn wipe(&mut self, length: u64) -> io::Result<()> {
        // The old header first: whatever else is still there, no reader will
        // take it for a dump.
        self.seekable.file.write_all_at(&[0; PAGE_SIZE], 0)?;
        self.seekable.file.sync_data()?;
        match file::zero_range(&self.seekable.file, 0, length) {
            Err(error) if is_unsupported(&error) => self.write_zeroes(length),
            result => result,
        }
    }

    /// Writes zeroes to `0..length`.
    fn write_zeroes(&mut self, length: u64) -> io::Result<()> {
        let zeroes = vec![0; 1 << 20];
        let mut at = 0;
        while at < length {
            let part = zeroes
                .len()
                .min((length - at).try_into().unwrap_or(usize::MAX));
            self.seekable.write_at(at, &zeroes[..part])?;
            at += part as u64;
        }
        Ok(())
    }
}

impl Sink for OpenSink {
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
        if self.is_device {
            return self.wipe(whole);
        }
        self.seekable.file.set_len(0)?;
        self.seekable.reserve(tables, whole)
    }

    fn set_length(&mut self, length: u64) -> io::Result<()> {
        if self.is_device {
            return Ok(());
        }
        self.seekable.file.set_len(length)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.seekable.file.sync_data()
    }

    fn publish(&mut self, _manifest: Option<&str>) -> io::Result<()> {
        Ok(())
    }

    fn path(&self) -> Option<PathBuf> {
        self.path.clone()
    }

    fn room(&self, reserve: u64) -> Option<u64> {
        match self.is_device {
            true => (&self.seekable.file).seek(io::SeekFrom::End(0)).ok(),
            false => self.seekable.room(reserve),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;

    const LENGTH: usize = 3 << 20;

    /// A file with an operator's bytes in it, or a device, which has its length.
    fn used(file: File, is_device: bool) -> OpenSink {
        file.write_all_at(&vec![7; LENGTH], 0).unwrap();
        OpenSink {
            seekable: Seekable::new(file),
            is_device,
            path: None,
        }
    }

    fn content(sink: &OpenSink) -> Vec<u8> {
        let file = &sink.seekable.file;
        let mut content = vec![0; file.metadata().unwrap().len() as usize];
        file.read_exact_at(&mut content, 0).unwrap();
        content
    }

    #[test]
    fn of_a_device_as_much_as_a_dump_takes_is_zeroed() {
        // More than is written at once where the device cannot do it by itself, as a file
        // in memory.
        let whole = (2 << 20) + 5;
        let in_memory = tempfile::tempfile_in("/dev/shm").or_else(|_| tempfile::tempfile());
        for file in [tempfile::tempfile(), in_memory] {
            let mut sink = used(file.unwrap(), true);
            sink.prepare(4096, whole).unwrap();
            sink.set_length(10).unwrap();
            let content = content(&sink);
            assert_eq!(content.len(), LENGTH);
            let (zeroed, others) = content.split_at(whole as usize);
            assert!(zeroed.iter().all(|&byte| byte == 0));
            assert!(others.iter().all(|&byte| byte == 7));
            let room = [0, u64::MAX].map(|reserve| sink.room(reserve));
            assert_eq!(room, [Some(LENGTH as u64); 2], "its size");
        }
    }

    #[test]
    fn of_a_file_nothing_is_left() {
        let mut sink = used(tempfile::tempfile().unwrap(), false);
        assert_eq!(sink.room(u64::MAX), Some(0));
        let other = Seekable::new(tempfile::tempfile().unwrap());
        assert_eq!(sink.block(), other.block());
        sink.prepare(4096, 9000).unwrap();
        assert_eq!(content(&sink), [0; 9000]);
        sink.write_pages(0, b"\0abcd").unwrap();
        sink.write_at(1, b"ab").unwrap();
        sink.set_length(3).unwrap();
        sink.sync().unwrap();
        sink.publish(None).unwrap();
        assert_eq!(content(&sink), b"\0ab");
    }

    #[test]
    fn what_no_dump_can_be_written_by_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, "").unwrap();
        let refused = |how: &mut OpenOptions, path: &Path| {
            let sink = OpenSink::from_file(how.open(path).unwrap(), None);
            sink.map(drop).unwrap_err().to_string()
        };
        let reading = |flags| File::options().read(true).custom_flags(flags).to_owned();
        assert_eq!(refused(&mut reading(0), dir.path()), "is a directory");
        assert_eq!(refused(&mut reading(0), &path), "not open for writing");
        let named = refused(&mut reading(libc::O_PATH), &path);
        assert_eq!(named, "not open for writing");
        let appended = refused(File::options().append(true), &path);
        assert_eq!(appended, "open with O_APPEND, which writes at the end only");
        let file = File::options().read(true).write(true).open(&path).unwrap();
        let sink = OpenSink::from_file(file, Some(path.clone())).unwrap();
        assert_eq!((sink.is_seekable(), sink.path()), (true, Some(path)));
    }

    #[test]
    fn what_cannot_be_written_at_any_place_gets_a_stream() {
        let (_reader, socket) = UnixStream::pair().unwrap();
        // What is appended to a stream is where it belongs.
        let device = File::options().append(true).open("/dev/null").unwrap();
        for file in [File::from(OwnedFd::from(socket)), device] {
            assert!(!OpenSink::from_file(file, None).unwrap().is_seekable());
        }
    }

    #[test]
    fn a_fifo_that_nobody_reads_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("fifo");
        let made = std::process::Command::new("mkfifo").arg(&fifo).status();
        assert!(made.unwrap().success());
        let refused = |path: &Path| OpenSink::open(path).map(drop).unwrap_err().chain();
        let nobody = format!("{}: No such device or address", fifo.display());
        assert!(refused(&fifo).starts_with(&nobody));
        let _reader = File::options().read(true).write(true).open(&fifo).unwrap();
        let sink = OpenSink::open(&fifo).unwrap();
        assert_eq!((sink.is_seekable(), sink.path()), (false, Some(fifo)));
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        let neither = "neither a block device nor a FIFO";
        assert_eq!(refused(&file), format!("{}: {neither}", file.display()));
    }
}
