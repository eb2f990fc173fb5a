// SPDX-License-Identifier: LGPL-2.1-or-later
//! Reads kdump-compressed dumps of header version 6 as strictly as a checker
//! must: nothing in the file is believed.

use super::bitmap::{Bitmap, Bitmaps};
use super::codec::by_flag;
use super::error::Error;
use super::kdump::{
    self, BegunKdump, KdumpLayout, MainHeader, PageDescriptor, SubHeader, BLOCK, DESCRIPTOR_SIZE,
};
use crate::addr::{Page, Pfn, PAGE_SIZE};
use crate::limits::bounded::MOST_FRAMES;
use crate::os::fd;
use std::fs::{File, FileType, OpenOptions};
use std::io::{self, Seek};
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::Path;
use zerocopy::FromBytes;

/// Why something could not be read from a dump.
#[derive(Debug, thiserror::Error)]
pub(super) enum Flaw {
    /// The file ends before it, as after an interrupted write.
    #[error("ends before {0}")]
    Cut(&'static str),
    /// The file is there and says something that cannot be.
    #[error("{0}")]
    Damaged(String),
    /// The operating system could not read it.
    #[error("cannot be read")]
    Io(#[from] io::Error),
}

impl From<Flaw> for io::Error {
    fn from(flaw: Flaw) -> Self {
        match flaw {
            Flaw::Io(error) => error,
            flaw => Self::new(io::ErrorKind::InvalidData, flaw.to_string()),
        }
    }
}

/// Bytes of a dump, at any offset.
pub(super) trait Source {
    fn length(&self) -> u64;
    /// Whether some of these bytes, within the length, were cut off all the same.
    fn is_cut(&self, offset: u64, length: u64) -> bool {
        let _ = (offset, length);
        false
    }
    /// Fills `into`; the caller stays within the length.
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()>;
}

/// A file or block device and the length it had when it was opened.
pub(super) struct FileSource {
    pub(super) file: File,
    pub(super) length: u64,
}

impl FileSource {
    /// Opens a regular file or a block device. To open anything else may wait for
    /// ever, or set something off.
    pub(super) fn open(path: &Path, how: &mut OpenOptions) -> io::Result<Self> {
        let holds_dumps = |kind: FileType| match kind.is_file() || kind.is_block_device() {
            true => Ok(()),
            false => Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "neither a regular file nor a block device",
            )),
        };
        holds_dumps(path.metadata()?.file_type())?;
        // It may be another one by now.
        let file = fd::open(path, how.custom_flags(libc::O_NONBLOCK))?;
        holds_dumps(file.metadata()?.file_type())?;
        // A device's metadata has no length.
        let length = (&file).seek(io::SeekFrom::End(0))?;
        Ok(Self { file, length })
    }
}

impl Source for FileSource {
    fn length(&self) -> u64 {
        self.length
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(into, offset)
    }
}

/// What a descriptor says of its page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stored {
    /// The page was not written, or could not be read from the guest.
    Lost,
    /// The page is the one that all zero pages share.
    Zero,
    At {
        offset: u64,
        size: usize,
        flags: u32,
        /// Checksum of the page as stored, if it is told.
        sum: Option<u32>,
    },
}

pub(super) struct Reader<S> {
    source: S,
    pub(super) header: MainHeader,
    layout: KdumpLayout,
    max_mapnr: u64,
    /// Number of wanted pages.
    pub(super) wanted: u64,
}

impl<S: Source> Reader<S> {
    pub(super) fn open(source: S) -> Result<Self, Flaw> {
        let mut block = [0; BLOCK as usize];
        let first = fill(&source, "the header", 0, &mut block).map(|()| block);
        let header = match first {
            Ok(block) => parse::<MainHeader>(&block),
            Err(flaw) => return Err(flaw),
        };
        if block == [0; BLOCK as usize] {
            // What is left when the writer ended before the header was due.
            return Err(Flaw::Cut("the header"));
        }
        if header.signature != kdump::SIGNATURE {
            return Err(Flaw::Damaged("not a kdump-compressed dump".into()));
        }
        expect(
            "header version",
            header.header_version.get().into(),
            kdump::HEADER_VERSION.into(),
        )?;
        expect("block size", header.block_size.get().into(), BLOCK)?;
        fill(&source, "the sub header", BLOCK, &mut block)?;
        let sub = parse::<SubHeader>(&block);
        let max_mapnr = sub.max_mapnr_64.get();
        if max_mapnr > MOST_FRAMES {
            return Err(Flaw::Damaged(format!("{max_mapnr:#x} frames cannot be")));
        }
        let notes_end = sub.offset_note.get().checked_add(sub.size_note.get());
        let notes_len = notes_end
            .and_then(|end| end.checked_sub(BLOCK + std::mem::size_of::<SubHeader>() as u64))
            .filter(|&length| length < source.length().max(BLOCK))
            .ok_or_else(|| Flaw::Damaged("notes are outside of the dump".into()))?;
        // The number of wanted pages is only known once the bitmap is.
        let layout = KdumpLayout::new(notes_len as usize, max_mapnr, 0);
        expect(
            "size of the notes",
            u64::from(header.sub_hdr_size.get()) + 1,
            layout.bitmaps / BLOCK,
        )?;
        expect(
            "size of the bitmaps",
            header.bitmap_blocks.get().into(),
            2 * layout.bitmap_len / BLOCK,
        )?;
        let mut reader = Self {
            source,
            header,
            layout,
            max_mapnr,
            wanted: 0,
        };
        reader.wanted = reader.count_wanted()?;
        reader.layout = KdumpLayout::new(notes_len as usize, max_mapnr, reader.wanted);
        Ok(reader)
    }

