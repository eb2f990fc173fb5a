// SPDX-License-Identifier: LGPL-2.1-or-later
//! Who the guest says it is: the kernel's own name.

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
