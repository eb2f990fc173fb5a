// SPDX-License-Identifier: LGPL-2.1-or-later
//! Compression of single pages.

use super::error::Error;
use super::kdump;
use crate::addr::{Page, PAGE_SIZE};
use libdeflater::{CompressionLvl, Compressor as Deflate};
use zstd::zstd_safe::CParameter;

/// How pages are compressed. Each page by itself, so that readers can fetch any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    /// Not at all.
    None,
    /// zlib, level 1 (fast) to 9; every reader knows it.
    Zlib {
        /// 1 to 9.
        level: i32,
    },
    /// zstd, level -7 (fast) to 19; needs crash 7.3.1, libkdumpfile 0.5.0, or a
    /// makedumpfile built with it.
    Zstd {
        /// -7 to 19.
        level: i32,
    },
}

impl Codec {
    /// The flag that descriptors of compressed pages carry.
    pub(super) fn flag(self) -> u32 {
        match self {
            Self::None => 0,
            Self::Zlib { .. } => kdump::COMPRESSED_ZLIB,
            Self::Zstd { .. } => kdump::COMPRESSED_ZSTD,
        }
    }

    /// # Errors
    /// When the codec has no such level.
    pub(super) fn compressor(self) -> Result<Compressor, Error> {
        match self {
            Self::None => Ok(Compressor::None),
            Self::Zlib { level } => match CompressionLvl::new(level) {
                Ok(deflate_level) if (1..=9).contains(&level) => {
                    Ok(Compressor::Zlib(Deflate::new(deflate_level)))
                }
                _ => Err(Error::Level {
                    codec: "zlib",
                    level,
                    allowed: "1 to 9",
                }),
            },
            Self::Zstd { level } => zstd_compressor(level).ok_or(Error::Level {
                codec: "zstd",
                level,
                allowed: "-7 to 19",
            }),
        }
    }
}

fn zstd_compressor(level: i32) -> Option<Compressor> {
    if !(-7..=19).contains(&level) {
        return None;
    }
    let mut compressor = zstd::bulk::Compressor::new(level).ok()?;
    // So that a page that was cut off or altered is an error to every reader,
    // as it is with zlib.
    compressor
        .set_parameter(CParameter::ChecksumFlag(true))
        .ok()?;
    Some(Compressor::Zstd(compressor))
}

/// One thread's compressor, reused for every page.
pub(super) enum Compressor {
    None,
    Zlib(Deflate),
    Zstd(zstd::bulk::Compressor<'static>),
}

impl Compressor {
    /// Compresses into the start of `out`, which has room for a page. `None`:
    /// the page does not get smaller; what is in `out` is then unspecified.
    pub(super) fn compress(&mut self, page: &Page, out: &mut [u8]) -> Option<usize> {
        let out = &mut out[..PAGE_SIZE - 1];
        match self {
            Self::None => None,
            Self::Zlib(deflate) => deflate.zlib_compress(page, out).ok(),
            Self::Zstd(zstd) => zstd.compress_to_buffer(page, out).ok(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text() -> Page {
        let line = b"BUG: unable to handle page fault for address ";
        std::array::from_fn(|i| line[i % line.len()] ^ (i / 512) as u8)
    }

    #[test]
    fn what_was_compressed_comes_back() {
        for codec in [
            Codec::Zlib { level: 1 },
            Codec::Zlib { level: 9 },
            Codec::Zstd { level: -7 },
            Codec::Zstd { level: 3 },
        ] {
            let mut out = [0; PAGE_SIZE];
            let size = codec
                .compressor()
                .unwrap()
                .compress(&text(), &mut out)
                .unwrap();
            let mut back = [0; PAGE_SIZE];
            let length = match codec {
                Codec::Zlib { .. } => libdeflater::Decompressor::new()
                    .zlib_decompress(&out[..size], &mut back)
                    .unwrap(),
                _ => zstd::bulk::decompress_to_buffer(&out[..size], &mut back).unwrap(),
            };
            assert!(length == PAGE_SIZE && back == text(), "{codec:?}");
            assert!(size < PAGE_SIZE / 4, "{codec:?} needs {size} bytes");
        }
    }

    #[test]
    fn an_altered_page_is_noticed() {
        for codec in [Codec::Zlib { level: 1 }, Codec::Zstd { level: 1 }] {
            let mut out = [0; PAGE_SIZE];
            let size = codec
                .compressor()
                .unwrap()
                .compress(&text(), &mut out)
                .unwrap();
            // The end is zero, as after the end of a file that was cut off.
            out[size - 2..].fill(0);
            let mut back = [0; PAGE_SIZE];
            let refused = match codec {
                Codec::Zlib { .. } => libdeflater::Decompressor::new()
                    .zlib_decompress(&out[..size], &mut back)
                    .is_err(),
                _ => zstd::bulk::decompress_to_buffer(&out[..size], &mut back).is_err(),
            };
            assert!(refused, "{codec:?}");
        }
    }

    #[test]
    fn noise_does_not_grow() {
        let mut state = 1u64;
        let noise: Page = std::array::from_fn(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 33) as u8
        });
        for codec in [Codec::Zlib { level: 1 }, Codec::Zstd { level: 1 }] {
            let size = codec
                .compressor()
                .unwrap()
                .compress(&noise, &mut [0; PAGE_SIZE]);
            assert_eq!(size, None, "{codec:?}");
        }
    }

    #[test]
    fn levels_that_do_not_exist_are_refused() {
        for codec in [
            Codec::Zlib { level: 0 },
            Codec::Zlib { level: 10 },
            Codec::Zstd { level: 20 },
        ] {
            assert!(
                matches!(codec.compressor(), Err(Error::Level { .. })),
                "{codec:?}"
            );
        }
    }
}
