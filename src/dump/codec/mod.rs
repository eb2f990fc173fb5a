// SPDX-License-Identifier: LGPL-2.1-or-later
//! Compression of single pages. A codec is a file here and a row of [`CODECS`], and
//! nothing else.

mod spec;
mod zlib;
mod zstd;

pub(super) use spec::Compressor;
pub use spec::{Codec, CodecSpec};
pub use zlib::ZLIB;
pub use zstd::ZSTD;

/// Every codec, in the order in which the documentation lists them.
pub const CODECS: &[&CodecSpec] = &[CodecSpec::NONE, ZLIB, ZSTD];

/// The codec of pages that are marked so in a kdump, if there is one.
pub(super) fn by_flag(flag: u32) -> Option<&'static CodecSpec> {
    let mut packed = CODECS.iter().filter(|spec| spec.flag != 0);
    packed.find(|spec| spec.flag == flag).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::{Page, PAGE_SIZE};

    fn text() -> Page {
        let line = b"BUG: unable to handle page fault for address ";
        std::array::from_fn(|i| line[i % line.len()] ^ (i / 512) as u8)
    }

    #[test]
    fn what_was_compressed_comes_back() {
        for codec in [
            ZLIB.fastest(),
            ZLIB.at(9).unwrap(),
            ZSTD.at(-7).unwrap(),
            ZSTD.at(3).unwrap(),
        ] {
            let mut out = [0; PAGE_SIZE];
            let size = codec
                .compressor()
                .unwrap()
                .compress(&text(), &mut out)
                .unwrap();
            let mut back = [0; PAGE_SIZE];
            let length = (codec.spec().unpack)(&out[..size], &mut back).unwrap();
            assert!(length == PAGE_SIZE && back == text(), "{codec:?}");
            assert!(size < PAGE_SIZE / 4, "{codec:?} needs {size} bytes");
        }
    }

    #[test]
    fn an_altered_page_is_noticed() {
        for codec in [ZLIB.fastest(), ZSTD.fastest()] {
            let mut out = [0; PAGE_SIZE];
            let size = codec
                .compressor()
                .unwrap()
                .compress(&text(), &mut out)
                .unwrap();
            // The end is zero, as after the end of a file that was cut off.
            out[size - 2..].fill(0);
            let mut back = [0; PAGE_SIZE];
            let refused = (codec.spec().unpack)(&out[..size], &mut back).is_none();
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
        for codec in [ZLIB.fastest(), ZSTD.fastest()] {
            let size = codec
                .compressor()
                .unwrap()
                .compress(&noise, &mut [0; PAGE_SIZE]);
            assert_eq!(size, None, "{codec:?}");
        }
    }

    #[test]
    fn levels_that_do_not_exist_are_refused() {
        for (spec, level) in [(ZLIB, 0), (ZLIB, 10), (ZSTD, -8), (ZSTD, 20)] {
            assert_eq!(spec.at(level), None, "{spec:?} {level}");
        }
    }

    #[test]
    fn every_codec_has_its_own_name_and_flag_and_works_at_its_fastest() {
        for (index, spec) in CODECS.iter().enumerate() {
            let same = |other: &&&CodecSpec| other.name == spec.name || other.flag == spec.flag;
            assert_eq!(CODECS.iter().position(|other| same(&other)), Some(index));
            assert_eq!(spec.at(spec.fastest), Some(spec.fastest()));
            assert!(spec.fastest().compressor().is_ok(), "{spec:?}");
        }
    }
}
