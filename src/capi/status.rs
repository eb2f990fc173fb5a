// SPDX-License-Identifier: LGPL-2.1-or-later
//! Status codes and the text behind them.

use std::cell::RefCell;
use std::ffi::CString;
use std::panic::{catch_unwind, AssertUnwindSafe};

use super::abi;
use crate::error::{panic_text, Error, ErrorKind};

/// What a call answers when it fails.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    pub(super) status: abi::vicover_status,
    pub(super) text: String,
}

impl Failure {
    pub(super) fn new(status: i32, text: impl Into<String>) -> Self {
        Self {
            status,
            text: text.into(),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::new(status_of(&error), error.chain())
    }
}

/// The code for an error.
pub(super) fn status_of(error: &Error) -> abi::vicover_status {
    match error.kind() {
        ErrorKind::Option => abi::VICOVER_ERR_OPTION,
        ErrorKind::Io => abi::VICOVER_ERR_IO,
        ErrorKind::Host => abi::VICOVER_ERR_HOST,
        ErrorKind::Cancelled => abi::VICOVER_ERR_CANCELLED,
        ErrorKind::Unsupported => abi::VICOVER_ERR_UNSUPPORTED,
        ErrorKind::Busy => abi::VICOVER_ERR_BUSY,
        ErrorKind::NotCrashed => abi::VICOVER_ERR_NOT_CRASHED,
        ErrorKind::Internal => abi::VICOVER_ERR_INTERNAL,
    }
}

thread_local! {
    static LAST: RefCell<CString> = RefCell::new(CString::default());
}

/// One line for people: control characters, which text of a caller or a guest may
/// have, are written as Rust writes them, NUL among them.
pub(super) fn printable(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    for character in text.chars() {
        match character.is_control() {
            true => clean.extend(character.escape_default()),
            false => clean.push(character),
        }
    }
    clean
}

/// One line for people, for C: see [`printable`].
pub(super) fn line(text: &str) -> CString {
    CString::new(printable(text)).unwrap_or_default()
}

fn remember(text: &str) {
    let text = line(text);
    // During a thread's end its locals may be gone; then nobody can ask either.
    let _ = LAST.try_with(|last| *last.borrow_mut() = text);
}

/// The text of this thread's last failure. The pointer is good until the next
/// call on the thread.
pub(super) fn last_error() -> *const std::os::raw::c_char {
    LAST.try_with(|last| last.borrow().as_ptr())
        .unwrap_or(c"".as_ptr())
}

/// Runs the body of an export: no panic gets out, and a failure leaves its text.
pub(super) fn answer(body: impl FnOnce() -> Result<(), Failure>) -> abi::vicover_status {
    let result = catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|panic| {
        Err(Failure::new(
            abi::VICOVER_ERR_INTERNAL,
            format!("internal error: {}", panic_text(&*panic)),
        ))
    });
    match result {
        Ok(()) => abi::VICOVER_OK as abi::vicover_status,
        Err(failure) => {
            remember(&failure.text);
            failure.status
        }
    }
}
