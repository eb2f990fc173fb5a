// SPDX-License-Identifier: LGPL-2.1-or-later
//! Opening and closing handles of Xen's libraries.
//!
//! libxentoolcore keeps a list of all the handles of a process, under one lock. A
//! child that libxl forks takes that lock, too (`relied_on::children_take_locks`). One
//! forked while a thread of ours was in that list would wait for ever, and its hotplug
//! script would never start.

use std::ptr::NonNull;

use crate::host::HostError;
use crate::os::fd::Making;
use crate::os::fork;

/// Opens a handle: what `open` returns, null being a failure of `call`.
pub(super) fn opened<T>(
    call: &'static str,
    open: impl FnOnce() -> *mut T,
) -> Result<NonNull<T>, HostError> {
    let _no_fork =
        fork::hold().map_err(|error| HostError::new("pthread_atfork", error.to_string()))?;
    let _making =
        Making::begin().map_err(|error| HostError::new("epoll_create1", error.to_string()))?;
    NonNull::new(open()).ok_or_else(|| HostError::last_os_error(call))
}

/// Closes a handle that was opened here.
pub(super) fn closed<T>(close: impl FnOnce() -> T) {
    // It did not fail when the handle was opened, so it does not now.
    let _no_fork = fork::hold();
    close();
}
