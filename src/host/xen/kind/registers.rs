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
    if let Some(cpu) = control.saved_registers(domid, vcpu) {
        return Some(of_saved(&cpu));
    }
    let any = control.vcpu_context(domid, vcpu)?;
    // SAFETY: the library is built for x86-64 only, where the native context `c`
    // is the one that Xen fills for PVH and HVM guests; any bytes are valid in it.
    Some(of_context(unsafe { &any.c }))
}

fn of_saved(cpu: &xc::hvm_hw_cpu) -> VcpuState {
    // The lowest bits of a code selector are the privilege that it runs with. A processor
    // that runs a program has the kernel's base put by.
    let is_in_kernel = cpu.cs_sel & 3 == 0;
    let selectors = [
        cpu.cs_sel, cpu.ss_sel, cpu.ds_sel, cpu.es_sel, cpu.fs_sel, cpu.gs_sel,
    ];
    VcpuState {
        general: [
            cpu.r15, cpu.r14, cpu.r13, cpu.r12, cpu.rbp, cpu.rbx, cpu.r11, cpu.r10, cpu.r9, cpu.r8,
            cpu.rax, cpu.rcx, cpu.rdx, cpu.rsi, cpu.rdi,
        ],
        rip: cpu.rip,
        rflags: cpu.rflags,
        rsp: cpu.rsp,
        selectors: selectors.map(u64::from),
        fs_base: cpu.fs_base,
        gs_base: match is_in_kernel {
            true => cpu.gs_base,
            false => cpu.shadow_gs,
        },
        cr3: cpu.cr3,
        cr4: cpu.cr4,
    }
}

fn of_context(context: &xc::vcpu_guest_context_t) -> VcpuState {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_base_is_where_the_processor_has_it() {
        let cpu = xc::hvm_hw_cpu {
            gs_base: 1,
            shadow_gs: 2,
            cs_sel: 0x10,
            ..xc::hvm_hw_cpu::default()
        };
        assert_eq!(of_saved(&cpu).gs_base, 1);
        let cs_sel = 0x33;
        assert_eq!(of_saved(&xc::hvm_hw_cpu { cs_sel, ..cpu }).gs_base, 2);
    }
}
