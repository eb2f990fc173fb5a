// SPDX-License-Identifier: LGPL-2.1-or-later
//! Registers of virtual processors, as Xen tells those of a guest on hardware
//! virtualisation.
#![allow(unsafe_code)]

use xenctrl_sys as xc;

use super::super::control::Control;
use crate::host::{HostError, VcpuState};
use crate::limits::bounded::MOST_VCPUS;

/// Registers of every virtual processor that was ever started.
pub(super) fn read_all(control: &Control, domid: u32) -> Result<Vec<VcpuState>, HostError> {
    let highest = control.domain_info(domid)?.max_vcpu_id.min(MOST_VCPUS - 1);
    let states: Vec<VcpuState> = (0..=highest)
        .filter_map(|vcpu| read(control, domid, vcpu))
        .collect();
    if states.is_empty() {
        return Err(HostError::new(
            "xc_vcpu_getcontext",
            format!("no virtual processor of domain {domid} can be read"),
        ));
    }
    Ok(states)
}

/// Registers of one processor; none when the processor was never brought up.
fn read(control: &Control, domid: u32, vcpu: u32) -> Option<VcpuState> {
    let any = control.vcpu_context(domid, vcpu)?;
    // SAFETY: the library is built for x86-64 only, where the native context `c`
    // is the one that Xen fills for PVH and HVM guests; any bytes are valid in it.
    Some(convert(unsafe { &any.c }))
}

fn convert(context: &xc::vcpu_guest_context_t) -> VcpuState {
    let user = &context.user_regs;
    // SAFETY: each union is one 64-bit register under several names and Xen
    // fills all 64 bits (public/arch-x86/xen-x86_64.h).
    unsafe {
        VcpuState {
            general: [
                user.__bindgen_anon_1.r15,
                user.__bindgen_anon_2.r14,
                user.__bindgen_anon_3.r13,
                user.__bindgen_anon_4.r12,
                user.__bindgen_anon_5.rbp,
                user.__bindgen_anon_6.rbx,
                user.__bindgen_anon_7.r11,
                user.__bindgen_anon_8.r10,
                user.__bindgen_anon_9.r9,
                user.__bindgen_anon_10.r8,
                user.__bindgen_anon_11.rax,
                user.__bindgen_anon_12.rcx,
                user.__bindgen_anon_13.rdx,
                user.__bindgen_anon_14.rsi,
                user.__bindgen_anon_15.rdi,
            ],
            rip: user.__bindgen_anon_16.rip,
            rflags: user.__bindgen_anon_17.rflags,
            rsp: user.__bindgen_anon_18.rsp,
            selectors: [user.cs, user.ss, user.ds, user.es, user.fs, user.gs].map(u64::from),
            fs_base: context.fs_base,
            gs_base: context.gs_base_kernel,
            cr3: context.ctrlreg[3],
            cr4: context.ctrlreg[4],
        }
    }
}
