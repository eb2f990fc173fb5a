// SPDX-License-Identifier: LGPL-2.1-or-later
//! The QEMU that libxl starts beside a domain: for the disks that it serves, and beside
//! every HVM guest.
//!
//! Of a domain that has shut down libxl takes a disk of QEMU's without a word to it
//! (`relied_on::qemu_is_not_asked`), and QEMU locks no image
//! (`relied_on::qemu_locks_nothing`). So its end, and nothing else, shows that it writes
//! no more: asked to end, it writes out what it holds. An HVM guest's maps its memory,
//! too, of which Xen gets nothing back before that.

use std::cell::RefCell;

use super::bus::Trace;
use super::store::Store;
use crate::host::HostError;
use crate::os::process::Living;

/// The QEMU of a domain.
pub(super) struct DeviceModel {
    label: String,
    /// None when it has ended.
    living: Option<Living>,
}

impl DeviceModel {
    /// The one that libxl has noted for a domain; none when no QEMU was started.
    ///
    /// # Errors
    /// When what is noted is no process's number, or the process cannot be looked at:
    /// then nobody can tell whether it has ended.
    pub(super) fn of(store: &Store, domid: u32) -> Result<Option<Self>, HostError> {
        let node = format!("/local/domain/{domid}/image/device-model-pid");
        let Some(noted) = store.read(&node)? else {
            return Ok(None);
        };
        let failed = |what: String| HostError::new("device model", what);
        let pid = noted.parse().ok().filter(|pid| *pid > 0);
        let pid = pid.ok_or_else(|| failed(format!("{node} is {noted:?}: not a process")))?;
        let living = Self::living(pid, domid)
            .map_err(|error| failed(format!("process {pid} of {node}: {error}")))?;
        Ok(Some(Self {
            label: format!("QEMU of domain {domid} (process {pid})"),
            living,
        }))
    }

    /// The one that a domain cannot be without.
    ///
    /// # Errors
    /// As for [`DeviceModel::of`], and when none is noted.
    pub(super) fn required(store: &Store, domid: u32) -> Result<Self, HostError> {
        Self::of(store, domid)?.ok_or_else(|| {
            let what = format!("nobody has noted which QEMU runs beside domain {domid}");
            HostError::new("device model", what)
        })
    }

    /// The process with this number, if it is the domain's QEMU: a number is given to
    /// others once its process has ended.
    fn living(pid: i32, domid: u32) -> std::io::Result<Option<Living>> {
        let Some(living) = Living::numbered(pid)? else {
            return Ok(None);
        };
        match living.arguments() {
            Ok(words) => Ok(is_of(&words, domid).then_some(living)),
            Err(_) if living.has_ended()? => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Asks it to end, which takes as long as what it has to write. What comes back
    /// tells when it has.
    pub(super) fn end(self) -> Result<Trace, HostError> {
        let Self { label, living } = self;
        if let Some(living) = &living {
            let asked = living.ask_to_end();
            asked.map_err(|error| {
                HostError::new("pidfd_send_signal", format!("{label}: {error}"))
            })?;
        }
        let living = RefCell::new(living);
        let left = move || {
            let mut living = living.borrow_mut();
            match living.as_ref()?.has_ended() {
                Ok(true) => {
                    *living = None;
                    None
                }
                Ok(false) => Some("it has been asked to end, and still runs".into()),
                Err(error) => Some(format!("whether it runs cannot be told: {error}")),
            }
        };
        Ok(Trace {
            label,
            left: Box::new(left),
        })
    }
}

/// Whether a process that was started with these words is a domain's QEMU.
fn is_of(words: &[String], domid: u32) -> bool {
    let domid = domid.to_string();
    words
        .windows(2)
        .any(|pair| pair[0] == "-xen-domid" && pair[1] == domid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_got_the_number_later_is_not_taken_for_it() {
        let words = |text: &str| text.split(' ').map(String::from).collect::<Vec<_>>();
        let qemu = words("qemu-system-i386 -xen-domid 7 -M xenpv");
        assert!(is_of(&qemu, 7));
        assert!(!is_of(&qemu, 77));
        assert!(!is_of(&words("qemu-system-i386 -M xenpv -xen-domid"), 7));
        assert!(!is_of(&words("cat 7"), 7));
    }
}
