// SPDX-License-Identifier: LGPL-2.1-or-later
//! Registers as QEMU's monitor prints them for `info registers -a`: what an image's
//! directory holds of the processors.
//!
//! Format: `x86_cpu_dump_state` (QEMU 7.2, `target/i386/cpu-dump.c`). A part for each
//! processor begins with a line `CPU#NUMBER`; what stands before the first one, such as
//! the monitor's own prompt, is no part. Values are `NAME=HEXADECIMAL`; a segment has
//! its selector there, and its base next.

use super::VcpuState;

/// Longest text that is read, in bytes; a processor takes 2.5 KiB.
pub const MAX_TEXT: usize = 16 << 20;

/// Processors of an image, at most.
pub const MAX_VCPUS: usize = 4096;

/// The names of [`VcpuState::general`], and those that 32-bit processors have of them.
const GENERAL: [(&str, Option<&str>); 15] = [
    ("R15", None),
    ("R14", None),
    ("R13", None),
    ("R12", None),
    ("RBP", Some("EBP")),
    ("RBX", Some("EBX")),
    ("R11", None),
    ("R10", None),
    ("R9", None),
    ("R8", None),
    ("RAX", Some("EAX")),
    ("RCX", Some("ECX")),
    ("RDX", Some("EDX")),
    ("RSI", Some("ESI")),
    ("RDI", Some("EDI")),
];

/// Why a text does not hold the registers of processors.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RegistersError {
    /// The text is longer than any that QEMU prints.
    #[error("registers: longer than {} MiB", MAX_TEXT >> 20)]
    TooLong,
    /// There is no processor, or there are more than can be.
    #[error("registers: {0} processors (lines CPU#N); allowed: 1 to {MAX_VCPUS}")]
    Number(usize),
    /// A register is not there.
    #[error("registers: CPU#{vcpu} has no {name}")]
    Missing {
        /// The processor, counted from 0.
        vcpu: usize,
        /// The register.
        name: &'static str,
    },
    /// A register's value is no number.
    #[error("registers: {name} of CPU#{vcpu} is no hexadecimal number of 64 bits")]
    Value {
        /// The processor, counted from 0.
        vcpu: usize,
        /// The register.
        name: &'static str,
    },
}

/// Reads the registers of all processors, in the order of the text.
///
/// # Errors
/// When the text is not what QEMU prints.
pub fn parse(text: &str) -> Result<Vec<VcpuState>, RegistersError> {
    if text.len() > MAX_TEXT {
        return Err(RegistersError::TooLong);
    }
    let first = text.strip_prefix("CPU#");
    let first = first.or_else(|| text.split_once("\nCPU#").map(|(_, parts)| parts));
    let text = first.unwrap_or_default();
    let parts: Vec<&str> = match text {
        "" => Vec::new(),
        _ => text.split("\nCPU#").take(MAX_VCPUS + 1).collect(),
    };
    if !(1..=MAX_VCPUS).contains(&parts.len()) {
        return Err(RegistersError::Number(parts.len()));
    }
    let part = |(vcpu, text)| Part { vcpu, text }.state();
    parts.into_iter().enumerate().map(part).collect()
}

/// What is printed of one processor.
struct Part<'a> {
    vcpu: usize,
    text: &'a str,
}

