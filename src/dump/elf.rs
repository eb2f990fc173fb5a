// SPDX-License-Identifier: LGPL-2.1-or-later
//! ELF vmcore as on disk.
//!
//! Source of structures and constants: `include/uapi/linux/elf.h` of Linux
//! 6.1. One PT_NOTE, then one PT_LOAD per run of RAM; the program headers are
//! right behind the ELF header, where makedumpfile insists on them.

use super::bitmap::Bitmap;
use super::error::Error;
use super::notes::{Notes, Status, STATUS_NOTE};
use super::reader::{fill, parse, Flaw, Source};
use crate::addr::{Pfn, PAGE_SIZE};
use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `ELFMAG`, `ELFCLASS64`, `ELFDATA2LSB`, `EV_CURRENT`.
pub(super) const IDENT: [u8; 16] = *b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0";
const ET_CORE: u16 = 4;
const EM_X86_64: u16 = 62;
const PT_NULL: u32 = 0;
const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;
/// `PF_R | PF_W | PF_X`.
const ALL_PERMISSIONS: u32 = 7;
/// `PN_XNUM`: from here on the count would be elsewhere.
const TOO_MANY: usize = 0xffff;

/// `Elf64_Ehdr`.
#[derive(IntoBytes, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct ElfHeader {
    ident: [u8; 16],
    pub(super) kind: U16,
    pub(super) machine: U16,
    version: U32,
    entry: U64,
    pub(super) program_headers: U64,
    section_headers: U64,
    flags: U32,
    header_size: U16,
    pub(super) program_header_size: U16,
    pub(super) program_header_count: U16,
    section_header_size: U16,
    section_header_count: U16,
    section_names: U16,
}

/// `Elf64_Phdr`.
#[derive(IntoBytes, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct ProgramHeader {
    pub(super) kind: U32,
    flags: U32,
    pub(super) offset: U64,
    virtual_address: U64,
    physical_address: U64,
    pub(super) file_size: U64,
    memory_size: U64,
    align: U64,
}

/// A run of RAM and where its first page is in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Segment {
    start: Pfn,
    end: Pfn,
    offset: u64,
}

/// Where things are in one ELF dump.
pub(super) struct ElfLayout {
    pub(super) notes: u64,
    notes_len: u64,
    segments: Vec<Segment>,
    /// Length of the whole file.
    pub(super) length: u64,
}

impl ElfLayout {
    /// # Errors
    /// When RAM has more runs than an ELF file has segments.
    pub(super) fn new(notes_len: usize, present: &Bitmap) -> Result<Self, Error> {
        let runs: Vec<_> = present.runs().collect();
        let headers = runs.len() + 1;
        if headers >= TOO_MANY {
            return Err(Error::TooLarge {
                what: "number of runs of RAM",
                value: runs.len() as u64,
            });
        }
        let notes = size_of::<ElfHeader>() + headers * size_of::<ProgramHeader>();
        let mut offset = ((notes + notes_len) as u64).next_multiple_of(PAGE_SIZE as u64);
        let segments = runs
            .into_iter()
            .map(|(start, end)| {
                let segment = Segment { start, end, offset };
                offset += (end.0 - start.0) * PAGE_SIZE as u64;
                segment
            })
            .collect();
        Ok(Self {
            notes: notes as u64,
            notes_len: notes_len as u64,
            segments,
            length: offset,
        })
    }

    /// Where in the file a page of RAM has its place.
    pub(super) fn place(&self, pfn: Pfn) -> u64 {
        let after = self
            .segments
            .partition_point(|segment| segment.start <= pfn);
        let segment = &self.segments[after - 1];
        debug_assert!(pfn < segment.end, "{pfn:?} is not RAM");
        segment.offset + (pfn.0 - segment.start.0) * PAGE_SIZE as u64
    }

