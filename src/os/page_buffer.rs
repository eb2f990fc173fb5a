// SPDX-License-Identifier: LGPL-2.1-or-later
//! Memory for large buffers, as direct I/O wants it.
#![allow(unsafe_code)]

use std::io;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

use super::mmap::{map, unmap};
use crate::addr::PAGE_SIZE;

/// Bytes of a huge page on x86-64.
const HUGE_PAGE: usize = 2 << 20;

/// Whole pages of memory, not part of any heap: what a dump took is the system's
/// again afterwards, in whatever process that was. A large buffer is aligned to huge
/// pages and asks for them, where there are any: filling one is then one page fault
/// instead of 512, and a disk is given one piece of memory.
pub(crate) struct PageBuffer {
    start: NonNull<u8>,
    length: usize,
}

// SAFETY: private memory, owned by this value alone.
unsafe impl Send for PageBuffer {}
// SAFETY: shared, it can only be read.
unsafe impl Sync for PageBuffer {}

impl PageBuffer {
    /// Zeroes, as many bytes as `length` rounded up to a page, and at least a page;
    /// they take no memory until they are written to.
    ///
    /// # Errors
    /// When the system has no memory to give.
    pub(crate) fn new(length: usize) -> io::Result<Self> {
        let length = length.max(1).next_multiple_of(PAGE_SIZE);
        let alignment = match length < HUGE_PAGE {
            true => PAGE_SIZE,
            false => HUGE_PAGE,
        };
        let mapped = map(
            length + alignment - PAGE_SIZE,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            None,
        )?;
        let before = mapped.as_ptr().align_offset(alignment);
        let after = alignment - PAGE_SIZE - before;
        // SAFETY: `before`, `length` and `after` are whole pages, and together what
        // was mapped; nothing refers to any of it yet.
        unsafe {
            let start = mapped.add(before);
            unmap(mapped, before);
            unmap(start.add(length), after);
            if alignment == HUGE_PAGE {
                // That it may fail harms nobody.
                libc::madvise(start.as_ptr().cast(), length, libc::MADV_HUGEPAGE);
            }
            Ok(Self { start, length })
        }
    }
}

impl Deref for PageBuffer {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        // SAFETY: mapped and readable as long as `self` lives, and written only
        // through an exclusive borrow of it.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.length) }
    }
}

impl DerefMut for PageBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: mapped and writable as long as `self` lives, which is exclusively
        // borrowed.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.length) }
    }
}

impl Drop for PageBuffer {
    fn drop(&mut self) {
        // SAFETY: mapped by `new`, unmapped once, and no reference outlives `self`.
        unsafe { unmap(self.start, self.length) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_aligned_for_direct_io_and_huge_pages() {
        for (asked, length, alignment) in [
            (0, PAGE_SIZE, PAGE_SIZE),
            (3 * PAGE_SIZE - 1, 3 * PAGE_SIZE, PAGE_SIZE),
            (HUGE_PAGE, HUGE_PAGE, HUGE_PAGE),
            (HUGE_PAGE + 1, HUGE_PAGE + PAGE_SIZE, HUGE_PAGE),
        ] {
            let mut buffer = PageBuffer::new(asked).unwrap();
            assert_eq!(buffer.len(), length);
            assert_eq!(buffer.as_ptr() as usize % alignment, 0);
            assert!(buffer.iter().all(|&byte| byte == 0));
            buffer.fill(7);
            assert_eq!(buffer[length - 1], 7);
        }
    }

    #[test]
    fn more_than_there_is_is_an_error() {
        assert!(PageBuffer::new(1 << 50).is_err());
    }
}
