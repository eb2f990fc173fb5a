// SPDX-License-Identifier: LGPL-2.1-or-later
//! Processors that may be used, and their time that single threads have used.
#![allow(unsafe_code)]

use std::time::Duration;

use super::fd::Making;

/// How many processors the process may use; one where the system does not say.
#[allow(clippy::disallowed_methods)] // here no descriptor gets a standard stream's number
pub(crate) fn usable() -> usize {
    // It reads files that limit a control group.
    let Ok(_making) = Making::begin() else {
        return 1;
    };
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// What the calling thread has used so far (clock_gettime(2),
/// `CLOCK_THREAD_CPUTIME_ID`); zero where the kernel does not say.
pub(crate) fn used_by_this_thread() -> Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: clock_gettime writes one timespec to a place of ours that is one.
    if unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) } != 0 {
        return Duration::ZERO;
    }
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u32::try_from(time.tv_nsec).unwrap_or(0);
    Duration::new(seconds, nanos)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn work_counts_and_what_other_threads_do_does_not() {
        let (began, since) = (used_by_this_thread(), Instant::now());
        while used_by_this_thread() == began {
            assert!(since.elapsed() < Duration::from_secs(20), "it stands still");
        }
        let before = used_by_this_thread();
        let other = std::thread::spawn(|| {
            let began = used_by_this_thread();
            while used_by_this_thread() - began < Duration::from_millis(200) {}
        });
        other.join().unwrap();
        assert!(used_by_this_thread() - before < Duration::from_millis(150));
    }
}
