// SPDX-License-Identifier: LGPL-2.1-or-later
//! x86-64: its page tables, its registers, and where Linux keeps what on it.
//!
//! Page tables: Intel SDM volume 3A, chapter 4.5.

use std::ops::Range;

use crate::addr::GuestVirt;

/// Where Linux maps its own image: `__START_KERNEL_map`
/// (`arch/x86/include/asm/page_64_types.h`).
pub const KERNEL_MAP: u64 = 0xffff_ffff_8000_0000;

/// One past the addresses at which the image can be; modules follow
/// (`KERNEL_IMAGE_SIZE` with KASLR, `arch/x86/include/asm/page_64_types.h`).
pub const IMAGE_END: u64 = KERNEL_MAP + (1 << 30);

/// Where 32-bit kernels begin (`PAGE_OFFSET`; other splits are not Debian's).
pub(in crate::guest) const KERNEL_MAP_32: u64 = 0xc000_0000;

/// How far beyond what a processor executes a 32-bit image's variables are looked for.
pub(in crate::guest) const IMAGE_BYTES_32: u64 = 32 << 20;

/// Linux's kernel stacks (`THREAD_SIZE`; aligned to their size).
pub(in crate::guest) const STACK_BYTES: u64 = 16 << 10;

/// Part of a processor's per-CPU area that is kept whatever descriptors say.
pub(in crate::guest) const PER_CPU_BYTES: u64 = 64 << 10;

/// What one entry of the second level maps (`PMD_SIZE`).
pub(in crate::guest) const PMD_BYTES: u64 = 2 << 20;

/// What one entry of the third level maps (`PUD_SIZE`).
pub(in crate::guest) const PUD_BYTES: u64 = 1 << 30;

/// `X86_CR4_PAE`: entries of 64 bits.
pub(in crate::guest) const CR4_PAE: u64 = 1 << 5;

/// `X86_CR4_LA57`: addresses of 57 bits.
pub(in crate::guest) const CR4_LA57: u64 = 1 << 12;

/// Address bits of an entry that can mean "encrypted" (`sme_mask`).
pub(in crate::guest) const ENCRYPTION_BITS: Range<u64> = 1 << 32..1 << 52;

/// Number of entries in a table of any level.
pub const ENTRIES: usize = 512;

/// In every entry: it leads somewhere.
pub(in crate::guest) const PRESENT: u64 = 1;
/// In every entry: it allows writing, as far as those above it do.
pub(in crate::guest) const WRITABLE: u64 = 1 << 1;
/// In entries above the last level: this entry maps a large page.
pub(in crate::guest) const LARGE: u64 = 1 << 7;
/// Bits 12 to 51: where the table or page is.
pub(in crate::guest) const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
/// Bits 5 to 31: where the four entries at the top of [`Levels::Pae`] are.
pub(in crate::guest) const PAE_ROOT: u64 = 0xffff_ffe0;

/// How many levels of tables there are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Levels {
    /// 48-bit addresses.
    Four = 4,
    /// 57-bit addresses (`CR4.LA57`).
    Five = 5,
    /// 32-bit addresses in entries of 64 bits (`CR4.PAE` alone).
    Pae = 3,
}

/// Registers of one virtual processor, as the host reports them: the only
/// facts here that do not come from guest memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Processor {
    /// CR3: where its page tables are.
    pub cr3: u64,
    /// CR4: of what kind they are.
    pub cr4: u64,
    /// Instruction pointer.
    pub rip: GuestVirt,
    /// Stack pointer.
    pub rsp: GuestVirt,
    /// GS base: in kernel mode, the processor's per-CPU area.
    pub gs_base: GuestVirt,
}

/// What tells a process's page tables from the kernel's where the two are kept apart:
/// they are neighbours (`PTI_USER_PGTABLE_BIT`, `arch/x86/include/asm/pgtable.h`).
const USER_TABLES: u64 = 1 << 12;

impl Processor {
    /// Where the processor's page tables are, and where those are that it would be on
    /// in the kernel, if the first are only a process's.
    pub fn roots(&self) -> impl Iterator<Item = u64> {
        let kernels = self.cr3 & !USER_TABLES;
        let other = (kernels != self.cr3).then_some(kernels);
        [self.cr3].into_iter().chain(other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_its_tables_beside_those_of_the_kernel() {
        let roots = |cr3| {
            let processor = Processor {
                cr3,
                ..Processor::default()
            };
            processor.roots().collect::<Vec<u64>>()
        };
        assert_eq!(roots(0x2_4001), [0x2_4001]);
        assert_eq!(roots(0x2_5001), [0x2_5001, 0x2_4001]);
    }
}
