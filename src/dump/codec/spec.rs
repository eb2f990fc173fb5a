// SPDX-License-Identifier: LGPL-2.1-or-later
//! What a codec is: one row for each, and a codec at one of its levels.

use crate::addr::{Page, PAGE_SIZE};
use crate::dump::error::Error;
use std::fmt;
use std::io;
use std::ops::RangeInclusive;

/// One codec. Each page is compressed by itself, so that readers can fetch any.
pub struct CodecSpec {
    /// The codec's name, in options and for people.
    pub name: &'static str,
    /// What marks its pages in a kdump: in a descriptor, that the page's data is of
    /// this codec; in the header's status, that such pages occur.
    pub(in crate::dump) flag: u32,
    /// The levels that it has, for codecs that have any.
    pub(super) levels: Option<RangeInclusive<i32>>,
    /// The level that compresses fastest while it is still worth it.
    pub(super) fastest: i32,
    /// Makes what packs the pages of one thread at a level.
    pub(super) pack: fn(i32) -> io::Result<Option<Packer>>,
    /// Unpacks a page; how many bytes it had, or `None` of what it did not pack.
    pub(in crate::dump) unpack: fn(&[u8], &mut Page) -> Option<usize>,
}

/// What packs the pages of one thread.
pub(super) type Packer = Box<dyn Pack + Send>;

/// Packs one page after another.
pub(super) trait Pack {
    /// Packs a page into the start of `out`; how many bytes that are. `None`: there is
    /// no room for it, and what is in `out` is unspecified.
    fn pack(&mut self, page: &Page, out: &mut [u8]) -> Option<usize>;
}

impl CodecSpec {
    /// The codec that leaves pages as they are.
    pub const NONE: &'static Self = &Self {
        name: "none",
        flag: 0,
        levels: None,
        fastest: 0,
        pack: |_| Ok(None),
        unpack: |_, _| None,
    };

    /// The codec at a level; `None` when it has no such level. To one that has no
    /// levels at all any is as good as another.
    pub const fn at(&'static self, level: i32) -> Option<Codec> {
        match &self.levels {
            None => Some(self.fastest()),
            Some(levels) if *levels.start() <= level && level <= *levels.end() => {
                Some(Codec { spec: self, level })
            }
            Some(_) => None,
        }
    }

    /// The codec at the level that compresses fastest while it is still worth it.
    pub const fn fastest(&'static self) -> Codec {
        Codec {
            spec: self,
            level: self.fastest,
        }
    }

    /// The codec's highest level, where it has levels.
    pub fn highest_level(&self) -> Option<i32> {
        self.levels.as_ref().map(|levels| *levels.end())
    }
}

impl PartialEq for CodecSpec {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for CodecSpec {}

impl fmt::Debug for CodecSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// How the pages of a dump are compressed: a codec, at a level that it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Codec {
    spec: &'static CodecSpec,
    level: i32,
}

impl Codec {
    /// No compression at all.
    pub const NONE: Self = CodecSpec::NONE.fastest();

    /// The codec, whatever its level.
    pub fn spec(self) -> &'static CodecSpec {
        self.spec
    }

    /// A compressor for one thread.
    ///
    /// # Errors
    /// When the codec's library refuses.
    pub(in crate::dump) fn compressor(self) -> Result<Compressor, Error> {
        let packer = (self.spec.pack)(self.level).map_err(|source| Error::Codec {
            codec: self.spec.name,
            source,
        })?;
        Ok(Compressor {
            flag: self.spec.flag,
            packer,
        })
    }
}

/// One thread's compressor, reused for every page.
pub(in crate::dump) struct Compressor {
    /// What descriptors of compressed pages carry.
    pub(in crate::dump) flag: u32,
    packer: Option<Packer>,
}

impl Compressor {
    /// Whether pages stay as they are.
    pub(in crate::dump) fn is_none(&self) -> bool {
        self.packer.is_none()
    }

    /// Compresses into the start of `out`, which has room for a page. `None`:
    /// the page does not get smaller; what is in `out` is then unspecified.
    pub(in crate::dump) fn compress(&mut self, page: &Page, out: &mut [u8]) -> Option<usize> {
        let out = &mut out[..PAGE_SIZE - 1];
        self.packer.as_mut()?.pack(page, out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dump::{ZLIB, ZSTD};

    #[test]
    fn codecs_are_told_from_each_other_by_their_names() {
        let names = [CodecSpec::NONE, ZLIB, ZSTD].map(|spec| format!("{spec:?}"));
        assert_eq!(names, ["none", "zlib", "zstd"]);
        assert_ne!(ZLIB.fastest(), ZSTD.fastest());
        let highest = [CodecSpec::NONE, ZLIB, ZSTD].map(CodecSpec::highest_level);
        assert_eq!(highest, [None, Some(9), Some(19)]);
    }

    /// Takes all the room that there is.
    struct Greedy;

    impl Pack for Greedy {
        fn pack(&mut self, _page: &Page, out: &mut [u8]) -> Option<usize> {
            Some(out.len())
        }
    }

    #[test]
    fn a_packed_page_is_smaller_than_a_page() {
        let mut compressor = Compressor {
            flag: 1,
            packer: Some(Box::new(Greedy)),
        };
        let packed = compressor.compress(&[0; PAGE_SIZE], &mut [0; 2 * PAGE_SIZE]);
        assert_eq!(packed, Some(PAGE_SIZE - 1));
    }
}
