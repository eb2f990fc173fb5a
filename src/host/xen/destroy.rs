// SPDX-License-Identifier: LGPL-2.1-or-later
//! Destroying a domain through libxl, which may hang.
//!
//! libxl forks a child that asks the hypervisor to kill the domain. Before that
//! the child takes locks that it has copies of (`relied_on::children_take_locks`).
//! When a thread of the parent held one at the fork, the child waits for ever, and so
//! does the caller. Threads of ours hold none of them
//! (see `control`), but those of libxl and xl may. Such a child is ended, libxl
//! then reports a failure, and the next try succeeds.
#![allow(unsafe_code)]

use std::sync::mpsc::{channel, RecvTimeoutError};
use std::time::Duration;

use super::libxl::{libxl_answer, no_thread, LibxlContext};
use super::sys;
use crate::error::panic_text;
use crate::host::HostError;
use crate::os::fd::read_text;
use crate::os::thread::{start_in, Signals};

/// The child only makes one hypercall, which takes about 40 ms for each GiB that
/// the domain still has.
const CHILD_DEADLINE: Duration = Duration::from_secs(60);
const TRIES: u32 = 3;

/// Destroys a domain and what libxl keeps of it. One that somebody else has destroyed
/// is as it should be.
pub(super) fn destroy(ctx: LibxlContext, domid: u32) -> Result<(), HostError> {
    let mut result = Ok(());
    for _ in 0..TRIES {
        result = destroy_once(ctx, domid);
        if result.is_ok() {
            break;
        }
    }
    result
}

fn destroy_once(ctx: LibxlContext, domid: u32) -> Result<(), HostError> {
    std::thread::scope(|scope| {
        let (tell, told) = channel();
        let call = move || {
            // The kernel lists children by the thread that forked them.
            // SAFETY: no arguments, cannot fail.
            tell.send(unsafe { libc::gettid() }).ok();
            // SAFETY: null `ao_how` makes it synchronous.
            let rc = unsafe { sys::libxl_domain_destroy(ctx.raw(), domid, std::ptr::null()) };
            // Dropping `tell` says that the call is over.
            drop(tell);
            rc
        };
        let call = start_in(scope, "vicover-libxl", Signals::AsTheProgram, call);
        let call = call.map_err(no_thread)?;
        if let Ok(thread) = told.recv() {
            while told.recv_timeout(CHILD_DEADLINE) == Err(RecvTimeoutError::Timeout) {
                end_children(thread);
            }
        }
        let rc = call
            .join()
            .map_err(|panic| HostError::new("libxl_domain_destroy", panic_text(&*panic)))?;
        match rc {
            sys::ERROR_DOMAIN_NOTFOUND => Ok(()),
            rc => libxl_answer("libxl_domain_destroy", rc),
        }
    })
}

/// Ends the children that a thread of ours has forked.
fn end_children(thread: libc::pid_t) {
    let list = format!("/proc/self/task/{thread}/children");
    let children = read_text(list.as_ref(), 1 << 20).unwrap_or_default();
    for child in children
        .split_whitespace()
        .filter_map(|pid| pid.parse().ok())
    {
        // SAFETY: a child that libxl has not reaped yet, so its number is its own.
        unsafe { libc::kill(child, libc::SIGKILL) };
    }
}
