// SPDX-License-Identifier: LGPL-2.1-or-later
//! A domain's memory: mapping, scrubbing and releasing its frames.
#![allow(unsafe_code)]

use std::ptr::NonNull;
use std::sync::Arc;

use xenctrl_sys as xc;

use super::claim::{claim_above_total, Claimed};
use super::config::CrashConfig;
use super::control::{failed, Control};
use super::handles::{closed, opened};
use super::kind::Kind;
use super::sys;
use crate::addr::{Gfn, GfnRange, PAGE_SIZE};
use crate::host::{Access, CrashedDomain, HostError, Mapping, Pausable, VcpuState};

/// Most frames that one hypercall gives back, so that a refused frame costs
/// little to find.
const RELEASE_BATCH: usize = 512;

struct ForeignMemory(NonNull<sys::xenforeignmemory_handle>);

// SAFETY: only a file descriptor (see the module's head).
unsafe impl Send for ForeignMemory {}
// SAFETY: as above.
unsafe impl Sync for ForeignMemory {}

impl Drop for ForeignMemory {
    fn drop(&mut self) {
        // SAFETY: opened by us; mappings hold an `Arc` of this, so none is left.
        closed(|| unsafe { sys::xenforeignmemory_close(self.0.as_ptr()) });
    }
}

/// A domain as the hypervisor shows it.
pub struct XenDomain {
    domid: u32,
    kind: Kind,
    ram: Vec<GfnRange>,
    control: Control,
    foreign: Arc<ForeignMemory>,
}

impl XenDomain {
    /// Opens a domain that has crashed. Called after xl has become a daemon.
    ///
    /// A recovery domain that crashed before it had all its memory gets the rest
    /// first, when the host has it.
    pub fn open_crashed(domid: u32, config: &CrashConfig) -> Result<Self, HostError> {
        let control = Control::open()?;
        if control.domain_info(domid)?.flags & xc::XEN_DOMINF_shutdown == 0 {
            return Err(HostError::new(
                "xc_domain_getinfolist",
                format!("domain {domid} has not shut down"),
            ));
        }
        config.kind()?.make_whole(&control, domid)?;
        Self::open(domid, config)
    }

    /// Opens handles of our own on a domain that may be running.
    ///
    /// A domain whose frames cannot be mapped without harm is refused.
    pub fn open(domid: u32, config: &CrashConfig) -> Result<Self, HostError> {
        let control = Control::open()?;
        control.domain_info(domid)?;
        let kind = config.kind()?;
        kind.check_mappable(&control, domid)?;
        // SAFETY: a null logger is allowed (xenforeignmemory.h).
        let open = || unsafe { sys::xenforeignmemory_open(std::ptr::null_mut(), 0) };
        let foreign = opened("xenforeignmemory_open", open)?;
        Ok(Self {
            domid,
            kind,
            ram: kind.ram(config.asked()?),
            control,
            foreign: Arc::new(ForeignMemory(foreign)),
        })
    }
}

impl CrashedDomain for XenDomain {
    fn ram(&self) -> &[GfnRange] {
        &self.ram
    }

    fn vcpus(&self) -> Result<Vec<VcpuState>, HostError> {
        self.kind.vcpus(&self.control, self.domid)
    }

    fn map(&self, frames: GfnRange, access: Access) -> Result<Box<dyn Mapping>, HostError> {
        let names: Vec<sys::xen_pfn_t> = frames.iter().map(|gfn| gfn.0).collect();
        let mut errors = vec![0; names.len()];
        let protection = match access {
            Access::Read => libc::PROT_READ,
            Access::Scrub => libc::PROT_READ | libc::PROT_WRITE,
        };
        // SAFETY: both arrays hold as many elements as we say. With an error
        // array, frames that cannot be mapped fail one by one.
        let start = unsafe {
            sys::xenforeignmemory_map(
                self.foreign.0.as_ptr(),
                self.domid,
                protection,
                names.len(),
                names.as_ptr(),
                errors.as_mut_ptr(),
            )
        };
        let start = NonNull::new(start.cast()).ok_or_else(|| failed("xenforeignmemory_map"))?;
        Ok(Box::new(ForeignMapping {
            foreign: self.foreign.clone(),
            start,
            failure: failure(&errors),
            present: errors.iter().map(|error| *error == 0).collect(),
            writable: access == Access::Scrub,
        }))
    }

    fn release(&self, frames: &[Gfn]) -> Result<u64, HostError> {
        let mut accepted = 0;
        for batch in frames.chunks(RELEASE_BATCH) {
            let mut rest = batch;
            while !rest.is_empty() {
                let done = self.control.decrease_reservation(self.domid, rest);
                accepted += done as u64;
                // Xen stops at the first frame it refuses, a hole for example:
                // go on behind it.
                rest = rest.get(done + 1..).unwrap_or(&[]);
            }
        }
        Ok(accepted)
    }

    fn claim(&self, pages: u64) -> Result<(), HostError> {
        claim_above_total(self, pages)
    }

    fn pages(&self) -> Result<u64, HostError> {
        self.total_pages()
    }

    fn check(&self) -> Result<(), HostError> {
        // The clearer answer when there is no domain.
        self.control.domain_info(self.domid)?;
        let refused = self.kind.check_not_dying(&self.control, self.domid);
        refused.map_err(|error| HostError {
            what: format!("domain {} is being destroyed", self.domid),
            ..error
        })
    }
}

