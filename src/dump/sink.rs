// SPDX-License-Identifier: LGPL-2.1-or-later
//! Where dumps go.

use super::error::Error;
use super::flat::{FlatSink, PatientStream};
use super::format::Format;
use super::naming::DumpName;
use super::place::Place;
use crate::addr::PAGE_SIZE;
use crate::limits::cancel::Cancel;
use crate::os::fd::open;
use crate::os::file::{self, is_unsupported};
use std::fs::{File, OpenOptions};
use std::io::{self, Seek};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Takes the bytes of a dump, from one thread. Parts arrive in any order and
/// may be written again; what was never written must read as zero.
pub trait Sink: Send {
    /// Writes all of `bytes` at `offset`.
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// As [`Sink::write_at`], for page data: `bytes` is page-aligned in memory,
    /// and `offset` and length are multiples of [`Sink::block`].
    fn write_pages(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.write_at(offset, bytes)
    }

    /// What page data is aligned to; 1 when it need not be.
    fn block(&self) -> usize {
        1
    }

    /// Called once before anything is written. The dump starts with `tables`
    /// bytes that must read as zero until they are written; so must all of its
    /// `whole` bytes, which are no fewer. Whatever is there of an older dump
    /// must not be taken for a part of this one.
    fn prepare(&mut self, tables: u64, whole: u64) -> io::Result<()>;

    /// The dump will not grow any more and has this many bytes.
    fn set_length(&mut self, length: u64) -> io::Result<()>;

    /// Returns when all that was written is on disk, and the length that it has.
    fn sync(&mut self) -> io::Result<()>;

    /// Fills `into` with what was written at `offset`, or says `false`: the
    /// sink cannot, and the dump gets no manifest.
    fn read_back(&mut self, offset: u64, into: &mut [u8]) -> io::Result<bool> {
        let _ = (offset, into);
        Ok(false)
    }

    /// Called once, last, when the dump is complete; `manifest` is to be kept
    /// beside it.
    fn publish(&mut self, manifest: Option<&str>) -> io::Result<()>;

    /// Where the dump is at this moment, if it has a name.
    fn path(&self) -> Option<PathBuf>;

    /// Where the dump is, for whoever asks later.
    fn place(&self) -> Place {
        Place::new(self.path())
    }

    /// Why a dump that was published may not outlast a power cut, if that is so. Asked
    /// once, last.
    fn doubt(&mut self) -> Option<io::Error> {
        None
    }

    /// Whether what was written stays where it can be written again in place.
    /// Formats that need that refuse a sink that cannot.
    fn is_seekable(&self) -> bool {
        true
    }

    /// Called before anything else. Whoever waits longer than an instant for
    /// somebody else than the disk gives up when the caller cancels.
    fn heed(&mut self, cancel: &Cancel) {
        let _ = cancel;
    }

    /// Bytes that a dump may have, where that is known, if `reserve` bytes of the
    /// file system it is on are to stay free.
    fn room(&self, reserve: u64) -> Option<u64> {
        let _ = reserve;
        None
    }
}

/// Bytes written through the page cache between two steps that empty it.
const CACHE_STEP: u64 = 8 << 20;

/// The part of the free space that a file system may need itself, to note where a file
/// is: one with blocks of 1 KiB and no extents takes one block for 256 others.
const OWN_SHARE: u64 = 128;

/// Bytes that a dump may have in a file system with so much free, where that is known,
/// if `reserve` bytes of it are to stay free.
pub(super) fn room_in(free: Option<u64>, reserve: u64) -> Option<u64> {
    free.map(|free| free.saturating_sub(reserve.max(free / OWN_SHARE)))
}

/// A file or block device that can be written to at any place: tables through
/// the page cache, pages past it where that is possible.
struct Seekable {
    file: File,
    /// The same file for direct I/O, where the file system takes that.
    direct: Option<File>,
    /// Bytes written since the page cache was last emptied.
    cached: u64,
}

impl Seekable {
    fn new(file: File) -> Self {
        let direct = open_direct(&file).ok();
        Self {
            file,
            direct,
            cached: 0,
        }
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)?;
        self.cached += bytes.len() as u64;
        if self.cached >= CACHE_STEP {
            self.cached = 0;
            // Only spares memory; that it is not possible here is no error.
            let _ = file::keep_cache_small(&self.file);
        }
        Ok(())
    }

    fn write_pages(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if let Some(direct) = &self.direct {
            match direct.write_all_at(bytes, offset) {
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => self.direct = None,
                result => return result,
            }
        }
        self.write_at(offset, bytes)
    }

    fn room(&self, reserve: u64) -> Option<u64> {
        room_in(file::free_space(&self.file).ok()?, reserve)
    }

    fn block(&self) -> usize {
        match self.direct {
            Some(_) => PAGE_SIZE,
            None => 1,
        }
    }

    /// For a file that is empty: reserves the tables' space, so that they can
    /// be written even when the disk is full.
    fn reserve(&self, tables: u64, whole: u64) -> io::Result<()> {
        match file::reserve(&self.file, 0, tables) {
            // Not every file system can.
            Err(error) if is_unsupported(&error) => {}
            result => result?,
        }
        self.file.set_len(whole)
    }
}

/// The file once more, with a description of its own: O_DIRECT belongs to the
/// description, and tables are written without it.
fn open_direct(file: &File) -> io::Result<File> {
    let options = OpenOptions::new()
        .write(true)
        .custom_flags(libc::O_DIRECT)
        .to_owned();
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    open(path.as_ref(), &options)
}

/// A dump file of its own: `NAME-UTCTIME.kdump` in a directory (or `.elf`), or
/// under a name that was asked for; with `.incomplete` until it is complete, then
/// with its manifest beside it as `.sums`. Never replaces an older file.
pub struct FileSink {
    name: DumpName,
    seekable: Seekable,
    /// Whether anything of a dump may be in it.
    begun: bool,
    place: Place,
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
        let created = DumpName::create(dir, name, timestamp_s, format.suffix());
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

    fn of(name: DumpName, file: File) -> Self {
        Self {
            place: Place::new(Some(name.incomplete())),
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

    fn place(&self) -> Place {
        self.place.clone()
    }

    fn doubt(&mut self) -> Option<io::Error> {
        self.doubt.take()
    }

    fn room(&self, reserve: u64) -> Option<u64> {
        self.seekable.room(reserve)
    }
}

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
