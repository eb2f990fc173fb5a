// SPDX-License-Identifier: LGPL-2.1-or-later
//! xenstore: a few reads and writes over a connection of our own.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString};
use std::ptr::NonNull;

use super::control::failed;
use super::handles::{closed, opened};
use super::sys;
use crate::host::HostError;

/// A connection to xenstore.
pub(super) struct Store(NonNull<sys::xs_handle>);

// SAFETY: libxenstore locks its handle (xenstore.h); we use it from one thread
// at a time anyway.
unsafe impl Send for Store {}

const NO_TRANSACTION: sys::xs_transaction_t = 0;

fn c_path(path: &str) -> Result<CString, HostError> {
    CString::new(path).map_err(|_| HostError::new("xenstore", format!("NUL in path {path:?}")))
}

impl Store {
    pub(super) fn open() -> Result<Self, HostError> {
        // SAFETY: no arguments but flags.
        opened("xs_open", || unsafe { sys::xs_open(0) }).map(Self)
    }

    /// The value of a node; none when there is no such node.
    pub(super) fn read(&self, path: &str) -> Result<Option<String>, HostError> {
        let path = c_path(path)?;
        let mut length = 0;
        // SAFETY: a terminated path and an out length; the answer is a malloc'ed
        // buffer of that length.
        let value =
            unsafe { sys::xs_read(self.0.as_ptr(), NO_TRANSACTION, path.as_ptr(), &mut length) };
        let Some(value) = NonNull::new(value.cast::<u8>()) else {
            return Ok(None);
        };
        // SAFETY: as above.
        let text = unsafe { std::slice::from_raw_parts(value.as_ptr(), length as usize) };
        let text = String::from_utf8_lossy(text).into_owned();
        // SAFETY: allocated by libxenstore with malloc, freed once.
        unsafe { libc::free(value.as_ptr().cast()) };
        Ok(Some(text))
    }

    /// The names of the nodes below one; none when there is no such node.
    pub(super) fn list(&self, path: &str) -> Result<Vec<String>, HostError> {
        let path = c_path(path)?;
        let mut count = 0;
        // SAFETY: a terminated path and an out count; the answer is one malloc'ed
        // block that starts with so many pointers to terminated texts in it.
        unsafe {
            let names =
                sys::xs_directory(self.0.as_ptr(), NO_TRANSACTION, path.as_ptr(), &mut count);
            if names.is_null() {
                return Ok(Vec::new());
            }
            let list = std::slice::from_raw_parts(names, count as usize)
                .iter()
                .map(|name| CStr::from_ptr(*name).to_string_lossy().into_owned())
                .collect();
            libc::free(names.cast());
            Ok(list)
        }
    }

    pub(super) fn write(&self, path: &str, value: &str) -> Result<(), HostError> {
        let path = c_path(path)?;
        // SAFETY: a terminated path and a buffer of the given length.
        let written = unsafe {
            sys::xs_write(
                self.0.as_ptr(),
                NO_TRANSACTION,
                path.as_ptr(),
                value.as_ptr().cast(),
                value.len() as _,
            )
        };
        written.then_some(()).ok_or_else(|| failed("xs_write"))
    }

    /// Removes a node and what is below it; it may be absent.
    pub(super) fn remove(&self, path: &str) -> Result<(), HostError> {
        let path = c_path(path)?;
        // SAFETY: a terminated path.
        let removed = unsafe { sys::xs_rm(self.0.as_ptr(), NO_TRANSACTION, path.as_ptr()) };
        let absent = std::io::Error::last_os_error().raw_os_error() == Some(libc::ENOENT);
        (removed || absent)
            .then_some(())
            .ok_or_else(|| failed("xs_rm"))
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // SAFETY: opened by us, closed once.
        closed(|| unsafe { sys::xs_close(self.0.as_ptr()) });
    }
}
