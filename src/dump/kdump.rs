// SPDX-License-Identifier: LGPL-2.1-or-later
//! The kdump-compressed format, header version 6, as on disk.
//!
//! Source of every structure and constant: `diskdump_mod.h` of makedumpfile
//! 1.7.2 (x86-64, natural alignment), read the same way by `diskdump.c` of
//! libkdumpfile 0.5.1. Where things are in a file, in blocks of one page:
//!
//! | part | starts at |
//! | --- | --- |
//! | [`MainHeader`] | 0 |
//! | [`SubHeader`], then the notes | 1 |
//! | bitmap of present pages, then bitmap of wanted pages | 1 + `sub_hdr_size` |
//! | one [`PageDescriptor`] per wanted page | after the bitmaps |
//! | page data | after the descriptors, in any order |

use super::bitmap::Bitmaps;
use super::error::Error;
use super::facts::{Facts, Utsname};
use super::notes::Notes;
use crate::addr::PAGE_SIZE;
use zerocopy::byteorder::little_endian::{I64, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `KDUMP_SIGNATURE`.
pub(super) const SIGNATURE: [u8; 8] = *b"KDUMP   ";
/// Version 6 added the 64-bit frame numbers at the sub header's end.
pub(super) const HEADER_VERSION: u32 = 6;
/// Size of a block; readers take it for the guest's page size.
pub(super) const BLOCK: u64 = PAGE_SIZE as u64;

/// In the header's status: the dump is not complete (`DUMP_DH_COMPRESSED_INCOMPLETE`).
pub(super) const INCOMPLETE: u32 = 0x8;

/// `struct new_utsname`: six strings of at most 64 bytes and a NUL.
#[derive(IntoBytes, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct RawUtsname([[u8; 65]; 6]);

/// `struct disk_dump_header`, 464 bytes. All fields exist since version 0.
#[derive(IntoBytes, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct MainHeader {
    pub(super) signature: [u8; 8],
    pub(super) header_version: U32,
    pub(super) utsname: RawUtsname,
    pad: [u8; 6],
    pub(super) timestamp_s: U64,
    /// Always 0: libkdumpfile 0.5.1 first tries the 32-bit layout, which has
    /// its block size here, and would accept some values for one.
    pub(super) timestamp_us: U64,
    pub(super) status: U32,
    pub(super) block_size: U32,
    pub(super) sub_hdr_size: U32,
    pub(super) bitmap_blocks: U32,
    /// Limited to 32 bits; the whole number is in [`SubHeader::max_mapnr_64`].
    pub(super) max_mapnr: U32,
    /// No reader uses this: pages that are RAM, at most `u32::MAX`.
    pub(super) total_ram_blocks: U32,
    /// No reader uses this: length of a complete dump in blocks, 0 when unknown.
    pub(super) device_blocks: U32,
    /// No reader uses this: pages written, at most `u32::MAX`.
    pub(super) written_blocks: U32,
    pub(super) current_cpu: U32,
    pub(super) nr_cpus: U32,
}

/// `struct kdump_sub_header`, 104 bytes.
#[derive(IntoBytes, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct SubHeader {
    pub(super) phys_base: I64,
    /// Since version 1.
    pub(super) dump_level: U32,
    /// Since version 2; 1 when this file is one of several.
    pub(super) split: U32,
    /// Since version 2; as large as 32 bits allow.
    pub(super) start_pfn: U64,
    /// Since version 2; as large as 32 bits allow.
    pub(super) end_pfn: U64,
    /// Since version 3.
    pub(super) offset_vmcoreinfo: U64,
    /// Since version 3.
    pub(super) size_vmcoreinfo: U64,
    /// Since version 4.
    pub(super) offset_note: U64,
    /// Since version 4.
    pub(super) size_note: U64,
    /// Since version 5.
    pub(super) offset_eraseinfo: U64,
    /// Since version 5.
    pub(super) size_eraseinfo: U64,
    /// Since version 6.
    pub(super) start_pfn_64: U64,
    /// Since version 6.
    pub(super) end_pfn_64: U64,
    /// Since version 6.
    pub(super) max_mapnr_64: U64,
}

/// `struct page_desc`, 24 bytes. All zero: the page is lost.
#[derive(IntoBytes, FromBytes, Immutable, KnownLayout, Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(super) struct PageDescriptor {
    pub(super) offset: U64,
    pub(super) size: U32,
    /// 0: stored as it is.
    pub(super) flags: U32,
    /// No reader uses this, and makedumpfile writes 0: see [`summed`].
    pub(super) page_flags: U64,
}

/// In the upper half of a descriptor's `page_flags`: the lower half is the CRC-32 of
/// the page's data as it is in the file.
const SUM_FOLLOWS: u64 = 0x7663_7263;

/// A descriptor's `page_flags` for data with this checksum.
pub(super) fn summed(sum: u32) -> u64 {
    SUM_FOLLOWS << 32 | u64::from(sum)
}