impl Part<'_> {
    fn state(&self) -> Result<VcpuState, RegistersError> {
        let is_64_bit = self.words("RIP").is_some();
        let named = |long, short| self.number(if is_64_bit { long } else { short });
        let mut general = [0; 15];
        for (slot, (long, short)) in general.iter_mut().zip(GENERAL) {
            *slot = match (is_64_bit, short) {
                (true, _) => self.number(long)?,
                (false, Some(short)) => self.number(short)?,
                (false, None) => 0,
            };
        }
        let selectors = ["CS", "SS", "DS", "ES", "FS", "GS"].map(|name| self.number(name));
        let [cs, ss, ds, es, fs, gs] = selectors;
        let rpl = *cs.as_ref().unwrap_or(&0) & 3;
        Ok(VcpuState {
            general,
            rip: named("RIP", "EIP")?,
            rsp: named("RSP", "ESP")?,
            rflags: named("RFL", "EFL")?,
            selectors: [cs?, ss?, ds?, es?, fs?, gs?],
            fs_base: self.base("FS")?,
            // In a program it is the program's own.
            gs_base: if rpl == 0 { self.base("GS")? } else { 0 },
            cr3: self.number("CR3")?,
            cr4: self.number("CR4")?,
        })
    }

    /// The words after a name and its `=`, to the end of the line.
    fn words(&self, name: &str) -> Option<impl Iterator<Item = &str>> {
        let mut places = self.text.match_indices(name);
        let after = places.find_map(|(at, _)| {
            let begins = self.text[..at].ends_with([' ', '\n']);
            let rest = self.text[at + name.len()..].trim_start_matches(' ');
            rest.strip_prefix('=').filter(|_| begins)
        })?;
        Some(after.lines().next()?.split_ascii_whitespace())
    }

    fn number(&self, name: &'static str) -> Result<u64, RegistersError> {
        self.word(name, 0)
    }

    fn base(&self, name: &'static str) -> Result<u64, RegistersError> {
        self.word(name, 1)
    }

    fn word(&self, name: &'static str, index: usize) -> Result<u64, RegistersError> {
        let vcpu = self.vcpu;
        let word = self.words(name).and_then(|mut words| words.nth(index));
        let word = word.ok_or(RegistersError::Missing { vcpu, name })?;
        let is_hex = word.bytes().all(|byte| byte.is_ascii_hexdigit());
        let number = u64::from_str_radix(word, 16).ok().filter(|_| is_hex);
        number.ok_or(RegistersError::Value { vcpu, name })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two processors of a Linux 6.1, the second in a program.
    const LONG: &str = "QEMU 7.2.22 monitor - type 'help' for more information
(qemu) info registers -a

CPU#0
RAX=0000000000000002 RBX=0000000000000000 RCX=00000000c0000080 RDX=0000000000000000
RSI=00000000000000ff RDI=ffff899bfe8198c0 RBP=ffff899bfe8198c0 RSP=ffffcae780003fc0
R8 =ffffffffffae0063 R9 =00000000314dd6fb R10=0000000000000000 R11=ffffcae780003ff8
R12=0000000000000000 R13=0000000000000000 R14=0000000000000000 R15=0000000000000015
RIP=ffffffff8e43fc5b RFL=00000093 [--S-A-C] CPL=0 II=0 A20=1 SMM=0 HLT=1
ES =0000 0000000000000000 00000000 00000000
CS =0010 0000000000000000 ffffffff 00af9b00 DPL=0 CS64 [-RA]
SS =0018 0000000000000000 ffffffff 00cf9300 DPL=0 DS   [-WA]
DS =0000 0000000000000000 00000000 00000000
FS =0000 0000000000000000 00000000 00000000
GS =0000 ffff899bfe800000 00000000 00000000
LDT=0000 0000000000000000 00000000 00008200 DPL=0 LDT
CR0=80050033 CR2=000000000042ee70 CR3=0000000015a10000 CR4=000006f0
EFER=0000000000000d01

CPU#1
RAX=0000002225c09a3d RBX=0000000000000000 RCX=0000000000a62000 RDX=0000000000132a96
RSI=0000000000000001 RDI=0000002225ad6fa7 RBP=ffffcae780013d10 RSP=ffffcae780013c98
R8 =0000000000000001 R9 =0000000000293307 R10=0000000000000003 R11=ffffffff8fed46c8
R12=0000000000000001 R13=00000000000000c8 R14=0000000000000041 R15=0000000000000000
RIP=00007fff8edec723 RFL=00000283 [--S---C] CPL=3 II=0 A20=1 SMM=0 HLT=0
ES =0000 0000000000000000 00000000 00000000
CS =0033 0000000000000000 ffffffff 00af9b00 DPL=0 CS64 [-RA]
SS =002b 0000000000000000 ffffffff 00cf9300 DPL=0 DS   [-WA]
DS =0000 0000000000000000 00000000 00000000
FS =0000 00000000359bc3c0 00000000 00000000
GS =0000 00007f9bfe900000 00000000 00000000
CR0=80050033 CR2=00000000359c0038 CR3=0000000001104000 CR4=000006e0
";

    const SHORT: &str = "CPU#0
EAX=00000001 EBX=00000002 ECX=00000003 EDX=00000004
ESI=00000005 EDI=00000006 EBP=c1b5df20 ESP=c1b5df14
EIP=c18d2b3e EFL=00000246 [---Z-P-] CPL=0 II=0 A20=1 SMM=0 HLT=1
ES =007b 00000000 ffffffff 00cff300 DPL=3 DS   [-WA]
CS =0060 00000000 ffffffff 00cf9b00 DPL=0 CS32 [-RA]
SS =0068 00000000 ffffffff 00cf9300 DPL=0 DS   [-WA]
DS =007b 00000000 ffffffff 00cff300 DPL=3 DS   [-WA]
FS =00d8 36f4a000 ffffffff 008f9300 DPL=0 DS16 [-WA]
GS =0033 b7f2b100 ffffffff 00d0f300 DPL=3 DS   [-WA]
CR0=80050033 CR2=b7cf3000 CR3=03ba2000 CR4=000006f0
";

    #[test]
    fn registers_are_read_by_name_and_processor() {
        let vcpus = parse(LONG).unwrap();
        assert_eq!(vcpus.len(), 2);
        let first = &vcpus[0];
        assert_eq!(first.general[0], 0x15);
        assert_eq!(first.general[9], 0xffff_ffff_ffae_0063);
        assert_eq!(first.general[12], 0);
        assert_eq!(first.rip, 0xffff_ffff_8e43_fc5b);
        assert_eq!(first.rflags, 0x93);
        assert_eq!(first.selectors, [0x10, 0x18, 0, 0, 0, 0]);
        assert_eq!(first.gs_base, 0xffff_899b_fe80_0000);
        assert_eq!((first.cr3, first.cr4), (0x15a1_0000, 0x6f0));
        assert_eq!(vcpus[1].fs_base, 0x359b_c3c0);
        assert_eq!(vcpus[1].gs_base, 0, "a program's is not the kernel's");

        let vcpus = parse(SHORT).unwrap();
        assert_eq!(vcpus[0].general[10..], [1, 3, 4, 5, 6]);
        assert_eq!(
            (vcpus[0].rip, vcpus[0].rsp, vcpus[0].cr3),
            (0xc18d_2b3e, 0xc1b5_df14, 0x3ba_2000)
        );
        assert_eq!(vcpus[0].fs_base, 0x36f4_a000);
    }

    #[test]
    fn what_qemu_does_not_print_is_refused_by_name() {
        let error = |text: &str| parse(text).unwrap_err().to_string();
        let none = "registers: 0 processors (lines CPU#N); allowed: 1 to 4096";
        assert_eq!(error(""), none);
        assert_eq!(error("RIP=0 CPU#0"), none);
        let many = "CPU#0\n".repeat(MAX_VCPUS + 1);
        assert!(error(&many).starts_with("registers: 4097 processors"));
        assert_eq!(error("CPU#0\n"), "registers: CPU#0 has no EBP");
        let without = LONG.replacen("CR3=0000000001104000", "CR9=0", 1);
        assert_eq!(error(&without), "registers: CPU#1 has no CR3");
        let odd = SHORT.replace("CR3=03ba2000", "CR3=+3ba2000");
        let what = "registers: CR3 of CPU#0 is no hexadecimal number of 64 bits";
        assert_eq!(error(&odd), what);
        let long = SHORT.replace("CR3=03ba2000", "CR3=10000000000000000");
        assert_eq!(error(&long), what);
        let base = SHORT.replace(
            "FS =00d8 36f4a000 ffffffff 008f9300 DPL=0 DS16 [-WA]",
            "FS =00d8",
        );
        assert_eq!(error(&base), "registers: CPU#0 has no FS");
        assert_eq!(
            parse(&"x".repeat(MAX_TEXT + 1)),
            Err(RegistersError::TooLong)
        );
    }
}
