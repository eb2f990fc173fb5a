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
            Err(error) if is_unsupported(&error) => {}
            result => return result,
        }
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
