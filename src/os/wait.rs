// SPDX-License-Identifier: LGPL-2.1-or-later
//! Waiting for descriptors, and for changes in a directory.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::fd::{duplicate, Making};

/// Waits until one of `descriptors` can be read; false when `timeout_ms`, if there is
/// one, passed first. A signal ends the wait as if something could be read.
pub(crate) fn wait_readable(
    descriptors: &[BorrowedFd<'_>],
    timeout_ms: Option<i32>,
) -> io::Result<bool> {
    let waits = |fd: &BorrowedFd<'_>| libc::pollfd {
        fd: fd.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    let mut polled: Vec<libc::pollfd> = descriptors.iter().map(waits).collect();
    let count = polled.len() as libc::nfds_t;
    // SAFETY: as many entries as are said, of ours; the descriptors are borrowed.
    match unsafe { libc::poll(polled.as_mut_ptr(), count, timeout_ms.unwrap_or(-1)) } {
        0 => Ok(false),
        -1 => match io::Error::last_os_error() {
            error if error.kind() == io::ErrorKind::Interrupted => Ok(true),
            error => Err(error),
        },
        _ => Ok(true),
    }
}

/// Tells of files that come to a directory.
pub(crate) struct DirectoryWatch(OwnedFd);

impl DirectoryWatch {
    /// Watches from now on.
    pub(crate) fn of(directory: &Path) -> io::Result<Self> {
        let path = CString::new(directory.as_os_str().as_bytes())?;
        let _making = Making::begin()?;
        // SAFETY: what is returned is a new descriptor that nobody else has.
        let watch = unsafe {
            match libc::inotify_init1(libc::IN_CLOEXEC | libc::IN_NONBLOCK) {
                -1 => return Err(io::Error::last_os_error()),
                fd => OwnedFd::from_raw_fd(fd),
            }
        };
        let watch = OwnedFd::from(duplicate(watch.as_raw_fd())?);
        let events = libc::IN_CREATE | libc::IN_MOVED_TO;
        // SAFETY: a terminated path that outlives the call.
        match unsafe { libc::inotify_add_watch(watch.as_raw_fd(), path.as_ptr(), events) } {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(Self(watch)),
        }
    }

    /// Forgets what has been told.
    pub(crate) fn drain(&self) {
        let mut events = [0u8; 4096];
        loop {
            // SAFETY: a buffer of ours with its length.
            let read =
                unsafe { libc::read(self.0.as_raw_fd(), events.as_mut_ptr().cast(), events.len()) };
            if read <= 0 {
                return;
            }
        }
    }
}

impl AsFd for DirectoryWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watched_directory_tells_of_new_files() {
        let directory = tempfile::tempdir().unwrap();
        let watch = DirectoryWatch::of(directory.path()).unwrap();
        assert!(!wait_readable(&[watch.as_fd()], Some(0)).unwrap());
        std::fs::write(directory.path().join("new"), "text").unwrap();
        assert!(wait_readable(&[watch.as_fd()], Some(60_000)).unwrap());
        watch.drain();
        assert!(!wait_readable(&[watch.as_fd()], Some(0)).unwrap());
    }
}
