// SPDX-License-Identifier: LGPL-2.1-or-later
//! What a dump says beside memory: registers, the kernel's name and description.

use crate::addr::GuestVirt;
use crate::dump::{Changes, Facts, Utsname, VcpuRegisters};
use crate::guest::arch::x86_64::Processor;
use crate::guest::doubt::Doubt;
use crate::guest::kernel::Kernel;
use crate::guest::plan::Plan;
use crate::guest::vmcoreinfo::VmcoreInfo;
use crate::host::VcpuState;
use crate::units::Utc;

pub(super) fn facts(
    kernel: Option<&Kernel>,
    vcpus: &[VcpuState],
    plan: &Plan,
    changes: Changes,
) -> Facts {
    let unconfirmed = plan.doubts().iter().find_map(|doubt| match doubt {
        Doubt::NoKernel(error) => error.unconfirmed(),
        _ => None,
    });
    let info = kernel.map(|kernel| &kernel.info).or(unconfirmed);
    let utsname = match (kernel, unconfirmed) {
        (Some(kernel), _) => known_name(kernel),
        (None, Some(info)) => claimed_name(info),
        (None, None) => Utsname::default(),
    };
    Facts {
        vmcoreinfo: info.map_or_else(Vec::new, |info| info.text().to_vec()),
        utsname,
        phys_base: kernel.map_or(0, |kernel| kernel.phys_base),
        vcpus: vcpus.iter().map(VcpuRegisters::from).collect(),
        timestamp_s: Utc::now().0,
        dump_level: u32::from(plan.level().get()),
        changes,
    }
}

fn known_name(kernel: &Kernel) -> Utsname {
    Utsname {
        sysname: kernel.name.sysname.clone(),
        nodename: kernel.name.nodename.clone(),
        release: kernel.name.release.clone(),
        version: kernel.name.version.clone(),
        machine: kernel.name.machine.clone(),
        domainname: kernel.name.domainname.clone(),
    }
}

/// What a description says that is in the dump, although it is not confirmed.
fn claimed_name(info: &VmcoreInfo) -> Utsname {
    Utsname {
        sysname: "Linux".into(),
        release: info.release().into(),
        machine: if info.is_32_bit() { "i686" } else { "x86_64" }.into(),
        ..Utsname::default()
    }
}

// Registers have three structs: host tells what a hypervisor knows of a processor,
// guest takes what leads to the kernel, as addresses of the guest, and dump takes what
// a note holds, in its order. One of them for all would make host, guest and dump know
// each other; here, where all three are known anyway, one becomes the others.

impl From<&VcpuState> for Processor {
    fn from(state: &VcpuState) -> Self {
        Self {
            cr3: state.cr3,
            cr4: state.cr4,
            rip: GuestVirt(state.rip),
            rsp: GuestVirt(state.rsp),
            gs_base: GuestVirt(state.gs_base),
        }
    }
}

impl From<&VcpuState> for VcpuRegisters {
    fn from(state: &VcpuState) -> Self {
        let [r15, r14, r13, r12, rbp, rbx, r11, r10, r9, r8, rax, rcx, rdx, rsi, rdi] =
            state.general;
        let [cs, ss, ds, es, fs, gs] = state.selectors;
        Self {
            r15,
            r14,
            r13,
            r12,
            rbp,
            rbx,
            r11,
            r10,
            r9,
            r8,
            rax,
            rcx,
            rdx,
            rsi,
            rdi,
            // Not in a system call, as far as a dump's reader is concerned.
            orig_rax: u64::MAX,
            rip: state.rip,
            cs,
            eflags: state.rflags,
            rsp: state.rsp,
            ss,
            fs_base: state.fs_base,
            gs_base: state.gs_base,
            ds,
            es,
            fs,
            gs,
        }
    }
}
