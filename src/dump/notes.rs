// SPDX-License-Identifier: LGPL-2.1-or-later
//! ELF notes: registers of every vCPU and VMCOREINFO.
//!
//! Both output formats hold the same notes. Layout: `struct elf64_note`
//! (`include/uapi/linux/elf.h`, Linux 6.1), every part padded to four bytes;
//! the descriptor of NT_PRSTATUS is `struct elf_prstatus`
//! (`include/linux/elfcore.h`).

use super::facts::{Facts, VcpuRegisters};
use std::ops::Range;
use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{Immutable, IntoBytes};

/// `NT_PRSTATUS` (`include/uapi/linux/elf.h`).
const NT_PRSTATUS: u32 = 1;
/// Name of the notes that hold registers (`CRASH_CORE_NOTE_NAME`,
/// `include/linux/crash_core.h`).
const CORE_NAME: &str = "CORE";
/// Name of the note that holds VMCOREINFO (`VMCOREINFO_NOTE_NAME`,
/// `include/linux/crash_core.h`); its type is 0 (`kernel/crash_core.c`).
const VMCOREINFO_NAME: &str = "VMCOREINFO";

/// Name and type of our own note, which says whether an ELF dump is complete;
/// readers skip names they do not know.
const STATUS_NAME: &str = "VICOVER";
const STATUS_TYPE: u32 = 1;
/// Bytes that it takes: header, name, value.
pub(super) const STATUS_NOTE: usize = size_of::<NoteHeader>() + 8 + 4;

/// What our own note says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    Complete = 0,
    Incomplete = 1,
}

#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct NoteHeader {
    name_size: U32,
    desc_size: U32,
    kind: U32,
}

/// `struct elf_prstatus` of x86-64, 336 bytes (`include/linux/elfcore.h`).
#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct Prstatus {
    /// `struct elf_siginfo`: signal number, code, errno.
    siginfo: [U32; 3],
    current_signal: U16,
    pad: U16,
    pending_signals: U64,
    held_signals: U64,
    pid: U32,
    parent_pid: U32,
    process_group: U32,
    session: U32,
    /// User and system time of the process and of its children, as `timeval`.
    times: [U64; 8],
    registers: [U64; 27],
    fpu_valid: U32,
    end_pad: U32,
}

/// The notes of one dump.
pub(super) struct Notes {
    /// All of them, as they go into the file.
    pub(super) bytes: Vec<u8>,
    /// Where in `bytes` the text of VMCOREINFO is.
    pub(super) vmcoreinfo: Range<usize>,
    /// Where the value of our own note is, if there is one.
    status: Option<Range<usize>>,
}

impl Notes {
    pub(super) fn new(facts: &Facts) -> Self {
        let mut bytes = Vec::new();
        for (index, registers) in facts.vcpus.iter().enumerate() {
            push(
                &mut bytes,
                CORE_NAME,
                NT_PRSTATUS,
                prstatus(index, registers).as_bytes(),
            );
        }
        let vmcoreinfo = push(&mut bytes, VMCOREINFO_NAME, 0, &facts.vmcoreinfo);
        Self {
            bytes,
            vmcoreinfo,
            status: None,
        }
    }

    /// Adds the note about completeness, or changes it.
    pub(super) fn set_status(&mut self, status: Status) {
        let value = (status as u32).to_le_bytes();
        match self.status.clone() {
            Some(range) => self.bytes[range].copy_from_slice(&value),
            None => self.status = Some(push(&mut self.bytes, STATUS_NAME, STATUS_TYPE, &value)),
        }
    }

    /// What the note about completeness in `notes`, the last of them, says, if it is
    /// there.
    pub(super) fn find_status(notes: &[u8]) -> Option<Status> {
        let mut note = Vec::new();
        let desc = push(&mut note, STATUS_NAME, STATUS_TYPE, &[0; 4]);
        // Ours is the last note.
        let at = notes.len().checked_sub(STATUS_NOTE)?;
        let (head, tail) = notes[at..].split_at(desc.start);
        match (head == &note[..desc.start], tail) {
            (true, [0, 0, 0, 0]) => Some(Status::Complete),
            (true, _) => Some(Status::Incomplete),
            _ => None,
        }
    }
}