impl Claimed for XenDomain {
    /// A mapped page: Xen frees it when it is unmapped, and the domain after it.
    type Pin = Box<dyn Mapping>;

    fn total_pages(&self) -> Result<u64, HostError> {
        self.control
            .domain_info(self.domid)
            .map(|info| info.tot_pages)
    }

    /// A page that we never release.
    fn pin(&self) -> Result<Self::Pin, HostError> {
        let frame = self.kind.kept_frame(&self.control, self.domid)?;
        let page = self.map(
            GfnRange::new(frame, Gfn(frame.0.saturating_add(1))),
            Access::Read,
        )?;
        if !page.is_present(0) {
            return Err(HostError::new(
                "xenforeignmemory_map",
                format!("frame {frame} of domain {} is not there", self.domid),
            ));
        }
        Ok(page)
    }

    fn set_claim(&self, pages: u64) -> Result<(), HostError> {
        self.control.set_claim(self.domid, pages)
    }

    /// In doubt the domain is dying: memory that is not claimed is only not protected.
    fn is_dying(&self) -> bool {
        self.kind
            .check_not_dying(&self.control, self.domid)
            .is_err()
    }
}

/// Why frames that a domain may have could not be mapped, from the errors of each:
/// that there is no such frame (EINVAL), or that it is paged out (ENOENT), is no
/// failure (`relied_on::mapping_errors`).
fn failure(errors: &[libc::c_int]) -> Option<HostError> {
    let failed = |error: &&libc::c_int| !matches!(-**error, 0 | libc::EINVAL | libc::ENOENT);
    let first = -*errors.iter().find(failed)?;
    let count = errors.iter().filter(failed).count();
    let text = std::io::Error::from_raw_os_error(first);
    Some(HostError {
        call: "xenforeignmemory_map",
        what: format!("{count} of {} pages: {text}", errors.len()),
        errno: first,
    })
}

/// An administrator's pause outlasts ours, and ours theirs
/// (`relied_on::pauses_are_counted`).
impl Pausable for XenDomain {
    fn pause(&self) -> Result<(), HostError> {
        self.control.pause(self.domid)
    }

    fn unpause(&self) -> Result<(), HostError> {
        self.control.unpause(self.domid)
    }
}

/// Frames of the domain in our address space.
struct ForeignMapping {
    foreign: Arc<ForeignMemory>,
    start: NonNull<u8>,
    present: Vec<bool>,
    failure: Option<HostError>,
    writable: bool,
}

// SAFETY: the mapping is ours until it is dropped, and is only touched through
// raw copies that tolerate any content.
unsafe impl Send for ForeignMapping {}
// SAFETY: concurrent raw copies out of it are fine; scrubbing a frame while
// another thread copies it would only garble that copy, and the drain scrubs a
// frame only after it has been saved.
unsafe impl Sync for ForeignMapping {}

impl ForeignMapping {
    fn frame(&self, index: usize) -> Option<*mut u8> {
        self.is_present(index).then(|| {
            // SAFETY: `index` is below the number of frames mapped at `start`.
            unsafe { self.start.as_ptr().add(index * PAGE_SIZE) }
        })
    }
}

impl Mapping for ForeignMapping {
    fn len(&self) -> usize {
        self.present.len()
    }

    fn is_present(&self, index: usize) -> bool {
        self.present.get(index) == Some(&true)
    }

    fn failure(&self) -> Option<HostError> {
        self.failure.clone()
    }

    fn read(&self, index: usize, offset: usize, into: &mut [u8]) -> bool {
        let fits = offset
            .checked_add(into.len())
            .is_some_and(|end| end <= PAGE_SIZE);
        let Some(frame) = self.frame(index).filter(|_| fits) else {
            return false;
        };
        // SAFETY: the frame is mapped (a frame that failed to map would raise
        // SIGBUS) and the range lies inside it; source and target are distinct
        // memory. No reference to guest memory is made.
        unsafe { std::ptr::copy_nonoverlapping(frame.add(offset), into.as_mut_ptr(), into.len()) };
        true
    }

    fn scrub(&self, index: usize) {
        if let Some(frame) = self.frame(index).filter(|_| self.writable) {
            // SAFETY: mapped writable, one whole frame. `write_bytes` may be
            // elided only if the memory were dead, which the unmapping call
            // that takes the pointer prevents.
            unsafe { std::ptr::write_bytes(frame, 0, PAGE_SIZE) };
        }
    }
}

impl Drop for ForeignMapping {
    fn drop(&mut self) {
        // SAFETY: mapped by us with this length, unmapped once.
        unsafe {
            sys::xenforeignmemory_unmap(
                self.foreign.0.as_ptr(),
                self.start.as_ptr().cast(),
                self.present.len(),
            )
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hole_is_no_failure_and_anything_else_is() {
        let error = |errors: &[i32]| failure(errors).map(|error| error.to_string());
        assert_eq!(error(&[0, -libc::EINVAL, -libc::ENOENT]), None);
        let text = error(&[0, -libc::EINVAL, -libc::ENOMEM, -libc::ENOMEM]).unwrap();
        assert!(text.starts_with("xenforeignmemory_map: 2 of 4 pages: Cannot allocate"));
    }
}
