// SPDX-License-Identifier: LGPL-2.1-or-later
//! The real host: Xen through libxl, libxenctrl and libxenforeignmemory.
//!
//! Every `unsafe` call to these libraries is in this directory. What they
//! promise, on which the SAFETY lines rest:
//! - a `libxl_ctx` may be used from any thread (`libxl.h`, "Context");
//! - a `libxenforeignmemory` handle is only a file descriptor, and may be used by
//!   several threads at once; a `libxenctrl` handle by one at a time.

use std::thread::ScopedJoinHandle;

use super::HostError;
use crate::error::panic_text;

mod attach;
mod background;
mod build;
mod claim;
mod config;
mod control;
mod destroy;
mod detach;
mod devices;
mod domain;
mod handles;
mod hotplug_lock;
mod linked;
mod recovery;
mod refusal;
mod registers;
mod standby;
mod store;
mod toolstack;

/// Generated from the headers of libxl, libxenforeignmemory and libxenstore.
#[allow(
    non_camel_case_types,
    non_snake_case,
    non_upper_case_globals,
    dead_code,
    missing_docs,
    unreachable_pub,
    unsafe_code,
    unnecessary_transmutes,
    clippy::all,
    clippy::undocumented_unsafe_blocks
)]
mod sys {
    include!(concat!(env!("OUT_DIR"), "/libraries.rs"));
}

pub use config::{CrashConfig, LibxlContext};
pub use domain::XenDomain;
pub use linked::{other_libxl, BUILT_FOR};
pub use standby::XenStandbyHost;
pub use toolstack::XenToolstack;

/// A thread that libxl was to be called in could not be started.
fn no_thread(error: std::io::Error) -> HostError {
    HostError {
        call: "pthread_create",
        errno: error.raw_os_error().unwrap_or(0),
        what: error.to_string(),
    }
}

/// What a thread came to that did `step`; its panic is a failure of that step.
fn joined<T>(
    step: &'static str,
    thread: ScopedJoinHandle<'_, Result<T, HostError>>,
) -> Result<T, HostError> {
    thread
        .join()
        .unwrap_or_else(|panic| Err(HostError::new(step, panic_text(&*panic))))
}
