// SPDX-License-Identifier: LGPL-2.1-or-later
//! zlib: every reader knows it.

use super::spec::{CodecSpec, Pack};
use crate::addr::Page;
use libdeflater::{CompressionLvl, Compressor, Decompressor};
use std::io;

/// zlib, level 1 (fast) to 9.
pub const ZLIB: &CodecSpec = &CodecSpec {
    name: "zlib",
    // `DUMP_DH_COMPRESSED_ZLIB`, `diskdump_mod.h` of makedumpfile 1.7.2.
    flag: 0x1,
    levels: Some(1..=9),
    fastest: 1,
    pack: |level| {
        let level = CompressionLvl::new(level)
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "no such level"))?;
        Ok(Some(Box::new(Compressor::new(level))))
    },
    unpack: |data, page| Decompressor::new().zlib_decompress(data, page).ok(),
};

impl Pack for Compressor {
    fn pack(&mut self, page: &Page, out: &mut [u8]) -> Option<usize> {
        self.zlib_compress(page, out).ok()
    }
}
