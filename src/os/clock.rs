// SPDX-License-Identifier: LGPL-2.1-or-later
//! The time since the machine was started: the same for every process, and set by nobody.
#![allow(unsafe_code)]

use std::mem::MaybeUninit;
use std::time::Duration;

/// The time since the machine was started (clock_gettime(2), CLOCK_BOOTTIME). Unlike the
/// time of day it never jumps, and it goes on while the machine is suspended.
pub(crate) fn since_boot() -> Duration {
    let mut now = MaybeUninit::<libc::timespec>::zeroed();
    // SAFETY: the pointer is to a timespec that outlives the call; zeroes are one, too,
    // should the clock, which Linux has since 2.6.39, not be there.
    let now = unsafe {
        libc::clock_gettime(libc::CLOCK_BOOTTIME, now.as_mut_ptr());
        now.assume_init()
    };
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(now.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_goes_on_and_is_the_machine_s() {
        let before = since_boot();
        let uptime = std::fs::read_to_string("/proc/uptime").unwrap();
        let seconds: f64 = uptime.split(' ').next().unwrap().parse().unwrap();
        let after = since_boot();
        assert!(before <= after);
        // It is told in hundredths of a second.
        let slack = Duration::from_millis(20);
        let told = Duration::from_secs_f64(seconds);
        assert!(before < told + slack && told < after + slack, "{told:?}");
    }
}
