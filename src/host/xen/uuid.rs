// SPDX-License-Identifier: LGPL-2.1-or-later
//! What domains are told apart by.
#![allow(unsafe_code)]

use std::fmt;

use super::sys;

/// Sixteen bytes, in text as xenstore and xl write them.
#[derive(Clone, Copy)]
pub(super) struct Uuid(pub(super) sys::libxl_uuid);

impl Uuid {
    /// One that nothing else has.
    pub(super) fn generate() -> Self {
        let mut uuid = sys::libxl_uuid::default();
        // SAFETY: sixteen bytes of ours to fill.
        unsafe { sys::libxl_uuid_generate(&mut uuid) };
        Self(uuid)
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in self.0.uuid.iter().enumerate() {
            if matches!(index, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_is_written_in_five_groups() {
        let uuid = Uuid(sys::libxl_uuid {
            uuid: std::array::from_fn(|index| index as u8),
        });
        let text = "00010203-0405-0607-0809-0a0b0c0d0e0f";
        assert_eq!(uuid.to_string(), text);
    }
}
