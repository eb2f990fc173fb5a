// SPDX-License-Identifier: LGPL-2.1-or-later
//! What dumps look like.

use super::codec::Codec;

/// What a dump looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// kdump-compressed, header version 6: excluded pages take no space, and
    /// readers report them as excluded.
    Kdump(Codec),
    /// ELF core as /proc/vmcore has it, uncompressed: every page of RAM has its
    /// place, those excluded, zero or lost are holes and read as zeroes. Has no
    /// manifest.
    Elf,
}

impl Format {
    /// What the name of a complete dump ends in.
    pub(super) fn suffix(self) -> &'static str {
        match self {
            Self::Kdump(_) => "kdump",
            Self::Elf => "elf",
        }
    }

    /// Whether checksums of it are kept.
    pub(super) fn has_manifest(self) -> bool {
        matches!(self, Self::Kdump(_))
    }

    /// How its pages are compressed.
    pub(super) fn codec(self) -> Codec {
        match self {
            Self::Kdump(codec) => codec,
            Self::Elf => Codec::NONE,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dump::ZSTD;

    #[test]
    fn only_kdumps_are_compressed_and_have_checksums() {
        let kdump = Format::Kdump(ZSTD.fastest());
        assert_eq!((kdump.suffix(), Format::Elf.suffix()), ("kdump", "elf"));
        assert!(kdump.has_manifest() && !Format::Elf.has_manifest());
        let codecs = [kdump, Format::Elf].map(Format::codec);
        assert_eq!(codecs, [ZSTD.fastest(), Codec::NONE]);
    }
}