fn prstatus(index: usize, registers: &VcpuRegisters) -> Prstatus {
    Prstatus {
        siginfo: Default::default(),
        current_signal: U16::ZERO,
        pad: U16::ZERO,
        pending_signals: U64::ZERO,
        held_signals: U64::ZERO,
        // Debuggers take the pid for the thread's name, so it must differ from
        // vCPU to vCPU; the task that ran is found from memory.
        pid: U32::new(index as u32 + 1),
        parent_pid: U32::ZERO,
        process_group: U32::ZERO,
        session: U32::ZERO,
        times: Default::default(),
        registers: registers.in_order().map(U64::new),
        fpu_valid: U32::ZERO,
        end_pad: U32::ZERO,
    }
}

/// Appends one note; returns where its descriptor is.
fn push(notes: &mut Vec<u8>, name: &str, kind: u32, desc: &[u8]) -> Range<usize> {
    let header = NoteHeader {
        name_size: U32::new(name.len() as u32 + 1),
        desc_size: U32::new(desc.len() as u32),
        kind: U32::new(kind),
    };
    notes.extend_from_slice(header.as_bytes());
    notes.extend_from_slice(name.as_bytes());
    notes.push(0);
    pad(notes);
    let start = notes.len();
    notes.extend_from_slice(desc);
    let end = notes.len();
    pad(notes);
    start..end
}

fn pad(notes: &mut Vec<u8>) {
    notes.resize(notes.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_is_where_the_kernel_puts_it() {
        let registers = VcpuRegisters {
            r15: 0x1515,
            rip: 0xffff_ffff_8100_0000,
            gs: 0x6b,
            ..Default::default()
        };
        let facts = Facts {
            vmcoreinfo: b"OSRELEASE=6.1.0\n".to_vec(),
            vcpus: vec![registers; 2],
            ..Default::default()
        };
        let notes = Notes::new(&facts);
        assert_eq!(std::mem::size_of::<Prstatus>(), 336);
        // Two notes of header 12, "CORE\0" padded to 8, 336 bytes each.
        let core = 12 + 8 + 336;
        assert_eq!(
            &notes.bytes[..20],
            b"\x05\0\0\0\x50\x01\0\0\x01\0\0\0CORE\0\0\0\0"
        );
        // pr_pid at 32, pr_reg at 112: rip is the 17th register, gs the last.
        assert_eq!(notes.bytes[core + 20 + 32], 2);
        let at = |offset: usize| {
            let bytes = &notes.bytes[20 + offset..][..8];
            u64::from_le_bytes(bytes.try_into().unwrap())
        };
        assert_eq!(at(112), 0x1515);
        assert_eq!(at(112 + 16 * 8), 0xffff_ffff_8100_0000);
        assert_eq!(at(112 + 26 * 8), 0x6b);
        assert_eq!(&notes.bytes[2 * core + 12..][..11], b"VMCOREINFO\0");
        assert_eq!(notes.vmcoreinfo, 2 * core + 24..2 * core + 40);
        assert_eq!(&notes.bytes[notes.vmcoreinfo.clone()], b"OSRELEASE=6.1.0\n");
        assert_eq!(notes.bytes.len() % 4, 0);
    }

    #[test]
    fn completeness_is_found_again() {
        let mut notes = Notes::new(&Facts::default());
        assert_eq!(Notes::find_status(&notes.bytes), None);
        for status in [Status::Incomplete, Status::Complete] {
            notes.set_status(status);
            assert_eq!(Notes::find_status(&notes.bytes), Some(status));
        }
        assert_eq!(Notes::find_status(&notes.bytes[..20]), None);
        let last = notes.bytes.len() - STATUS_NOTE;
        let found = Notes::find_status(&notes.bytes[last..]);
        assert_eq!(found, Some(Status::Complete));
    }

    #[test]
    fn a_text_of_any_length_is_followed_by_whole_words() {
        for length in 0..9 {
            let facts = Facts {
                vmcoreinfo: vec![b'x'; length],
                ..Default::default()
            };
            let mut notes = Notes::new(&facts);
            // Sizes of name and text, type and name.
            let header = [11, 0, 0, 0, length as u8, 0, 0, 0, 0, 0, 0, 0];
            assert_eq!(notes.bytes[..12], header);
            assert_eq!(notes.vmcoreinfo, 24..24 + length);
            let padded = 24 + length.next_multiple_of(4);
            assert_eq!(notes.bytes.len(), padded);
            notes.set_status(Status::Incomplete);
            notes.set_status(Status::Incomplete);
            let own = b"\x08\0\0\0\x04\0\0\0\x01\0\0\0VICOVER\0\x01\0\0\0";
            assert_eq!(notes.bytes[padded..], *own);
        }
    }
}
