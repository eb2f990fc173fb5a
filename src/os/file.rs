// SPDX-License-Identifier: LGPL-2.1-or-later
//! Space, caches and names of files on Linux.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

fn offsets(offset: u64, length: u64) -> io::Result<(libc::off_t, libc::off_t)> {
    match (offset.try_into(), length.try_into()) {
        (Ok(offset), Ok(length)) => Ok((offset, length)),
        _ => Err(io::Error::from_raw_os_error(libc::EFBIG)),
    }
}

fn allocate(file: &File, mode: libc::c_int, offset: u64, length: u64) -> io::Result<()> {
    let (offset, length) = offsets(offset, length)?;
    // SAFETY: fallocate takes no pointer; `file` keeps the descriptor open.
    check(unsafe { libc::fallocate(file.as_raw_fd(), mode, offset, length) })
}

/// Reserves space for `length` bytes from `offset` on and makes the file at
/// least that long; what was not written before reads as zero (fallocate(2)).
pub(crate) fn reserve(file: &File, offset: u64, length: u64) -> io::Result<()> {
    allocate(file, 0, offset, length)
}

/// Makes a range read as zero without sending zeroes where the device or the
/// file system knows better (FALLOC_FL_ZERO_RANGE; also on block devices).
pub(crate) fn zero_range(file: &File, offset: u64, length: u64) -> io::Result<()> {
    let mode = libc::FALLOC_FL_ZERO_RANGE | libc::FALLOC_FL_KEEP_SIZE;
    allocate(file, mode, offset, length)
}

/// Waits until a write to a pipe or socket would not block, at most
/// `timeout_ms`; says whether it would not. A reader that is gone counts as
/// ready, the write then says so.
pub(crate) fn wait_writable(file: &File, timeout_ms: i32) -> io::Result<bool> {
    let mut poll = libc::pollfd {
        fd: file.as_raw_fd(),
        events: libc::POLLOUT,
        revents: 0,
    };
    // SAFETY: the pointer is to one pollfd that outlives the call.
    match unsafe { libc::poll(&mut poll, 1, timeout_ms) } {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Waits for the write-back that an earlier call started, drops what has
/// become clean from the page cache, and starts to write back the rest. Called
/// every few megabytes it keeps a file from filling the cache.
pub(crate) fn keep_cache_small(file: &File) -> io::Result<()> {
    let fd = file.as_raw_fd();
    let flags = libc::SYNC_FILE_RANGE_WAIT_BEFORE | libc::SYNC_FILE_RANGE_WRITE;
    // SAFETY: neither call takes a pointer; `file` keeps the descriptor open.
    unsafe {
        check(libc::sync_file_range(fd, 0, 0, flags))?;
        match libc::posix_fadvise(fd, 0, 0, libc::POSIX_FADV_DONTNEED) {
            0 => Ok(()),
            code => Err(io::Error::from_raw_os_error(code)),
        }
    }
}

/// Waits until nobody else has locked the file, and locks it until it is closed
/// (flock(2), LOCK_EX).
pub(crate) fn lock(file: &File) -> io::Result<()> {
    loop {
        // SAFETY: flock takes no pointer; `file` keeps the descriptor open.
        match check(unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX) }) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// How `file` was opened, and what was set on it since (fcntl(2), F_GETFL).
pub(crate) fn status_flags(file: &File) -> io::Result<libc::c_int> {
    // SAFETY: F_GETFL takes no pointer; `file` keeps the descriptor open.
    match unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETFL) } {
        -1 => Err(io::Error::last_os_error()),
        flags => Ok(flags),
    }
}

/// Whether an error says that the kernel or the file system does not know such a
/// call, or not with such flags: there may be another way.
pub(crate) fn is_unsupported(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EOPNOTSUPP | libc::ENOSYS | libc::EINVAL | libc::ENODEV)
    )
}

/// Bytes that the file system of `file` has free for its user (statvfs(3)). `None`
/// when it does not say how large it is, as a tmpfs without a limit.
pub(crate) fn free_space(file: &File) -> io::Result<Option<u64>> {
    let mut found = MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: fstatvfs fills the struct when it succeeds, and only then is it
    // looked at; `file` keeps the descriptor open.
    let found = unsafe {
        check(libc::fstatvfs(file.as_raw_fd(), found.as_mut_ptr()))?;
        found.assume_init()
    };
    Ok((found.f_blocks > 0).then(|| found.f_bavail.saturating_mul(found.f_frsize)))
}

/// Whether this process may write to what is there (faccessat(2), AT_EACCESS): also
/// root may not where the file system is read-only.
pub(crate) fn may_write(path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: the pointer is to a NUL-terminated string that outlives the call.
    check(unsafe { libc::faccessat(libc::AT_FDCWD, path.as_ptr(), libc::W_OK, libc::AT_EACCESS) })
}

/// Renames, failing with `AlreadyExists` where `to` is taken: the check and
/// the rename are one step (renameat2(2), RENAME_NOREPLACE).
pub(crate) fn rename_no_replace(from: &Path, to: &Path) -> io::Result<()> {
    let from = CString::new(from.as_os_str().as_bytes())?;
    let to = CString::new(to.as_os_str().as_bytes())?;
    // SAFETY: both pointers are NUL-terminated strings that outlive the call.
    check(unsafe {
        libc::renameat2(
            libc::AT_FDCWD,
            from.as_ptr(),
            libc::AT_FDCWD,
            to.as_ptr(),
            libc::RENAME_NOREPLACE,
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renaming_never_replaces() {
        let dir = tempfile::tempdir().unwrap();
        let (old, new) = (dir.path().join("old"), dir.path().join("new"));
        std::fs::write(&old, "old").unwrap();
        std::fs::write(&new, "new").unwrap();
        let error = rename_no_replace(&new, &old).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read(&old).unwrap(), b"old");
        rename_no_replace(&new, &dir.path().join("free")).unwrap();
        assert!(!new.exists());
    }

    #[test]
    fn a_reserved_range_reads_as_zero() {
        let file = tempfile::tempfile().unwrap();
        reserve(&file, 0, 10_000).unwrap();
        assert_eq!(file.metadata().unwrap().len(), 10_000);
    }
}
