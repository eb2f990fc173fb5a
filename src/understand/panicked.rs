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
use crate::guest::oops::Oops;
use crate::host::CrashedDomain;

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
    let oops = Oops::find(&memory, &located.kernel).unwrap_or_default();
    Ok(oops.map(|oops| oops.panic_line().to_owned()))
}
