// SPDX-License-Identifier: LGPL-2.1-or-later
//! The kernel's description of itself: lines of `KEY=value`, at most one page.
//!
//! Written by `kernel/vmcore_info.c` (before Linux 6.9 `kernel/crash_core.c`)
//! and `arch/x86/kernel/vmcore_info_64.c`; its keys are documented in
//! `Documentation/admin-guide/kdump/vmcoreinfo.rst`.

use std::collections::BTreeMap;

use crate::addr::{GuestVirt, PAGE_SIZE};

/// Longest text that is accepted, in bytes: the kernel has one page for it.
pub const MAX_TEXT: usize = PAGE_SIZE;

/// What a VMCOREINFO text must begin with.
pub const FIRST_KEY: &[u8] = b"OSRELEASE=";

/// A parsed VMCOREINFO. The text is the guest's, so each value is only what
/// the guest claims.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VmcoreInfo {
    text: Vec<u8>,
    values: BTreeMap<String, String>,
}

/// Why bytes are no VMCOREINFO.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ParseError {
    /// Longer than the kernel's own limit.
    #[error("text of {0} bytes, more than a page")]
    TooLong(usize),
    /// Other bytes than lines of printable ASCII.
    #[error("byte {byte:#04x} at offset {offset} is not text")]
    NotText {
        /// The byte.
        byte: u8,
        /// Where it is.
        offset: usize,
    },
    /// Does not begin with the key that the kernel writes first.
    #[error("does not begin with OSRELEASE=")]
    WrongStart,
    /// One key with two values.
    #[error("{0} is given twice, with different values")]
    Contradiction(String),
}

impl VmcoreInfo {
    /// Parses `text`, which ends where the slice ends.
    pub fn parse(text: &[u8]) -> Result<Self, ParseError> {
        if text.len() > MAX_TEXT {
            return Err(ParseError::TooLong(text.len()));
        }
        if !text.starts_with(FIRST_KEY) {
            return Err(ParseError::WrongStart);
        }
        let is_text = |&byte: &u8| byte == b'\n' || byte == b'\t' || (b' '..=b'~').contains(&byte);
        if let Some(offset) = text.iter().position(|byte| !is_text(byte)) {
            return Err(ParseError::NotText {
                byte: text[offset],
                offset,
            });
        }
        let mut values = BTreeMap::new();
        for line in String::from_utf8_lossy(text).lines() {
            let Some((key, value)) = line.split_once('=') else {
                continue;
            };
            let old = values.insert(key.to_owned(), value.to_owned());
            if old.is_some_and(|old| old != value) {
                return Err(ParseError::Contradiction(key.to_owned()));
            }
        }
        Ok(Self {
            text: text.to_vec(),
            values,
        })
    }