/// The checksum that `page_flags` hold, if they do.
pub(super) fn sum_in(page_flags: u64) -> Option<u32> {
    (page_flags >> 32 == SUM_FOLLOWS).then_some(page_flags as u32)
}

/// Size of [`PageDescriptor`].
pub(super) const DESCRIPTOR_SIZE: u64 = 24;

/// Where the parts of one dump are, in bytes from its start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct KdumpLayout {
    pub(super) notes: u64,
    pub(super) bitmaps: u64,
    /// Length of each of the two bitmaps, whole blocks.
    pub(super) bitmap_len: u64,
    pub(super) descriptors: u64,
    /// Where data starts: the page that all zero pages share.
    pub(super) zero_page: u64,
    /// Where the data of other pages may start.
    pub(super) pages: u64,
}

impl KdumpLayout {
    pub(super) fn new(notes_len: usize, max_mapnr: u64, wanted: u64) -> Self {
        let notes = BLOCK + std::mem::size_of::<SubHeader>() as u64;
        let bitmaps = (notes + notes_len as u64).next_multiple_of(BLOCK);
        let bitmap_len = max_mapnr.div_ceil(8).next_multiple_of(BLOCK);
        let descriptors = bitmaps + 2 * bitmap_len;
        let zero_page = (descriptors + wanted * DESCRIPTOR_SIZE).next_multiple_of(BLOCK);
        Self {
            notes,
            bitmaps,
            bitmap_len,
            descriptors,
            zero_page,
            pages: zero_page + BLOCK,
        }
    }

    /// Where the descriptor of the wanted page number `rank` is.
    pub(super) fn descriptor(&self, rank: u64) -> u64 {
        self.descriptors + rank * DESCRIPTOR_SIZE
    }
}

/// A dump that another process has begun.
pub(super) struct BegunKdump {
    pub(super) header: MainHeader,
    pub(super) layout: KdumpLayout,
    /// Where the data of pages that are in it ends.
    pub(super) data_end: u64,
}

/// The main header of an incomplete dump.
pub(super) fn main_header(
    facts: &Facts,
    bitmaps: &Bitmaps,
    layout: &KdumpLayout,
    codec_flag: u32,
) -> Result<MainHeader, Error> {
    let bitmap_blocks = 2 * layout.bitmap_len / BLOCK;
    Ok(MainHeader {
        signature: SIGNATURE,
        header_version: U32::new(HEADER_VERSION),
        utsname: RawUtsname::new(&facts.utsname),
        pad: [0; 6],
        timestamp_s: U64::new(facts.timestamp_s),
        timestamp_us: U64::ZERO,
        status: U32::new(INCOMPLETE | codec_flag),
        block_size: U32::new(BLOCK as u32),
        sub_hdr_size: fits("size of the notes", layout.bitmaps / BLOCK - 1)?,
        bitmap_blocks: fits("size of the bitmaps", bitmap_blocks)?,
        max_mapnr: capped(bitmaps.present().limit().0),
        total_ram_blocks: capped(bitmaps.present().count()),
        device_blocks: U32::ZERO,
        written_blocks: U32::ZERO,
        current_cpu: U32::ZERO,
        nr_cpus: fits("number of vCPUs", facts.vcpus.len().max(1) as u64)?,
    })
}

pub(super) fn sub_header(
    facts: &Facts,
    notes: &Notes,
    layout: &KdumpLayout,
    max_mapnr: u64,
) -> SubHeader {
    SubHeader {
        phys_base: I64::new(facts.phys_base),
        dump_level: U32::new(facts.dump_level),
        split: U32::ZERO,
        start_pfn: U64::ZERO,
        end_pfn: U64::new(max_mapnr.min(u32::MAX.into())),
        offset_vmcoreinfo: U64::new(layout.notes + notes.vmcoreinfo.start as u64),
        size_vmcoreinfo: U64::new(notes.vmcoreinfo.len() as u64),
        offset_note: U64::new(layout.notes),
        size_note: U64::new(notes.bytes.len() as u64),
        offset_eraseinfo: U64::ZERO,
        size_eraseinfo: U64::ZERO,
        start_pfn_64: U64::ZERO,
        end_pfn_64: U64::new(max_mapnr),
        max_mapnr_64: U64::new(max_mapnr),
    }
}

impl RawUtsname {
    /// libkdumpfile 0.5.1 ignores all names and then cannot tell the architecture,
    /// unless the first is "Linux" and release, version and machine are not empty
    /// (`uts_looks_sane`, `util.c`). So what is not known of a Linux is filled in.
    fn new(names: &Utsname) -> Self {
        let names = [
            (&names.sysname, "(unknown)"),
            (&names.nodename, ""),
            (&names.release, "(unknown)"),
            (&names.version, "(unknown)"),
            (&names.machine, "x86_64"),
            (&names.domainname, ""),
        ];
        Self(names.map(|(name, unknown)| {
            let name = if name.is_empty() { unknown } else { name };
            let mut field = [0; 65];
            let length = name.len().min(64);
            field[..length].copy_from_slice(&name.as_bytes()[..length]);
            field
        }))
    }
}

