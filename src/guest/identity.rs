// SPDX-License-Identifier: LGPL-2.1-or-later
//! Who the guest says it is: the processors' registers that the host knows, and
//! the kernel's own name.

use crate::addr::GuestVirt;

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
    /// Where its page tables are, and where those are that it would be on in the
    /// kernel, if these are only a process's.
    pub fn roots(&self) -> impl Iterator<Item = u64> {
        let kernels = self.cr3 & !USER_TABLES;
        let other = (kernels != self.cr3).then_some(kernels);
        [self.cr3].into_iter().chain(other)
    }
}

/// Bytes of one field of [`UtsName`], including the terminating zero
/// (`__NEW_UTS_LEN` + 1, `include/uapi/linux/utsname.h`).
pub const UTS_FIELD: usize = 65;

/// Bytes of `struct new_utsname`.
pub const UTS_BYTES: usize = 6 * UTS_FIELD;

/// The kernel's name, as `uname` prints it. A dump's header has the same form.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UtsName {
    /// Always `Linux`.
    pub sysname: String,
    /// Host name.
    pub nodename: String,
    /// Kernel release.
    pub release: String,
    /// Kernel version: build number and date.
    pub version: String,
    /// Machine, `x86_64`.
    pub machine: String,
    /// NIS domain name.
    pub domainname: String,
}

impl UtsName {
    /// Reads `struct new_utsname`; `None` when a field is not text that ends
    /// within its space.
    pub fn parse(bytes: &[u8; UTS_BYTES]) -> Option<Self> {
        let field = |index: usize| -> Option<String> {
            let bytes = &bytes[index * UTS_FIELD..(index + 1) * UTS_FIELD];
            let end = bytes.iter().position(|&byte| byte == 0)?;
            let text = &bytes[..end];
            let printable = text.iter().all(|byte| (b' '..=b'~').contains(byte));
            printable.then(|| String::from_utf8_lossy(text).into_owned())
        };
        Some(Self {
            sysname: field(0)?,
            nodename: field(1)?,
            release: field(2)?,
            version: field(3)?,
            machine: field(4)?,
            domainname: field(5)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_end_within_their_space() {
        let mut bytes = [0; UTS_BYTES];
        bytes[..5].copy_from_slice(b"Linux");
        bytes[2 * UTS_FIELD..2 * UTS_FIELD + 3].copy_from_slice(b"6.1");
        let name = UtsName::parse(&bytes).unwrap();
        assert_eq!(
            (name.sysname.as_str(), name.release.as_str()),
            ("Linux", "6.1")
        );
        bytes[UTS_FIELD..2 * UTS_FIELD].fill(b'x');
        assert_eq!(UtsName::parse(&bytes), None);
        bytes[UTS_FIELD] = 0x1b;
        bytes[UTS_FIELD + 1] = 0;
        assert_eq!(UtsName::parse(&bytes), None);
    }
}
