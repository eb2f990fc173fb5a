// SPDX-License-Identifier: LGPL-2.1-or-later
//! Files mapped into memory, to be copied out of.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::ptr::NonNull;

use super::mmap::{map, unmap};

/// Bytes of a file that one page fault maps as far as they are in the page cache
/// (`fault_around_bytes`, mm/memory.c).
const FAULT_AROUND: usize = 64 << 10;

/// Part of a file, mapped read-only. Others may write to the file meanwhile, so
/// its bytes are copied out and never lent. Whoever shortens the file takes the
/// reading process down with SIGBUS, as with any mapping.
pub(crate) struct FileMap {
    start: NonNull<u8>,
    length: usize,
}

// SAFETY: a read-only mapping is not bound to the thread that made it.
unsafe impl Send for FileMap {}
// SAFETY: reading through it from several threads at once is allowed.
unsafe impl Sync for FileMap {}

impl FileMap {
    /// Maps `length` bytes, more than none, from `offset` on, a multiple of the
    /// page size, and brings them into memory. The file must have them.
    pub(crate) fn new(file: &File, offset: u64, length: usize) -> io::Result<Self> {
        let has = file.metadata()?.len();
        if offset
            .checked_add(length as u64)
            .is_none_or(|end| end > has)
        {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let offset =
            libc::off_t::try_from(offset).map_err(|_| io::Error::from_raw_os_error(libc::EFBIG))?;
        let start = map(
            length,
            libc::PROT_READ,
            libc::MAP_SHARED,
            Some((file, offset)),
        )?;
        let map = Self { start, length };
        map.touch();
        Ok(map)
    }

    /// Brings the file's pages into this process's memory. MAP_POPULATE would
    /// take several times as long: it looks at every page by itself.
    fn touch(&self) {
        let mut byte = [0];
        for offset in (0..self.length).step_by(FAULT_AROUND) {
            self.read(offset, std::hint::black_box(&mut byte));
        }
    }

    /// Takes the file's pages out of this process's memory; reading brings them
    /// back.
    pub(crate) fn forget(&self) {
        // SAFETY: the whole of our own mapping, shared with the file and never
        // written to, so that nothing is lost. That it may fail harms nobody.
        unsafe { libc::madvise(self.start.as_ptr().cast(), self.length, libc::MADV_DONTNEED) };
    }

    /// Copies bytes out; false when they are not all in the mapping.
    pub(crate) fn read(&self, offset: usize, into: &mut [u8]) -> bool {
        let end = offset.checked_add(into.len());
        if end.is_none_or(|end| end > self.length) {
            return false;
        }
        // SAFETY: the source is inside of the mapping, which lives as long as
        // `self`; the target is the caller's own, exclusively borrowed.
        unsafe {
            let from = self.start.as_ptr().add(offset);
            std::ptr::copy_nonoverlapping(from, into.as_mut_ptr(), into.len());
        }
        true
    }
}

impl Drop for FileMap {
    fn drop(&mut self) {
        // SAFETY: mapped by `new` with this length, unmapped once, and no
        // reference into it was ever given out.
        unsafe { unmap(self.start, self.length) };
    }
}