/// For fields that only inform: the value, or the largest there is room for.
pub(super) fn capped(value: u64) -> U32 {
    U32::new(value.min(u32::MAX.into()) as u32)
}

/// For fields that readers compute with; they are signed in some readers.
fn fits(what: &'static str, value: u64) -> Result<U32, Error> {
    match i32::try_from(value) {
        Ok(small) => Ok(U32::new(small as u32)),
        Err(_) => Err(Error::TooLarge { what, value }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::Pfn;
    use crate::dump::bitmap::Bitmap;
    use std::mem::{offset_of, size_of};

    /// Offsets printed by a C program that includes diskdump_mod.h, x86-64.
    #[test]
    fn fields_are_where_c_puts_them() {
        assert_eq!(size_of::<MainHeader>(), 464);
        assert_eq!(offset_of!(MainHeader, header_version), 8);
        assert_eq!(offset_of!(MainHeader, utsname), 12);
        assert_eq!(offset_of!(MainHeader, timestamp_s), 408);
        assert_eq!(offset_of!(MainHeader, status), 424);
        assert_eq!(offset_of!(MainHeader, block_size), 428);
        assert_eq!(offset_of!(MainHeader, bitmap_blocks), 436);
        assert_eq!(offset_of!(MainHeader, max_mapnr), 440);
        assert_eq!(offset_of!(MainHeader, nr_cpus), 460);
        assert_eq!(size_of::<SubHeader>(), 104);
        assert_eq!(offset_of!(SubHeader, dump_level), 8);
        assert_eq!(offset_of!(SubHeader, offset_vmcoreinfo), 32);
        assert_eq!(offset_of!(SubHeader, offset_note), 48);
        assert_eq!(offset_of!(SubHeader, max_mapnr_64), 96);
        assert_eq!(size_of::<PageDescriptor>() as u64, DESCRIPTOR_SIZE);
        assert_eq!(offset_of!(PageDescriptor, flags), 12);
    }

    #[test]
    fn parts_follow_each_other_in_whole_blocks() {
        // 400 bytes of notes end in block 1; 40000 frames need 5000 bytes.
        let layout = KdumpLayout::new(400, 40_000, 1_000);
        assert_eq!(layout.notes, 4096 + 104);
        assert_eq!(layout.bitmaps, 2 * 4096);
        assert_eq!(layout.bitmap_len, 2 * 4096);
        assert_eq!(layout.descriptors, 6 * 4096);
        assert_eq!(layout.descriptor(10), 6 * 4096 + 240);
        assert_eq!(layout.zero_page, 12 * 4096);
        assert_eq!(layout.pages, 13 * 4096);
    }

    #[test]
    fn beyond_32_bits_the_old_fields_are_capped_and_the_new_ones_are_whole() {
        let facts = Facts::default();
        let notes = Notes::new(&facts);
        let max_mapnr = 0x1_2345_6789;
        let layout = KdumpLayout::new(notes.bytes.len(), max_mapnr, 1);
        let sub = sub_header(&facts, &notes, &layout, max_mapnr);
        assert_eq!(sub.max_mapnr_64.get(), max_mapnr);
        assert_eq!(sub.end_pfn_64.get(), max_mapnr);
        assert_eq!(sub.end_pfn.get(), 0xffff_ffff);
        assert_eq!(capped(max_mapnr).get(), 0xffff_ffff);
    }

    #[test]
    fn a_header_starts_incomplete_and_names_its_codec() {
        let facts = Facts {
            utsname: Utsname {
                release: "r".repeat(100),
                ..Default::default()
            },
            ..Default::default()
        };
        let bits = Bitmap::new(Pfn(100)).unwrap();
        let bitmaps = Bitmaps::new(bits.clone(), bits).unwrap();
        let layout = KdumpLayout::new(0, 100, 0);
        let header = main_header(&facts, &bitmaps, &layout, 0x20).unwrap();
        assert_eq!(header.status.get(), 0x28);
        assert_eq!(header.nr_cpus.get(), 1);
        let bytes = header.as_bytes();
        assert_eq!(&bytes[..8], b"KDUMP   ");
        assert_eq!(&bytes[12 + 4 * 65..][..7], b"x86_64\0");
        assert_eq!(bytes[12 + 2 * 65 + 63..][..2], [b'r', 0]);
        // What is not known is not said to be Linux.
        assert_eq!(&bytes[12..22], b"(unknown)\0");
        assert_eq!(&bytes[12 + 3 * 65..][..10], b"(unknown)\0");
    }
}
