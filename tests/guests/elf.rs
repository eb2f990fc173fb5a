// SPDX-License-Identifier: LGPL-2.1-or-later
//! Just enough of an ELF vmcore for makedumpfile to read: program headers right
//! after the file header, VMCOREINFO in a note, all RAM behind it.

use vicover::addr::{GfnRange, GuestVirt, PAGE_SIZE};

const FILE_HEADER: usize = 64;
const PROGRAM_HEADER: usize = 56;

pub fn note(name: &[u8], kind: u32, content: &[u8]) -> Vec<u8> {
    let mut note = Vec::new();
    note.extend((name.len() as u32 + 1).to_le_bytes());
    note.extend((content.len() as u32).to_le_bytes());
    note.extend(kind.to_le_bytes());
    for part in [&[name, &[0]].concat(), content] {
        note.extend(part);
        note.resize(note.len().next_multiple_of(4), 0);
    }
    note
}

/// Everything before the bytes of RAM, which start with a page of the file so
/// that they can be mapped.
pub fn start(ram: &[GfnRange], direct_map: GuestVirt, note: &[u8]) -> Vec<u8> {
    let mut out = headers(ram, direct_map, note.len());
    out.extend(note);
    out.resize(out.len().next_multiple_of(PAGE_SIZE), 0);
    out
}

fn headers(ram: &[GfnRange], direct_map: GuestVirt, note_bytes: usize) -> Vec<u8> {
    let number = ram.len() + 1;
    let mut out = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    out.extend(4u16.to_le_bytes()); // ET_CORE
    out.extend(62u16.to_le_bytes()); // EM_X86_64
    out.extend(1u32.to_le_bytes());
    out.extend(0u64.to_le_bytes());
    out.extend((FILE_HEADER as u64).to_le_bytes());
    out.extend(0u64.to_le_bytes());
    out.extend(0u32.to_le_bytes());
    for size in [FILE_HEADER, PROGRAM_HEADER, number, 0, 0, 0] {
        out.extend((size as u16).to_le_bytes());
    }
    let mut offset = (FILE_HEADER + number * PROGRAM_HEADER) as u64;
    let mut segment = |kind: u32, virt: u64, phys: u64, bytes: u64, align: u64| {
        out.extend(kind.to_le_bytes());
        out.extend(0u32.to_le_bytes());
        for word in [offset, virt, phys, bytes, bytes, align] {
            out.extend(word.to_le_bytes());
        }
        offset = (offset + bytes).next_multiple_of(PAGE_SIZE as u64);
    };
    segment(4, 0, 0, note_bytes as u64, 0); // PT_NOTE
    for range in ram {
        let phys = range.start.0 * PAGE_SIZE as u64;
        let bytes = range.len() * PAGE_SIZE as u64;
        segment(1, direct_map.0 + phys, phys, bytes, 0); // PT_LOAD
    }
    out
}
