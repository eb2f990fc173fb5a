// SPDX-License-Identifier: LGPL-2.1-or-later
//! A handle on the hypervisor's control interface, and the few calls we make.
//!
//! libxl forks (it destroys domains in children), and a child finds every lock as
//! it was. libxencall keeps one for its buffers, common to all ordinary handles:
//! a child forked while a thread of ours held it would wait for it for ever, and
//! libxl for the child. So our handles are opened without that lock, and have one
//! of their own that no child needs.
#![allow(unsafe_code)]

use std::ptr::NonNull;
use std::sync::{Mutex, MutexGuard};

use xenctrl_sys as xc;

use super::foreign::FrameName;
use super::handles::{closed, opened};
use crate::addr::{Gfn, Mfn, PAGE_SIZE};
use crate::host::{Backing, HostError};

unsafe extern "C" {
    /// libxenctrl has it for Xen's own libraries, and no public header declares it
    /// (`tools/libs/ctrl/xc_private.h`). Each of `count` frames gets its type.
    fn xc_get_pfn_type_batch(
        handle: *mut xc::xc_interface,
        domid: u32,
        count: libc::c_uint,
        frames: *mut xc::xen_pfn_t,
    ) -> libc::c_int;
}

/// An open `xc_interface`.
struct Handle(NonNull<xc::xc_interface>);

// SAFETY: libxenctrl lets any thread use a handle, one at a time (xenctrl.h,
// XC_OPENFLAG_NON_REENTRANT).
unsafe impl Send for Handle {}

impl Handle {
    fn raw(&self) -> *mut xc::xc_interface {
        self.0.as_ptr()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: opened by us, and nobody can use it after this.
        closed(|| unsafe { xc::xc_interface_close(self.raw()) });
    }
}

