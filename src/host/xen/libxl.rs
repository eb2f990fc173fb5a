// SPDX-License-Identifier: LGPL-2.1-or-later
//! What every caller of libxl needs: its context, its numbers, its answers and its
//! texts, and the threads that it is called in.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString};
use std::os::raw::c_char;
use std::ptr::NonNull;
use std::thread::ScopedJoinHandle;

use super::sys;
use crate::addr::PAGE_SIZE;
use crate::error::panic_text;
use crate::host::HostError;

/// KiB of a page: libxl counts memory in KiB.
pub(super) const KIB_PER_PAGE: u64 = (PAGE_SIZE / 1024) as u64;

/// libxl's "no domain": `~0` in C, which bindgen reads as a signed number.
pub(super) const INVALID_DOMID: u32 = sys::INVALID_DOMID as u32;

/// The caller's libxl context. The caller keeps it alive until the job is done.
#[derive(Clone, Copy)]
pub struct LibxlContext(NonNull<sys::libxl_ctx>);

// SAFETY: libxl locks its context; any thread may use it (see the folder's head).
unsafe impl Send for LibxlContext {}
// SAFETY: as above.
unsafe impl Sync for LibxlContext {}

impl LibxlContext {
    /// Takes the pointer of a C caller, who guarantees that it stays valid
    /// until the job is done; `None` when it is null.
    pub fn new<T>(ctx: *mut T) -> Option<Self> {
        NonNull::new(ctx.cast()).map(Self)
    }

    pub(super) fn raw(self) -> *mut sys::libxl_ctx {
        self.0.as_ptr()
    }
}

/// What a libxl call means by its status: zero is success.
pub(super) fn libxl_answer(call: &'static str, rc: i32) -> Result<(), HostError> {
    match rc {
        0 => Ok(()),
        _ => Err(HostError::new(
            call,
            format!("libxl status {rc} (details in the caller's log)"),
        )),
    }
}

/// A text that libxl allocated, as ours.
pub(super) fn take_text(text: *mut c_char, call: &'static str) -> Result<CString, HostError> {
    if text.is_null() {
        return Err(HostError::new(call, "no text"));
    }
    // SAFETY: libxl's texts are terminated and allocated with malloc; freed once.
    unsafe {
        let owned = CStr::from_ptr(text).to_owned();
        libc::free(text.cast());
        Ok(owned)
    }
}

/// A string of a configuration; none when it is not set or not UTF-8.
pub(super) fn text_of<'a>(text: *const c_char) -> Option<&'a str> {
    if text.is_null() {
        return None;
    }
    // SAFETY: libxl's strings are terminated, and live as long as the
    // configuration, which every caller here holds.
    unsafe { CStr::from_ptr(text) }.to_str().ok()
}

/// A thread that libxl was to be called in could not be started.
pub(super) fn no_thread(error: std::io::Error) -> HostError {
    HostError {
        call: "pthread_create",
        errno: error.raw_os_error().unwrap_or(0),
        what: error.to_string(),
    }
}

/// What a thread came to that did `step`; its panic is a failure of that step.
pub(super) fn joined<T>(
    step: &'static str,
    thread: ScopedJoinHandle<'_, Result<T, HostError>>,
) -> Result<T, HostError> {
    thread
        .join()
        .unwrap_or_else(|panic| Err(HostError::new(step, panic_text(&*panic))))
}
