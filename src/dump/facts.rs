// SPDX-License-Identifier: LGPL-2.1-or-later
//! What a dump says about the guest besides its memory.

use serde::{Deserialize, Serialize};

use crate::addr::{Page, Pfn};

/// Handed in once, written into headers and notes.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// The kernel's own description, `KEY=value` lines; opaque here.
    pub vmcoreinfo: Vec<u8>,
    /// The kernel's names.
    pub utsname: Utsname,
    /// What the kernel's virtual addresses differ from physical ones by, in bytes.
    pub phys_base: i64,
    /// One per vCPU, in order. A dump has at least one.
    pub vcpus: Vec<VcpuRegisters>,
    /// When the guest crashed, in seconds since 1970 (UTC).
    pub timestamp_s: u64,
    /// Kinds of pages that were left out, as makedumpfile's `-d` adds them up.
    pub dump_level: u32,
    /// What the dump does not hold as the guest has it.
    pub changes: Changes,
}

/// In what a dump is not what the guest's memory is: so that readers find their way.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changes {
    /// Entries of page tables name the guest's pages; the guest's own name the machine's.
    #[serde(default)]
    pub translated_tables: bool,
    /// Bytes that are zero in the dump.
    #[serde(default)]
    pub zeroed: Vec<Zeroed>,
}

/// Bytes of a page that are zero in a dump, whatever they are in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Zeroed {
    /// The page.
    pub pfn: u64,
    /// Where in the page they begin.
    pub offset: usize,
    /// How many they are; none of them is in another page.
    pub bytes: usize,
}

impl Changes {
    /// Whether there is none.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// Makes of a page what the dump holds of it.
    pub(super) fn apply(&self, pfn: Pfn, page: &mut Page) {
        for zeroed in self.zeroed.iter().filter(|zeroed| zeroed.pfn == pfn.0) {
            let end = zeroed.offset.saturating_add(zeroed.bytes);
            if let Some(bytes) = page.get_mut(zeroed.offset..end) {
                bytes.fill(0);
            }
        }
    }
}

/// What uname(2) says in the guest; each at most 64 bytes, the rest is cut off.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs)] // the names are those of uname(2)
pub struct Utsname {
    pub sysname: String,
    pub nodename: String,
    pub release: String,
    pub version: String,
    pub machine: String,
    pub domainname: String,
}

/// Registers of one x86-64 vCPU, named as in Linux's `struct user_regs_struct`
/// (`arch/x86/include/asm/user_64.h`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)] // the names are the registers'
pub struct VcpuRegisters {
    pub r15: u64,
    pub r14: u64,
    pub r13: u64,
    pub r12: u64,
    pub rbp: u64,
    pub rbx: u64,
    pub r11: u64,
    pub r10: u64,
    pub r9: u64,
    pub r8: u64,
    pub rax: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rsi: u64,
    pub rdi: u64,
    pub orig_rax: u64,
    pub rip: u64,
    pub cs: u64,
    pub eflags: u64,
    pub rsp: u64,
    pub ss: u64,
    pub fs_base: u64,
    pub gs_base: u64,
    pub ds: u64,
    pub es: u64,
    pub fs: u64,
    pub gs: u64,
}

impl VcpuRegisters {
    /// In the order of `user_regs_struct`, which is also the notes' order.
    pub(super) fn in_order(&self) -> [u64; 27] {
        [
            self.r15,
            self.r14,
            self.r13,
            self.r12,
            self.rbp,
            self.rbx,
            self.r11,
            self.r10,
            self.r9,
            self.r8,
            self.rax,
            self.rcx,
            self.rdx,
            self.rsi,
            self.rdi,
            self.orig_rax,
            self.rip,
            self.cs,
            self.eflags,
            self.rsp,
            self.ss,
            self.fs_base,
            self.gs_base,
            self.ds,
            self.es,
            self.fs,
            self.gs,
        ]
    }
}
