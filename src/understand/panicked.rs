// SPDX-License-Identifier: LGPL-2.1-or-later
//! Whether a domain that has asked for a restart had panicked.
//!
//! Linux of an HVM guest resets the machine after a panic, unless it is started with
//! `xen_legacy_crash`; for Xen that is a restart like any other. Its log tells them apart.

use std::time::Instant;

use super::look::{processors, SEARCH};
use super::mapped::MappedMemory;
use crate::error::Error;
use crate::guest::limits::Limits;
use crate::guest::locate::locate;
use crate::guest::log::{Log, Record};
use crate::host::CrashedDomain;

/// How a panic's first line begins (`kernel/panic.c`, `vpanic`).
const PANIC: &str = "Kernel panic - not syncing";
/// Bytes of the log that are looked at from its end: what a panic prints after that line,
/// stacks of other processors included.
const LOG_BYTES: usize = 64 << 10;

/// The line with which the kernel of `domain` has panicked; none when it has not, or when
/// its kernel or log are not found.
///
/// # Errors
/// When the host refuses the processors' registers.
pub(crate) fn panic_line(domain: &dyn CrashedDomain) -> Result<Option<String>, Error> {
    let vcpus = domain.vcpus().map_err(Error::host("reading registers"))?;
    let memory = MappedMemory::new(domain);
    let since = Instant::now();
    let limits = Limits {
        give_up: &|| false,
        end_search: &|| since.elapsed() > SEARCH,
    };
    let Ok(located) = locate(&memory, &processors(&vcpus), &limits) else {
        return Ok(None);
    };
    let log = Log::find(&memory, &located.kernel);
    let end = log.map_or_else(|_| Vec::new(), |log| log.tail(&memory, LOG_BYTES));
    Ok(line_in(&end))
}

fn line_in(log: &[Record]) -> Option<String> {
    let mut lines = log.iter().flat_map(|record| record.text.lines());
    lines.rfind(|line| line.starts_with(PANIC)).map(Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(texts: &[&str]) -> Option<String> {
        let record = |text: &&str| Record {
            time_ns: 0,
            text: (*text).into(),
        };
        line_in(&texts.iter().map(record).collect::<Vec<_>>())
    }

    #[test]
    fn a_panic_is_a_line_that_begins_as_the_kernels_does() {
        let line = "Kernel panic - not syncing: sysrq triggered crash";
        assert_eq!(
            found(&[
                "sysrq: Trigger a crash",
                line,
                "CPU: 0 PID: 1",
                "Rebooting in 1 seconds.."
            ]),
            Some(line.into())
        );
        assert_eq!(found(&["reboot: Restarting system"]), None);
        let told = "systemd[1]: Kernel panic - not syncing: said by a program";
        assert_eq!(found(&[told]), None);
    }
}