    /// Whether the writer marked the dump as complete.
    pub(super) fn marked_complete(&self) -> bool {
        self.header.status.get() & kdump::INCOMPLETE == 0
    }

    /// Length the complete dump has; 0 when it does not say.
    pub(super) fn stated_length(&self) -> u64 {
        u64::from(self.header.device_blocks.get()) * BLOCK
    }

    pub(super) fn source(&self) -> &S {
        &self.source
    }

    /// Where the tables end and data starts.
    pub(super) fn tables_end(&self) -> u64 {
        self.layout.zero_page
    }

    /// Where the tables and the shared page of zeroes end.
    pub(super) fn data_start(&self) -> u64 {
        self.layout.pages
    }

    /// Where a descriptor is.
    pub(super) fn descriptor_offset(&self, rank: u64) -> u64 {
        self.layout.descriptor(rank)
    }

    /// Checks the two bitmaps against each other and counts the second.
    fn count_wanted(&self) -> Result<u64, Flaw> {
        let mut wanted = 0;
        self.for_each_bitmap_part(|first, present, dumped| {
            for (at, (present, dumped)) in present.iter().zip(dumped).enumerate() {
                let pfn = first + at as u64 * 8;
                if dumped & !present != 0 {
                    return Err(Flaw::Damaged(format!(
                        "a page near frame {pfn:#x} is dumped but not RAM"
                    )));
                }
                let beyond = self.max_mapnr.saturating_sub(pfn).min(8);
                if u32::from(*present) >> beyond != 0 {
                    return Err(Flaw::Damaged("RAM beyond the last frame".into()));
                }
                wanted += u64::from(dumped.count_ones());
            }
            Ok(())
        })?;
        Ok(wanted)
    }

    fn for_each_bitmap_part(
        &self,
        mut look: impl FnMut(u64, &[u8], &[u8]) -> Result<(), Flaw>,
    ) -> Result<(), Flaw> {
        let (mut present, mut dumped) = (vec![0; BLOCK as usize], vec![0; BLOCK as usize]);
        for at in (0..self.layout.bitmap_len).step_by(BLOCK as usize) {
            fill(
                &self.source,
                "the bitmaps",
                self.layout.bitmaps + at,
                &mut present,
            )?;
            let second = self.layout.bitmaps + self.layout.bitmap_len + at;
            fill(&self.source, "the bitmaps", second, &mut dumped)?;
            look(at * 8, &present, &dumped)?;
        }
        Ok(())
    }

    /// Which pages there are, and which are to be in the dump.
    pub(super) fn bitmaps(&self) -> Result<Bitmaps, Flaw> {
        let limit = Pfn(self.max_mapnr);
        let mut present = Bitmap::new(limit).map_err(unfit)?;
        let mut wanted = Bitmap::new(limit).map_err(unfit)?;
        self.for_each_bitmap_part(|first, in_ram, dumped| {
            for (bitmap, part) in [(&mut present, in_ram), (&mut wanted, dumped)] {
                let bytes = part.iter().enumerate().filter(|(_, byte)| **byte != 0);
                for (index, byte) in bytes {
                    let pfn = first + index as u64 * 8;
                    let bits = (0..8).filter(|bit| byte >> bit & 1 == 1);
                    bits.for_each(|bit| bitmap.set(Pfn(pfn + bit)));
                }
            }
            Ok(())
        })?;
        Bitmaps::new(present, wanted).map_err(unfit)
    }

    /// What it takes to go on with the dump, whose data ends there.
    pub(super) fn begun(self, data_end: u64) -> BegunKdump {
        BegunKdump {
            header: self.header,
            layout: self.layout,
            data_end,
        }
    }

