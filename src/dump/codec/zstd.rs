// SPDX-License-Identifier: LGPL-2.1-or-later
//! zstd: faster and smaller than zlib; needs crash 7.3.1, libkdumpfile 0.5.0, or a
//! makedumpfile built with it.

use super::spec::{CodecSpec, Pack};
use crate::addr::Page;
use zstd::bulk::{decompress_to_buffer, Compressor};
use zstd::zstd_safe::CParameter;

/// zstd, level -7 (fast) to 19.
pub const ZSTD: &CodecSpec = &CodecSpec {
    name: "zstd",
    // `DUMP_DH_COMPRESSED_ZSTD`, `diskdump_mod.h` of makedumpfile 1.7.2.
    flag: 0x20,
    levels: Some(-7..=19),
    fastest: 1,
    pack: |level| {
        let mut compressor = Compressor::new(level)?;
        // So that a page that was cut off or altered is an error to every reader,
        // as it is with zlib.
        compressor.set_parameter(CParameter::ChecksumFlag(true))?;
        Ok(Some(Box::new(compressor)))
    },
    unpack: |data, page| decompress_to_buffer(data, page).ok(),
};

impl Pack for Compressor<'static> {
    fn pack(&mut self, page: &Page, out: &mut [u8]) -> Option<usize> {
        self.compress_to_buffer(page, out).ok()
    }
}
