// SPDX-License-Identifier: LGPL-2.1-or-later
//! Signals and this library's own threads.
#![allow(unsafe_code)]

use std::mem::MaybeUninit;

/// Keeps every signal away from the calling thread, for its whole life: they
/// go to the threads of the program that loaded the library, whose handlers
/// they are for. A pipe whose reader is gone then gives an error, not SIGPIPE.
pub(crate) fn block_all_in_this_thread() {
    let mut all = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigfillset fills the set that pthread_sigmask then reads; the
    // old mask is not asked for. Neither can fail with these arguments.
    unsafe {
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_BLOCK, all.as_ptr(), std::ptr::null_mut());
    }
}