    /// All headers.
    pub(super) fn headers(&self) -> Vec<u8> {
        let header = ElfHeader {
            ident: IDENT,
            kind: U16::new(ET_CORE),
            machine: U16::new(EM_X86_64),
            version: U32::new(1),
            entry: U64::ZERO,
            program_headers: U64::new(size_of::<ElfHeader>() as u64),
            section_headers: U64::ZERO,
            flags: U32::ZERO,
            header_size: U16::new(size_of::<ElfHeader>() as u16),
            program_header_size: U16::new(size_of::<ProgramHeader>() as u16),
            program_header_count: U16::new(self.segments.len() as u16 + 1),
            section_header_size: U16::ZERO,
            section_header_count: U16::ZERO,
            section_names: U16::ZERO,
        };
        let mut bytes = header.as_bytes().to_vec();
        let notes = ProgramHeader {
            kind: U32::new(PT_NOTE),
            flags: U32::ZERO,
            offset: U64::new(self.notes),
            virtual_address: U64::ZERO,
            physical_address: U64::ZERO,
            file_size: U64::new(self.notes_len),
            memory_size: U64::new(self.notes_len),
            align: U64::new(4),
        };
        bytes.extend_from_slice(notes.as_bytes());
        for segment in &self.segments {
            let size = (segment.end.0 - segment.start.0) * PAGE_SIZE as u64;
            let load = ProgramHeader {
                kind: U32::new(PT_LOAD),
                flags: U32::new(ALL_PERMISSIONS),
                offset: U64::new(segment.offset),
                // Where the kernel maps it is for readers to find out.
                virtual_address: U64::new(u64::MAX),
                physical_address: U64::new(segment.start.0 * PAGE_SIZE as u64),
                file_size: U64::new(size),
                memory_size: U64::new(size),
                align: U64::new(PAGE_SIZE as u64),
            };
            bytes.extend_from_slice(load.as_bytes());
        }
        bytes
    }
}

