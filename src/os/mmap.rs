// SPDX-License-Identifier: LGPL-2.1-or-later
//! mmap(2) and munmap(2), for whoever gives a mapping a meaning.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::ptr::NonNull;

/// Maps `length` bytes, more than none, at an address of the kernel's choice: of a
/// file from an offset on that is a multiple of the page size, or of no file.
pub(super) fn map(
    length: usize,
    protection: libc::c_int,
    flags: libc::c_int,
    file: Option<(&File, libc::off_t)>,
) -> io::Result<NonNull<u8>> {
    let (descriptor, offset) = file.map_or((-1, 0), |(file, at)| (file.as_raw_fd(), at));
    let anywhere = std::ptr::null_mut();
    // SAFETY: without MAP_FIXED, which no caller gives, a new mapping touches nothing
    // that exists; the borrowed file keeps the descriptor open for the call.
    let start = unsafe { libc::mmap(anywhere, length, protection, flags, descriptor, offset) };
    match NonNull::new(start) {
        Some(start) if start.as_ptr() != libc::MAP_FAILED => Ok(start.cast()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// # Safety
/// These are whole pages of a mapping of [`map`] that nothing refers to, or none.
pub(super) unsafe fn unmap(start: NonNull<u8>, length: usize) {
    if length > 0 {
        // SAFETY: as the caller says.
        unsafe { libc::munmap(start.as_ptr().cast(), length) };
    }
}
