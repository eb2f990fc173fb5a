//! A handle on the hypervisor's control interface, and the few calls we make.
#![allow(unsafe_code)]

use std::ptr::NonNull;

use xenctrl_sys as xc;

use crate::addr::{Gfn, PAGE_SIZE};
use crate::host::{Backing, HostError};

/// An open `xc_interface`.
pub(super) struct Control(NonNull<xc::xc_interface>);

// SAFETY: libxenctrl guarantees that a handle may be used from any thread (see
// the module's head); we never read the per-handle last error.
unsafe impl Send for Control {}
// SAFETY: as above; its buffer cache is locked inside libxencall.
unsafe impl Sync for Control {}

pub(super) fn failed(call: &'static str) -> HostError {
    HostError::last_os_error(call)
}

/// What a call means by its status: zero is success, anything else is in errno.
fn answer(rc: i32, call: &'static str) -> Result<(), HostError> {
    if rc == 0 {
        Ok(())
    } else {
        Err(failed(call))
    }
}

impl Control {
    pub(super) fn open() -> Result<Self, HostError> {
        // SAFETY: null loggers are allowed (xenctrl.h): messages are dropped.
        let handle =
            unsafe { xc::xc_interface_open(std::ptr::null_mut(), std::ptr::null_mut(), 0) };
        NonNull::new(handle)
            .map(Self)
            .ok_or_else(|| failed("xc_interface_open"))
    }

    pub(super) fn raw(&self) -> *mut xc::xc_interface {
        self.0.as_ptr()
    }

    /// The hypervisor's record of a domain.
    pub(super) fn domain_info(&self, domid: u32) -> Result<xc::xc_domaininfo_t, HostError> {
        let mut info = xc::xc_domaininfo_t::default();
        // SAFETY: one element of room is passed and there.
        let count = unsafe { xc::xc_domain_getinfolist(self.raw(), domid, 1, &mut info) };
        match count {
            1 if u32::from(info.domain) == domid => Ok(info),
            0 | 1 => Err(HostError::new(
                "xc_domain_getinfolist",
                format!("there is no domain {domid}"),
            )),
            _ => Err(failed("xc_domain_getinfolist")),
        }
    }

    /// Pages that no domain has.
    pub(super) fn free_pages(&self) -> Result<u64, HostError> {
        let mut info = xc::xc_physinfo_t::default();
        // SAFETY: an out structure of ours.
        let rc = unsafe { xc::xc_physinfo(self.raw(), &mut info) };
        answer(rc, "xc_physinfo").map(|()| info.free_pages)
    }

    /// Takes `pages` from a domain's paging pool back to the host.
    pub(super) fn shrink_paging_pool(&self, domid: u32, pages: u64) -> Result<(), HostError> {
        let mut bytes = 0;
        // SAFETY: an out number of ours.
        let rc = unsafe { xc::xc_get_paging_mempool_size(self.raw(), domid, &mut bytes) };
        answer(rc, "xc_get_paging_mempool_size")?;
        let less = pages.saturating_mul(PAGE_SIZE as u64);
        let Some(rest) = bytes
            .checked_sub(less)
            .filter(|rest| *rest >= bytes / 4 * 3)
        else {
            return Err(HostError::new(
                "xc_set_paging_mempool_size",
                format!("{pages} pages are more than a quarter of the pool"),
            ));
        };
        // SAFETY: numbers only.
        let rc = unsafe { xc::xc_set_paging_mempool_size(self.raw(), domid, rest) };
        answer(rc, "xc_set_paging_mempool_size")
    }

    /// Gives single frames back; returns how many from the start were taken.
    pub(super) fn decrease_reservation(&self, domid: u32, frames: &[Gfn]) -> usize {
        let mut extents: Vec<xc::xen_pfn_t> = frames.iter().map(|gfn| gfn.0).collect();
        // SAFETY: the array holds as many extents as we say, and is ours.
        let done = unsafe {
            xc::xc_domain_decrease_reservation(
                self.raw(),
                domid,
                extents.len() as _,
                0,
                extents.as_mut_ptr(),
            )
        };
        usize::try_from(done).unwrap_or(0).min(frames.len())
    }

    pub(super) fn backing(&self, domid: u32) -> Result<Backing, HostError> {
        let mut backing = Backing::default();
        // SAFETY: three out pointers to integers of ours.
        let rc = unsafe {
            xc::xc_domain_get_pod_target(
                self.raw(),
                domid,
                &mut backing.total,
                &mut backing.cache,
                &mut backing.outstanding,
            )
        };
        answer(rc, "xc_domain_get_pod_target").map(|()| backing)
    }

    pub(super) fn set_backing(&self, domid: u32, pages: u64) -> Result<Backing, HostError> {
        let mut backing = Backing::default();
        // SAFETY: three out pointers to integers of ours.
        let rc = unsafe {
            xc::xc_domain_set_pod_target(
                self.raw(),
                domid,
                pages,
                &mut backing.total,
                &mut backing.cache,
                &mut backing.outstanding,
            )
        };
        answer(rc, "xc_domain_set_pod_target").map(|()| backing)
    }

    pub(super) fn set_max_memory(&self, domid: u32, kib: u64) -> Result<(), HostError> {
        // SAFETY: numbers only.
        let rc = unsafe { xc::xc_domain_setmaxmem(self.raw(), domid, kib) };
        answer(rc, "xc_domain_setmaxmem")
    }

    pub(super) fn pause(&self, domid: u32) -> Result<(), HostError> {
        // SAFETY: numbers only.
        let rc = unsafe { xc::xc_domain_pause(self.raw(), domid) };
        answer(rc, "xc_domain_pause")
    }

    pub(super) fn unpause(&self, domid: u32) -> Result<(), HostError> {
        // SAFETY: numbers only.
        let rc = unsafe { xc::xc_domain_unpause(self.raw(), domid) };
        answer(rc, "xc_domain_unpause")
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        // SAFETY: opened by us, and nobody can use it after this.
        unsafe { xc::xc_interface_close(self.raw()) };
    }
}
