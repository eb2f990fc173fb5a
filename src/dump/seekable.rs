// SPDX-License-Identifier: LGPL-2.1-or-later
//! Files and block devices, written to at any place.

use crate::addr::PAGE_SIZE;
use crate::os::fd::open;
use crate::os::file::{self, is_unsupported};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};

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
pub(super) struct Seekable {
    pub(super) file: File,
    /// `file` once more, for direct I/O, where the file system takes that.
    direct: Option<File>,
    /// Bytes written since the page cache was last emptied.
    cached: u64,
}

impl Seekable {
    pub(super) fn new(file: File) -> Self {
        let direct = open_direct(&file).ok();
        Self {
            file,
            direct,
            cached: 0,
        }
    }

    pub(super) fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)?;
        self.cached += bytes.len() as u64;
        if self.cached >= CACHE_STEP {
            self.cached = 0;
            // Only spares memory; that it is not possible here is no error.
            let _ = file::keep_cache_small(&self.file);
        }
        Ok(())
    }

    pub(super) fn write_pages(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if let Some(direct) = &self.direct {
            match direct.write_all_at(bytes, offset) {
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => self.direct = None,
                result => return result,
            }
        }
        self.write_at(offset, bytes)
    }

    pub(super) fn room(&self, reserve: u64) -> Option<u64> {
        room_in(file::free_space(&self.file).ok()?, reserve)
    }

    pub(super) fn block(&self) -> usize {
        match self.direct {
            Some(_) => PAGE_SIZE,
            None => 1,
        }
    }

    /// For a file that is empty: reserves the tables' space, so that they can
    /// be written even when the disk is full.
    pub(super) fn reserve(&self, tables: u64, whole: u64) -> io::Result<()> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn what_a_file_system_needs_itself_is_no_room_for_a_dump() {
        assert_eq!(room_in(None, 5), None);
        assert_eq!(room_in(Some(1280), 0), Some(1270));
        assert_eq!(room_in(Some(1280), 10), Some(1270));
        assert_eq!(room_in(Some(1280), 11), Some(1269));
        assert_eq!(room_in(Some(1280), 2000), Some(0));
    }

    #[test]
    fn the_page_cache_is_emptied_every_few_megabytes() {
        let mut seekable = Seekable::new(tempfile::tempfile().unwrap());
        let megabyte = vec![7; 1 << 20];
        let cached = (0..9).map(|at| {
            seekable.write_at(at << 20, &megabyte).unwrap();
            seekable.cached >> 20
        });
        let cached: Vec<_> = cached.collect();
        assert_eq!(cached, [1, 2, 3, 4, 5, 6, 7, 0, 1]);
    }

    #[test]
    fn pages_that_cannot_go_past_the_cache_go_through_it() {
        let mut seekable = Seekable::new(tempfile::tempfile().unwrap());
        let can = seekable.direct.is_some();
        assert_eq!(seekable.block(), if can { PAGE_SIZE } else { 1 });
        seekable.write_pages(3, b"not aligned").unwrap();
        let mut found = [0; 14];
        seekable.file.read_exact_at(&mut found, 0).unwrap();
        assert_eq!(&found, b"\0\0\0not aligned");
    }

    #[test]
    fn space_for_tables_is_there_before_they_are_written() {
        let seekable = Seekable::new(tempfile::tempfile().unwrap());
        seekable.reserve(1 << 20, 1 << 30).unwrap();
        let file = seekable.file.metadata().unwrap();
        assert_eq!(file.len(), 1 << 30);
        let taken = file.blocks() * 512;
        assert!((1 << 20..2 << 20).contains(&taken), "{taken} bytes");
    }

    #[test]
    fn where_there_is_no_space_for_tables_there_is_no_dump() {
        let seekable = Seekable::new(tempfile::tempfile().unwrap());
        seekable.reserve(1 << 50, 1 << 20).unwrap_err();
    }
}