/// The control interface, for any thread. Calls of several threads wait for each other.
pub(super) struct Control(Mutex<Handle>);

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
        let flags = xc::xc_open_flags::XC_OPENFLAG_NON_REENTRANT as u32;
        // SAFETY: null loggers are allowed (xenctrl.h): it logs to stderr.
        let open =
            || unsafe { xc::xc_interface_open(std::ptr::null_mut(), std::ptr::null_mut(), flags) };
        opened("xc_interface_open", open).map(|handle| Self(Mutex::new(Handle(handle))))
    }

    /// Held over a call and the look at its errno.
    fn handle(&self) -> MutexGuard<'_, Handle> {
        self.0
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// The hypervisor's record of a domain.
    pub(super) fn domain_info(&self, domid: u32) -> Result<xc::xc_domaininfo_t, HostError> {
        let handle = self.handle();
        let mut info = xc::xc_domaininfo_t::default();
        // SAFETY: one element of room is passed and there.
        let count = unsafe { xc::xc_domain_getinfolist(handle.raw(), domid, 1, &mut info) };
        match count {
            1 if u32::from(info.domain) == domid => Ok(info),
            0 | 1 => Err(HostError::new(
                "xc_domain_getinfolist",
                format!("there is no domain {domid}"),
            )),
            _ => Err(failed("xc_domain_getinfolist")),
        }
    }

    /// The domains whose uuid is this, by their numbers.
    pub(super) fn domains_with(&self, uuid: &[u8; 16]) -> Result<Vec<u32>, HostError> {
        let (mut found, mut first) = (Vec::new(), 1);
        while let Some(info) = self.domain_from(first)? {
            let domid = u32::from(info.domain);
            if info.handle == *uuid {
                found.push(domid);
            }
            first = domid + 1;
        }
        Ok(found)
    }

    /// The hypervisor's record of the first domain whose number is not below `first`.
    fn domain_from(&self, first: u32) -> Result<Option<xc::xc_domaininfo_t>, HostError> {
        let handle = self.handle();
        let mut info = xc::xc_domaininfo_t::default();
        // SAFETY: one element of room is passed and there.
        match unsafe { xc::xc_domain_getinfolist(handle.raw(), first, 1, &mut info) } {
            1 => Ok(Some(info)),
            0 => Ok(None),
            _ => Err(failed("xc_domain_getinfolist")),
        }
    }

    /// The host as a whole.
    fn physinfo(&self) -> Result<xc::xc_physinfo_t, HostError> {
        let handle = self.handle();
        let mut info = xc::xc_physinfo_t::default();
        // SAFETY: an out structure of ours.
        let rc = unsafe { xc::xc_physinfo(handle.raw(), &mut info) };
        answer(rc, "xc_physinfo").map(|()| info)
    }

    /// Pages that no domain has.
    pub(super) fn free_pages(&self) -> Result<u64, HostError> {
        self.physinfo().map(|info| info.free_pages)
    }

    /// Pages that no domain has and none has claimed.
    pub(super) fn unclaimed_pages(&self) -> Result<u64, HostError> {
        self.physinfo()
            .map(|info| info.free_pages.saturating_sub(info.outstanding_pages))
    }

    /// Gives a domain another uuid.
    pub(super) fn set_handle(&self, domid: u32, uuid: &[u8; 16]) -> Result<(), HostError> {
        let handle = self.handle();
        let mut uuid = *uuid;
        // SAFETY: sixteen bytes of ours, which are only read.
        let rc = unsafe { xc::xc_domain_sethandle(handle.raw(), domid, uuid.as_mut_ptr()) };
        answer(rc, "xc_domain_sethandle")
    }

    /// Bytes that a domain has for nested paging.
    pub(super) fn paging_pool_bytes(&self, domid: u32) -> Result<u64, HostError> {
        let handle = self.handle();
        let mut bytes = 0;
        // SAFETY: an out number of ours.
        let rc = unsafe { xc::xc_get_paging_mempool_size(handle.raw(), domid, &mut bytes) };
        answer(rc, "xc_get_paging_mempool_size").map(|()| bytes)
    }

    /// Takes `pages` from a domain's paging pool back to the host.
    pub(super) fn shrink_paging_pool(&self, domid: u32, pages: u64) -> Result<(), HostError> {
        let bytes = self.paging_pool_bytes(domid)?;
        let handle = self.handle();
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
        let rc = unsafe { xc::xc_set_paging_mempool_size(handle.raw(), domid, rest) };
        answer(rc, "xc_set_paging_mempool_size")
    }

    /// Gives single frames back; returns how many from the start were taken.
    ///
    /// Extents of a higher order would gain nothing
    /// (`relied_on::extents_are_taken_apart`).
    pub(super) fn decrease_reservation(&self, domid: u32, frames: &[FrameName]) -> usize {
        let handle = self.handle();
        let mut extents: Vec<xc::xen_pfn_t> = frames.iter().map(|name| name.0).collect();
        // SAFETY: the array holds as many extents as we say, and is ours.
        let done = unsafe {
            xc::xc_domain_decrease_reservation(
                handle.raw(),
                domid,
                extents.len() as _,
                0,
                extents.as_mut_ptr(),
            )
        };
        usize::try_from(done).unwrap_or(0).min(frames.len())
    }

    /// Claims for a domain to have `pages` in all; zero gives its claim up.
    pub(super) fn set_claim(&self, domid: u32, pages: u64) -> Result<(), HostError> {
        let handle = self.handle();
        // SAFETY: numbers only.
        let rc = unsafe { xc::xc_domain_claim_pages(handle.raw(), domid, pages) };
        answer(rc, "xc_domain_claim_pages")
    }

    /// Has Xen save a state of the domain's first processor, which every domain with
    /// hardware virtualisation has.
    pub(super) fn save_mtrr(&self, domid: u32) -> Result<(), HostError> {
        self.save::<xc::hvm_hw_mtrr>(domid, 0).map(|_| ())
    }

    /// The registers of a virtual processor of a domain with hardware virtualisation;
    /// none when it was never brought up, or has stopped
    /// (`relied_on::stopped_has_no_state`).
    pub(super) fn saved_registers(&self, domid: u32, vcpu: u32) -> Option<xc::hvm_hw_cpu> {
        self.save(domid, u16::try_from(vcpu).ok()?).ok()
    }

    /// The registers of a virtual processor, for which Xen takes two pages as long as the
    /// call lasts (`relied_on::getcontext_takes_pages`); none when it was never brought up.
    pub(super) fn vcpu_context(
        &self,
        domid: u32,
        vcpu: u32,
    ) -> Option<xc::vcpu_guest_context_any_t> {
        let handle = self.handle();
        let mut any = xc::vcpu_guest_context_any_t::default();
        // SAFETY: the union has room for every kind of context.
        let rc = unsafe { xc::xc_vcpu_getcontext(handle.raw(), domid, vcpu, &mut any) };
        (rc == 0).then_some(any)
    }

    /// The state of a kind that Xen saves of one of the domain's processors.
    fn save<T: Saved>(&self, domid: u32, vcpu: u16) -> Result<T, HostError> {
        let handle = self.handle();
        let mut state = T::default();
        // SAFETY: as much room as is said, of ours; `Saved` has only types in which any
        // bytes are valid.
        let rc = unsafe {
            xc::xc_domain_hvm_getcontext_partial(
                handle.raw(),
                domid,
                T::CODE,
                vcpu,
                std::ptr::from_mut(&mut state).cast(),
                size_of_val(&state) as u32,
            )
        };
        answer(rc, "xc_domain_hvm_getcontext_partial").map(|()| state)
    }

    /// The frame through which the domain talks to xenstore.
    pub(super) fn store_frame(&self, domid: u32) -> Result<Gfn, HostError> {
        let handle = self.handle();
        let mut frame = 0;
        // SAFETY: an out number of ours.
        let rc = unsafe {
            xc::xc_hvm_param_get(handle.raw(), domid, xc::HVM_PARAM_STORE_PFN, &mut frame)
        };
        answer(rc, "xc_hvm_param_get").map(|()| Gfn(frame))
    }

    /// How a domain with populate-on-demand stands.
    pub(super) fn pod_target(&self, domid: u32) -> Result<Backing, HostError> {
        let handle = self.handle();
        let mut backing = Backing::default();
        // SAFETY: three out pointers to integers of ours.
        let rc = unsafe {
            xc::xc_domain_get_pod_target(
                handle.raw(),
                domid,
                &mut backing.total,
                &mut backing.spare,
                &mut backing.unbacked,
            )
        };
        answer(rc, "xc_domain_get_pod_target").map(|()| backing)
    }

    /// Fills a domain's populate-on-demand cache until it has `pages` in all.
    pub(super) fn set_pod_target(&self, domid: u32, pages: u64) -> Result<Backing, HostError> {
        let handle = self.handle();
        let mut backing = Backing::default();
        // SAFETY: three out pointers to integers of ours.
        let rc = unsafe {
            xc::xc_domain_set_pod_target(
                handle.raw(),
                domid,
                pages,
                &mut backing.total,
                &mut backing.spare,
                &mut backing.unbacked,
            )
        };
        answer(rc, "xc_domain_set_pod_target").map(|()| backing)
    }

    /// Bytes of an address of a PV guest.
    pub(super) fn guest_width(&self, domid: u32) -> Result<u32, HostError> {
        let handle = self.handle();
        let mut bytes = 0;
        // SAFETY: an out number of ours.
        let rc = unsafe { xc::xc_domain_get_guest_width(handle.raw(), domid, &mut bytes) };
        answer(rc, "xc_domain_get_guest_width").map(|()| bytes)
    }

    /// What Xen has machine frames of a PV guest for (`XEN_DOMCTL_PFINFO_*`): 1024 at most.
    pub(super) fn page_types(&self, domid: u32, frames: &[Mfn]) -> Result<Vec<u64>, HostError> {
        let handle = self.handle();
        let mut types: Vec<xc::xen_pfn_t> = frames.iter().map(|mfn| mfn.0).collect();
        let count = types.len() as u32;
        // SAFETY: the array holds as many frames as we say, each of which gets its type.
        let rc = unsafe { xc_get_pfn_type_batch(handle.raw(), domid, count, types.as_mut_ptr()) };
        answer(rc, "xc_get_pfn_type_batch").map(|()| types)
    }

    /// Takes its page tables and its registers from a virtual processor.
    pub(super) fn reset_vcpu(&self, domid: u32, vcpu: u32) -> Result<(), HostError> {
        let handle = self.handle();
        // SAFETY: no context asks for that (xen/include/public/domctl.h).
        let rc = unsafe { xc::xc_vcpu_setcontext(handle.raw(), domid, vcpu, std::ptr::null_mut()) };
        answer(rc, "xc_vcpu_setcontext")
    }

    /// Unpins page tables of a PV guest.
    pub(super) fn unpin(&self, domid: u32, tables: &[Mfn]) -> Result<(), HostError> {
        if tables.is_empty() {
            return Ok(());
        }
        let handle = self.handle();
        let unpin = |mfn: &Mfn| xc::mmuext_op {
            cmd: xc::MMUEXT_UNPIN_TABLE,
            arg1: xc::mmuext_op__bindgen_ty_1 { mfn: mfn.0 },
            ..xc::mmuext_op::default()
        };
        let mut operations: Vec<xc::mmuext_op> = tables.iter().map(unpin).collect();
        let count = operations.len() as u32;
        // SAFETY: the array holds as many operations as we say, and is ours.
        let rc = unsafe { xc::xc_mmuext_op(handle.raw(), operations.as_mut_ptr(), count, domid) };
        answer(rc, "xc_mmuext_op")
    }

    /// Whether a domain is there and not marked as dying
    /// (`relied_on::paging_ignores_the_dying`).
    pub(super) fn has_paging(&self, domid: u32) -> Result<bool, HostError> {
        let handle = self.handle();
        // No size that Xen could tell.
        let mut mib = u32::MAX;
        // SAFETY: an in and out number of ours.
        let rc = unsafe {
            xc::xc_shadow_control(
                handle.raw(),
                domid,
                xc::XEN_DOMCTL_SHADOW_OP_GET_ALLOCATION,
                &mut mib,
                0,
            )
        };
        match answer(rc, "xc_shadow_control") {
            Ok(()) => Ok(mib != u32::MAX),
            Err(error) if matches!(error.errno, libc::EINVAL | libc::EOPNOTSUPP) => Ok(true),
            Err(error) => Err(error),
        }
    }

    pub(super) fn set_max_memory(&self, domid: u32, kib: u64) -> Result<(), HostError> {
        let handle = self.handle();
        // SAFETY: numbers only.
        let rc = unsafe { xc::xc_domain_setmaxmem(handle.raw(), domid, kib) };
        answer(rc, "xc_domain_setmaxmem")
    }

    pub(super) fn pause(&self, domid: u32) -> Result<(), HostError> {
        let handle = self.handle();
        // SAFETY: numbers only.
        let rc = unsafe { xc::xc_domain_pause(handle.raw(), domid) };
        answer(rc, "xc_domain_pause")
    }

    pub(super) fn unpause(&self, domid: u32) -> Result<(), HostError> {
        let handle = self.handle();
        // SAFETY: numbers only.
        let rc = unsafe { xc::xc_domain_unpause(handle.raw(), domid) };
        answer(rc, "xc_domain_unpause")
    }
}

/// A state that Xen saves of a processor, in which any bytes are valid: numbers only.
trait Saved: Default {
    /// Its number in `DECLARE_HVM_SAVE_TYPE`, public/arch-x86/hvm/save.h.
    const CODE: u16;
}

impl Saved for xc::hvm_hw_cpu {
    const CODE: u16 = 2;
}

impl Saved for xc::hvm_hw_mtrr {
    const CODE: u16 = 14;
}
