// SPDX-License-Identifier: LGPL-2.1-or-later
//! I/O priority of single threads (ioprio_set(2)).
#![allow(unsafe_code)]

use std::io;

/// From Linux 6.1, `include/uapi/linux/ioprio.h`.
const WHO_PROCESS: libc::c_long = 1;
const CLASS_SHIFT: u32 = 13;
const CLASS_BEST_EFFORT: libc::c_long = 2;
/// The last in its class; a class below it might never get its turn.
const LEVEL_LAST: libc::c_long = 7;
/// As the thread's niceness says: what a thread begins with.
const NONE: libc::c_long = 0;

/// Lets others on the same disk go before the calling thread, or no more. Only
/// some of the kernel's schedulers (BFQ, mq-deadline) can tell.
pub(crate) fn yield_disk(yields: bool) -> io::Result<()> {
    let priority = match yields {
        true => CLASS_BEST_EFFORT << CLASS_SHIFT | LEVEL_LAST,
        false => NONE,
    };
    // SAFETY: ioprio_set takes no pointer; 0 stands for the calling thread.
    match unsafe { libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, 0, priority) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// ioprio_get(2) of the calling thread.
    fn priority() -> libc::c_long {
        // SAFETY: ioprio_get takes no pointer; 0 stands for the calling thread.
        unsafe { libc::syscall(libc::SYS_ioprio_get, WHO_PROCESS, 0) }
    }

    #[test]
    fn a_thread_yields_and_takes_it_back() {
        let before = priority();
        yield_disk(true).unwrap();
        assert_eq!(priority(), 2 << 13 | 7);
        yield_disk(false).unwrap();
        assert_eq!(priority(), before);
    }
}