/// Whether what begins with [`IDENT`] is an ELF dump that is all there and marked
/// complete. Where a part of its headers is zero it ends there: after a loss of power,
/// a file has the length of what was to be written.
pub(super) fn check(source: &impl Source) -> Result<Status, Flaw> {
    let mut bytes = [0; size_of::<ElfHeader>()];
    fill(source, "the header", 0, &mut bytes)?;
    let header: ElfHeader = parse(&bytes);
    let count = usize::from(header.program_header_count.get());
    let size = usize::from(header.program_header_size.get());
    if header.kind.get() == 0 || size == 0 || count == 0 {
        return Err(Flaw::Cut("the header"));
    }
    if header.kind.get() != ET_CORE || size != size_of::<ProgramHeader>() {
        return Err(Flaw::Damaged("not an ELF core of 64 bits".into()));
    }
    let mut bytes = vec![0; count * size_of::<ProgramHeader>()];
    fill(
        source,
        "the program headers",
        header.program_headers.get(),
        &mut bytes,
    )?;
    let mut status = None;
    for bytes in bytes.chunks_exact(size_of::<ProgramHeader>()) {
        let segment: ProgramHeader = parse(bytes);
        let (offset, size) = (segment.offset.get(), segment.file_size.get());
        if segment.kind.get() == PT_NULL {
            return Err(Flaw::Cut("the program headers"));
        }
        let Some(end) = offset
            .checked_add(size)
            .filter(|&end| end <= source.length())
        else {
            return Err(Flaw::Cut("a segment's end"));
        };
        if segment.kind.get() == PT_NOTE {
            // Ours is the last note.
            let mut last = [0; STATUS_NOTE];
            let at = end - size.min(STATUS_NOTE as u64);
            let last = &mut last[..(end - at) as usize];
            fill(source, "the notes", at, last)?;
            if last.iter().all(|&byte| byte == 0) {
                return Err(Flaw::Cut("the notes"));
            }
            status = Notes::find_status(last);
        }
    }
    status.ok_or_else(|| Flaw::Damaged("does not say whether it is complete".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_page_of_ram_has_a_place_of_its_own() {
        let mut present = Bitmap::new(Pfn(1000)).unwrap();
        present.set_range(Pfn(0), Pfn(10));
        present.set_range(Pfn(500), Pfn(600));
        let layout = ElfLayout::new(5000, &present).unwrap();
        assert_eq!(size_of::<ElfHeader>(), 64);
        assert_eq!(size_of::<ProgramHeader>(), 56);
        assert_eq!(layout.notes, 64 + 3 * 56);
        assert_eq!(layout.headers().len() as u64, layout.notes);
        assert_eq!(layout.place(Pfn(0)), 8192);
        assert_eq!(layout.place(Pfn(9)), 8192 + 9 * 4096);
        assert_eq!(layout.place(Pfn(500)), 8192 + 10 * 4096);
        assert_eq!(layout.length, 8192 + 110 * 4096);
    }

    #[test]
    fn more_runs_than_segments_are_refused() {
        let mut present = Bitmap::new(Pfn(200_000)).unwrap();
        (0..200_000)
            .step_by(2)
            .for_each(|pfn| present.set(Pfn(pfn)));
        let error = ElfLayout::new(0, &present).err();
        assert!(matches!(
            error,
            Some(Error::TooLarge { value: 100_000, .. })
        ));
    }

    #[test]
    fn headers_are_as_the_format_has_them() {
        let mut present = Bitmap::new(Pfn(1000)).unwrap();
        present.set_range(Pfn(0), Pfn(10));
        present.set_range(Pfn(500), Pfn(600));
        let bytes = ElfLayout::new(5000, &present).unwrap().headers();
        let number = |at: usize, size: usize| {
            let bytes = bytes[at..at + size].iter().rev();
            bytes.fold(0, |value, &byte| value << 8 | u64::from(byte))
        };
        assert_eq!(bytes[..8], *b"\x7fELF\x02\x01\x01\0");
        // e_type to e_shstrndx.
        let sizes = [2, 2, 4, 8, 8, 8, 4, 2, 2, 2, 2, 2, 2];
        let fields = sizes.iter().scan(16, |at, &size| {
            *at += size;
            Some(number(*at - size, size))
        });
        let header: Vec<_> = fields.collect();
        assert_eq!(header, [4, 62, 1, 0, 64, 0, 0, 64, 56, 3, 0, 0, 0]);
        // p_type and p_flags, then p_offset, p_vaddr, p_paddr, p_filesz, p_memsz, p_align.
        let segment = |index: usize| {
            let at = 64 + index * 56;
            let rest = [8, 16, 24, 32, 40, 48].map(|field| number(at + field, 8));
            (number(at, 4), number(at + 4, 4), rest)
        };
        assert_eq!(segment(0), (4, 0, [64 + 3 * 56, 0, 0, 5000, 5000, 4]));
        let (first, second) = (10 << 12, 100 << 12);
        let anywhere = u64::MAX;
        let rest = [8192, anywhere, 0, first, first, 4096];
        assert_eq!(segment(1), (1, 7, rest));
        let rest = [8192 + first, anywhere, 500 << 12, second, second, 4096];
        assert_eq!(segment(2), (1, 7, rest));
    }

    #[test]
    fn as_many_runs_as_a_header_can_count_are_taken() {
        let runs = |count: u64| {
            let mut present = Bitmap::new(Pfn(2 * count)).unwrap();
            (0..count).for_each(|run| present.set(Pfn(2 * run)));
            ElfLayout::new(0, &present).map(|layout| layout.headers())
        };
        // PN_XNUM is 0xffff, and one segment is the notes'.
        let most = runs(0xfffd).unwrap();
        assert_eq!(most[56..58], 0xfffe_u16.to_le_bytes());
        let error = runs(0xfffe).unwrap_err().to_string();
        assert_eq!(
            error,
            "number of runs of RAM does not fit the format: 0xfffe"
        );
    }

    #[test]
    #[should_panic(expected = "is not RAM")]
    fn a_page_that_is_not_ram_has_no_place() {
        let mut present = Bitmap::new(Pfn(100)).unwrap();
        present.set_range(Pfn(0), Pfn(10));
        ElfLayout::new(0, &present).unwrap().place(Pfn(10));
    }
}
