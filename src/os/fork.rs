// SPDX-License-Identifier: LGPL-2.1-or-later
//! Forks of the program that loaded the library, and locks that are not ours.
//!
//! A child of a fork has one thread, and every lock as it was. One that another
//! thread held stays held in it for ever. fork(2) copies memory area by area and
//! stops whoever writes to one that it has copied, so a lock is held for as long as
//! the fork takes when its holder had only one more line to write.
#![allow(unsafe_code)]

use std::cell::UnsafeCell;
use std::io;
use std::sync::OnceLock;

/// A lock that its holder may release in a child of its process, which one of the
/// standard library does not offer.
struct Gate(UnsafeCell<libc::pthread_mutex_t>);

// SAFETY: a mutex is there to be used by several threads.
unsafe impl Sync for Gate {}

static GATE: Gate = Gate(UnsafeCell::new(libc::PTHREAD_MUTEX_INITIALIZER));

extern "C" fn close_gate() {
    // SAFETY: a static mutex that is never destroyed. It is locked in `hold` and
    // around a fork, neither of which happens inside the other: what is done under
    // `hold` does not fork.
    unsafe { libc::pthread_mutex_lock(GATE.0.get()) };
}

extern "C" fn open_gate() {
    // SAFETY: as above; locked by this thread, or, in a child, by the one of which
    // this is the copy.
    unsafe { libc::pthread_mutex_unlock(GATE.0.get()) };
}

/// No thread of this process forks while this lives, except to start a program by
/// vfork(2).
pub(crate) struct NoFork(());

impl Drop for NoFork {
    fn drop(&mut self) {
        open_gate();
    }
}

/// Makes forks wait. Whoever holds this must not fork, and be quick. An error when
/// there is no memory for the first one.
pub(crate) fn hold() -> io::Result<NoFork> {
    static REGISTERED: OnceLock<i32> = OnceLock::new();
    let failure = REGISTERED.get_or_init(|| {
        // SAFETY: three functions that live as long as the library; the C library
        // forgets them when it is unloaded.
        unsafe { libc::pthread_atfork(Some(close_gate), Some(open_gate), Some(open_gate)) }
    });
    match *failure {
        0 => {
            close_gate();
            Ok(NoFork(()))
        }
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

    /// What `look` finds in a child that ends at once. It must do no more than read
    /// memory and use the gate: other locks may be held for ever there.
    fn in_a_child(look: impl FnOnce() -> bool) -> bool {
        // SAFETY: the child only looks, and ends.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let found = look();
            // SAFETY: ends the process, whatever else is in it.
            unsafe { libc::_exit(found.into()) };
        }
        assert!(child > 0, "fork: {}", io::Error::last_os_error());
        let mut status = 0;
        // SAFETY: our own child, and room for its status.
        let ended = unsafe { libc::waitpid(child, &mut status, 0) };
        assert_eq!(ended, child);
        assert!(libc::WIFEXITED(status), "status {status:#x}");
        libc::WEXITSTATUS(status) != 0
    }

    #[test]
    fn no_child_finds_what_is_done_under_it_half_done() {
        let (half_done, over) = (AtomicBool::new(false), AtomicBool::new(false));
        let found = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(SeqCst) {
                    let _held = hold().unwrap();
                    half_done.store(true, SeqCst);
                    half_done.store(false, SeqCst);
                }
            });
            // Forks that come while nobody holds it would show nothing.
            let looks = (0..200).map(|_| in_a_child(|| half_done.load(SeqCst)));
            let found = looks.filter(|found| *found).count();
            over.store(true, SeqCst);
            found
        });
        assert_eq!(found, 0, "of 200 children");
    }

    #[test]
    fn a_child_can_hold_it_and_its_parent_still_can() {
        drop(hold().unwrap());
        assert!(in_a_child(|| hold().is_ok()));
        drop(hold().unwrap());
    }
}
