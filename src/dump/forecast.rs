// SPDX-License-Identifier: LGPL-2.1-or-later
//! How large a dump is: what its tables take, and what a page does.

use super::bitmap::Bitmaps;
use super::buffer::State;
use super::codec::Compressor;
use super::elf;
use super::error::Error;
use super::facts::Facts;
use super::format::Format;
use super::kdump::{self, BLOCK};
use super::notes::{Notes, Status};
use super::pack::{is_zero, store_compressed};
use crate::addr::{Page, PAGE_SIZE};

/// The size of dumps of one guest, from the number of pages in them and the bytes
/// that those take.
pub struct DumpSize(Tables);

enum Tables {
    Kdump { notes: usize, frames: u64 },
    Elf { headers: u64 },
}

/// What a file system needs, at most, to note where one page of an ELF dump is when
/// those beside it are holes (ext4 12 bytes, XFS 16).
const EXTENT_BYTES: u64 = 16;

impl DumpSize {
    /// The size of dumps with these notes and this RAM.
    ///
    /// # Errors
    /// When the format cannot hold such a dump at all.
    pub fn new(format: Format, facts: &Facts, bitmaps: &Bitmaps) -> Result<Self, Error> {
        let mut notes = Notes::new(facts);
        Ok(Self(match format {
            Format::Kdump(_) => Tables::Kdump {
                notes: notes.bytes.len(),
                frames: bitmaps.present().limit().0,
            },
            Format::Elf => {
                notes.set_status(Status::Incomplete);
                let length = notes.bytes.len();
                let layout = elf::ElfLayout::new(length, bitmaps.present())?;
                Tables::Elf {
                    headers: (layout.notes + length as u64).next_multiple_of(BLOCK),
                }
            }
        }))
    }

    /// Headers, notes and tables of a dump of so many pages.
    fn tables(&self, pages: u64) -> u64 {
        match self.0 {
            Tables::Kdump { notes, frames } => kdump::KdumpLayout::new(notes, frames, pages).pages,
            Tables::Elf { headers } => {
                let extents = pages.saturating_mul(EXTENT_BYTES);
                headers + extents.checked_next_multiple_of(BLOCK).unwrap_or(extents)
            }
        }
    }

    /// Bytes on disk of a dump of so many pages, which take so many bytes: a kdump's
    /// length; what is not a hole of an ELF dump.
    pub fn of(&self, pages: u64, data: u64) -> u64 {
        let whole = self.tables(pages).saturating_add(data);
        whole.checked_next_multiple_of(BLOCK).unwrap_or(whole)
    }

    /// Bytes that so many pages may take in a dump of at most `limit` bytes.
    pub(super) fn data_within(&self, pages: u64, limit: u64) -> u64 {
        room_after(self.tables(pages), limit)
    }
}

/// Bytes that more pages may take behind so many others in a dump of at most `limit`
/// bytes, which is whole blocks long.
pub(super) fn room_after(taken: u64, limit: u64) -> u64 {
    (limit / BLOCK * BLOCK).saturating_sub(taken.next_multiple_of(BLOCK))
}

/// Compresses pages as the dump would, to see how large they become.
pub struct Sizer(Compressor);

impl Sizer {
    /// A sizer of pages in a dump of this format.
    ///
    /// # Errors
    /// When the codec's library refuses.
    pub fn new(format: Format) -> Result<Self, Error> {
        format.codec().compressor().map(Self)
    }

    /// Bytes that a page takes in the dump, beside what tables have of it.
    pub fn size_of(&mut self, page: &Page) -> u32 {
        if is_zero(page) {
            return 0;
        }
        let mut out = [0; PAGE_SIZE];
        match store_compressed(&mut self.0, &mut out, page) {
            State::Stored { size, .. } => size,
            State::Zero | State::Unreadable | State::NoRoom => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dump::tests::guest::{config, Guest, CHUNK};
    use crate::dump::tests::recorder::Recorder;
    use crate::dump::{Codec, EngineConfig, ZLIB, ZSTD};

    #[test]
    fn a_dump_is_as_large_as_its_pages_say() {
        let guest = Guest {
            frames: 2000,
            seed: 4,
        };
        for codec in [Codec::NONE, ZLIB.fastest(), ZSTD.fastest()] {
            let format = Format::Kdump(codec);
            let mut sizer = Sizer::new(format).unwrap();
            let there = |pfn: &u64| guest.wanted(*pfn) && !guest.unreadable(*pfn);
            let data: u64 = (0..guest.frames)
                .filter(there)
                .map(|pfn| u64::from(sizer.size_of(&guest.page(pfn))))
                .sum();
            let bitmaps = guest.bitmaps();
            let size = DumpSize::new(format, &guest.facts(), &bitmaps).unwrap();
            let config = EngineConfig {
                format,
                ..config(codec)
            };
            let (engine, _completed) = guest.start(Recorder::new(1), config);
            for chunk in guest.chunks(CHUNK) {
                engine.submit(chunk).unwrap();
            }
            let length = engine.finish().unwrap().length;
            let wanted = bitmaps.wanted_total();
            assert_eq!(size.of(wanted, data), length, "{codec:?}");
            assert!(size.data_within(wanted, length) >= data);
            assert!(size.data_within(wanted, length - 1) < data);
        }
    }

    #[test]
    fn an_elf_dump_takes_its_headers_extents_and_pages_in_whole_blocks() {
        let guest = Guest {
            frames: 2000,
            seed: 4,
        };
        let size = DumpSize::new(Format::Elf, &guest.facts(), &guest.bitmaps()).unwrap();
        // Headers and notes take a block, 256 pages beside holes are noted in another.
        assert_eq!(size.of(0, 0), 4096);
        assert_eq!(size.of(256, 0), 2 * 4096);
        assert_eq!(size.of(257, 4097), 5 * 4096);
        assert_eq!(size.data_within(257, 6 * 4096 - 1), 2 * 4096);
        assert_eq!(size.data_within(257, 4096), 0);
        let mut sizer = Sizer::new(Format::Elf).unwrap();
        let sizes = [guest.page(0), guest.page(2)].map(|page| sizer.size_of(&page));
        assert_eq!(sizes, [0, 4096]);
    }
}