    /// The frames to be found in the dump, in order: frame `n` has rank `n`-th.
    #[cfg(test)]
    pub(super) fn wanted_pfns(&self) -> Vec<u64> {
        let mut pfns = Vec::new();
        self.for_each_bitmap_part(|first, _, dumped| {
            let bits = 0..dumped.len() as u64 * 8;
            let set = bits.filter(|bit| dumped[(bit / 8) as usize] >> (bit % 8) & 1 == 1);
            pfns.extend(set.map(|bit| first + bit));
            Ok(())
        })
        .expect("bitmaps were read when the dump was opened");
        pfns
    }

    /// The descriptors of the wanted pages from `rank` on, at most `count`.
    pub(super) fn descriptors(&self, rank: u64, count: usize) -> Result<Vec<Stored>, Flaw> {
        let count = count.min((self.wanted - rank) as usize);
        let mut bytes = vec![0; count * DESCRIPTOR_SIZE as usize];
        fill(
            &self.source,
            "the page descriptors",
            self.layout.descriptor(rank),
            &mut bytes,
        )?;
        bytes
            .chunks_exact(DESCRIPTOR_SIZE as usize)
            .zip(rank..)
            .map(|(bytes, rank)| self.check(rank, parse(bytes)))
            .collect()
    }

    fn check(&self, rank: u64, found: PageDescriptor) -> Result<Stored, Flaw> {
        let (offset, size, flags) = (
            found.offset.get(),
            found.size.get() as usize,
            found.flags.get(),
        );
        let damaged = |what: &str| Err(Flaw::Damaged(format!("descriptor {rank}: {what}")));
        if size == 0 && flags == 0 {
            // Also with an offset: that a write of descriptors, interrupted
            // where a page of the file ends, left alone.
            return Ok(Stored::Lost);
        }
        if offset == 0 {
            return damaged("lost, but has a size");
        }
        let known = match flags {
            0 => size == PAGE_SIZE,
            _ => by_flag(flags).is_some() && (1..PAGE_SIZE).contains(&size),
        };
        if !known {
            return damaged("size or flags make no sense");
        }
        if offset < self.layout.zero_page {
            return damaged("its data would be in the tables");
        }
        match offset.checked_add(size as u64) {
            Some(end) if end <= self.source.length() => {}
            Some(_) => return Err(Flaw::Cut("a page's data")),
            None => return damaged("its data is outside of any file"),
        }
        Ok(match offset == self.layout.zero_page {
            true => Stored::Zero,
            false => Stored::At {
                offset,
                size,
                flags,
                sum: kdump::sum_in(found.page_flags.get()),
            },
        })
    }

    /// The contents of a page, checked on the way. `None` when it is lost.
    pub(super) fn page(&self, stored: Stored) -> Result<Option<Page>, Flaw> {
        let mut data = [0; PAGE_SIZE];
        let (offset, size, flags, sum) = match stored {
            Stored::Lost => return Ok(None),
            Stored::Zero => {
                let (offset, zero) = (self.layout.zero_page, crc32fast::hash(&data));
                (offset, PAGE_SIZE, 0, Some(zero))
            }
            Stored::At {
                offset,
                size,
                flags,
                sum,
            } => (offset, size, flags, sum),
        };
        fill(&self.source, "a page's data", offset, &mut data[..size])?;
        if sum.is_some_and(|sum| sum != crc32fast::hash(&data[..size])) {
            return Err(Flaw::Damaged(format!(
                "the page at {offset:#x} has changed"
            )));
        }
        let mut page = [0; PAGE_SIZE];
        let Some(codec) = by_flag(flags) else {
            return Ok(Some(data));
        };
        match (codec.unpack)(&data[..size], &mut page) {
            Some(PAGE_SIZE) => Ok(Some(page)),
            _ => Err(Flaw::Damaged(format!(
                "the page at {offset:#x} does not decompress"
            ))),
        }
    }
}

/// A dump says what cannot be held in memory, or does not fit together.
pub(super) fn unfit(error: Error) -> Flaw {
    Flaw::Damaged(error.to_string())
}

pub(super) fn fill(
    source: &impl Source,
    what: &'static str,
    offset: u64,
    into: &mut [u8],
) -> Result<(), Flaw> {
    let length = into.len() as u64;
    match offset.checked_add(length) {
        Some(end) if end <= source.length() && !source.is_cut(offset, length) => {
            Ok(source.read_at(offset, into)?)
        }
        _ => Err(Flaw::Cut(what)),
    }
}

pub(super) fn parse<T: FromBytes>(bytes: &[u8]) -> T {
    T::read_from_prefix(bytes)
        .map(|(value, _)| value)
        .unwrap_or_else(|_| unreachable!("the caller reads enough for the structure"))
}

fn expect(what: &str, found: u64, right: u64) -> Result<(), Flaw> {
    if found == right {
        return Ok(());
    }
    Err(Flaw::Damaged(format!(
        "{what} is {found:#x}, not {right:#x}"
    )))
}