    /// The text as the guest has it.
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// The value of a key exactly as written.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.values.get(key).map(String::as_str)
    }

    /// The release, as `uname -r` prints it.
    pub fn release(&self) -> &str {
        self.get("OSRELEASE").unwrap_or_default()
    }

    /// When the guest itself noted a crash; seconds since 1970. Only there
    /// when the guest had a crash kernel of its own loaded.
    pub fn crash_time_s(&self) -> Option<i64> {
        self.get("CRASHTIME")?.parse().ok()
    }

    /// Size of a page in bytes.
    pub fn page_size(&self) -> Option<u64> {
        self.get("PAGESIZE")?.parse().ok()
    }

    /// Address of a symbol, or for a symbol that is an array in the kernel's
    /// source and a pointer by now, what it points to.
    pub fn symbol(&self, name: &str) -> Option<GuestVirt> {
        let value = self.get(&format!("SYMBOL({name})"))?;
        u64::from_str_radix(value, 16).ok().map(GuestVirt)
    }

    /// Whether it describes a kernel of 32 bits: what those of 64 bits name is above.
    pub fn is_32_bit(&self) -> bool {
        let is_low = |at: GuestVirt| at.0 <= u64::from(u32::MAX);
        self.symbol("_stext").is_some_and(is_low)
    }

    /// Size of a structure in bytes.
    pub fn size(&self, name: &str) -> Option<u64> {
        self.get(&format!("SIZE({name})"))?.parse().ok()
    }

    /// Offset in bytes of a member, written `structure.member`.
    pub fn offset(&self, name: &str) -> Option<u64> {
        self.get(&format!("OFFSET({name})"))?.parse().ok()
    }

    /// Number of elements of an array.
    pub fn length(&self, name: &str) -> Option<u64> {
        self.get(&format!("LENGTH({name})"))?.parse().ok()
    }

    /// A constant or the value of a variable. Signed: `phys_base` is negative
    /// when the kernel was loaded below its link address.
    pub fn number(&self, name: &str) -> Option<i64> {
        self.get(&format!("NUMBER({name})"))?.parse().ok()
    }

    /// Whether both are descriptions by the same kernel: one may only have
    /// grown lines (`CRASHTIME`) that the other does not have yet.
    pub fn agrees_with(&self, other: &Self) -> bool {
        self.text.starts_with(&other.text) || other.text.starts_with(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &[u8] = b"OSRELEASE=6.1.0-50-amd64\nBUILD-ID=06f8\nPAGESIZE=4096\n\
        SYMBOL(_stext)=ffffffffb2800000\nNUMBER(phys_base)=-8388608\nSIZE(page)=64\n\
        OFFSET(page.mapping)=24\nLENGTH(zone.free_area)=11\nKERNELOFFSET=31800000\n";

    #[test]
    fn values_are_read_by_kind() {
        let info = VmcoreInfo::parse(TEXT).unwrap();
        assert_eq!(info.release(), "6.1.0-50-amd64");
        assert_eq!(
            info.symbol("_stext"),
            Some(GuestVirt(0xffff_ffff_b280_0000))
        );
        assert_eq!(info.number("phys_base"), Some(-8_388_608));
        assert_eq!(info.size("page"), Some(64));
        assert_eq!(info.offset("page.mapping"), Some(24));
        assert_eq!(info.length("zone.free_area"), Some(11));
        assert_eq!(info.page_size(), Some(4096));
        assert_eq!(info.crash_time_s(), None);
        assert_eq!(info.text(), TEXT);
    }

    #[test]
    fn what_the_kernel_would_not_write_is_refused() {
        let parse = VmcoreInfo::parse;
        assert_eq!(parse(b"PAGESIZE=4096\n"), Err(ParseError::WrongStart));
        assert!(matches!(
            parse(b"OSRELEASE=6\n\x01"),
            Err(ParseError::NotText {
                byte: 1,
                offset: 12
            })
        ));
        assert!(matches!(
            parse(b"OSRELEASE=6\nSIZE(page)=64\nSIZE(page)=56\n"),
            Err(ParseError::Contradiction(_))
        ));
        let long = [TEXT, &[b'\n'; MAX_TEXT]].concat();
        assert!(parse(&long[..MAX_TEXT]).is_ok());
        let too_long = Err(ParseError::TooLong(MAX_TEXT + 1));
        assert_eq!(parse(&long[..MAX_TEXT + 1]), too_long);
    }

    #[test]
    fn text_is_printable_with_tabs_and_ends_of_lines() {
        let info = VmcoreInfo::parse(b"OSRELEASE=6\n\t ~=\t ~\n").unwrap();
        assert_eq!(info.get("\t ~"), Some("\t ~"));
        for byte in [0, 0x08, 0x0b, 0x1f, 0x7f, 0xff] {
            let text = [b"OSRELEASE=6\n", &[byte][..]].concat();
            let refused = ParseError::NotText { byte, offset: 12 };
            assert_eq!(VmcoreInfo::parse(&text), Err(refused));
        }
    }

    #[test]
    fn a_kernel_of_32_bits_has_low_addresses() {
        let is_32_bit = |text: &str| {
            let info = format!("OSRELEASE=6\nSYMBOL(_stext)={text}\n");
            VmcoreInfo::parse(info.as_bytes()).unwrap().is_32_bit()
        };
        assert!(is_32_bit("c1000000") && is_32_bit("ffffffff"));
        assert!(!is_32_bit("100000000") && !is_32_bit("none"));
    }

    #[test]
    fn a_grown_copy_still_agrees() {
        let before = VmcoreInfo::parse(TEXT).unwrap();
        let after = VmcoreInfo::parse(&[TEXT, b"CRASHTIME=1700000000\n"].concat()).unwrap();
        let other = VmcoreInfo::parse(b"OSRELEASE=6.1.0-49-amd64\n").unwrap();
        assert!(before.agrees_with(&after) && after.agrees_with(&before));
        assert!(!before.agrees_with(&other));
        assert_eq!(after.crash_time_s(), Some(1_700_000_000));
    }

    #[test]
    fn numbers_that_do_not_fit_are_absent() {
        let info = VmcoreInfo::parse(
            b"OSRELEASE=6\nSIZE(page)=99999999999999999999\n\
            SYMBOL(x)=zz\nNUMBER(y)=--1\n",
        )
        .unwrap();
        assert_eq!(info.size("page"), None);
        assert_eq!(info.symbol("x"), None);
        assert_eq!(info.number("y"), None);
    }
}
