// SPDX-License-Identifier: LGPL-2.1-or-later
//! Registers of virtual processors, as Xen tells those of a guest on hardware
//! virtualisation.

use xenctrl_sys as xc;

use super::super::control::Control;
use crate::host::{HostError, VcpuState};
use crate::limits::bounded::MOST_VCPUS;

/// Registers of every virtual processor that was ever started.
pub(super) fn read_all(control: &Control, domid: u32) -> Result<Vec<VcpuState>, HostError> {
    let highest = control.domain_info(domid)?.max_vcpu_id.min(MOST_VCPUS - 1);
    let states: Vec<VcpuState> = (0..=highest)
        .filter_map(|vcpu| control.registers(domid, vcpu))
        .map(|cpu| convert(&cpu))
        .collect();
    if states.is_empty() {
        return Err(HostError::new(
            "xc_domain_hvm_getcontext_partial",
            format!("no virtual processor of domain {domid} can be read"),
        ));
    }
    Ok(states)
}

/// A processor's registers, in the order of `NT_PRSTATUS`.
fn convert(cpu: &xc::hvm_hw_cpu) -> VcpuState {
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
        assert_eq!(convert(&cpu).gs_base, 1);
        let cs_sel = 0x33;
        assert_eq!(convert(&xc::hvm_hw_cpu { cs_sel, ..cpu }).gs_base, 2);
    }
}
