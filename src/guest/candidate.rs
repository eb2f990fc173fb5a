// SPDX-License-Identifier: LGPL-2.1-or-later
//! Pages that look like a kernel's description of itself.
//!
//! A kernel keeps VMCOREINFO twice, each time from the start of a page on: the
//! text, and an ELF note around a copy of it (`crash_save_vmcoreinfo_init`).

use crate::addr::{Gfn, GuestPhys, PAGE_SHIFT};

use super::kernel::Refusal;
use super::memory::GuestMemory;
use super::vmcoreinfo::{VmcoreInfo, FIRST_KEY, MAX_TEXT};

/// Bytes at the start of a page that tell whether it is a candidate.
pub const PROBE: usize = 24;

const NOTE_NAME: &[u8; 12] = b"VMCOREINFO\0\0";
const NOTE_HEADER: usize = 12 + NOTE_NAME.len();

/// The two ways in which the kernel keeps its description.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Form {
    /// The text alone (`vmcoreinfo_data`).
    Text,
    /// An ELF note (`vmcoreinfo_note`).
    Note,
}

/// A page that looks like a kernel's description.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Candidate {
    /// The page.
    pub gfn: Gfn,
    /// What it looks like.
    pub form: Form,
}

impl Candidate {
    /// Judges a page by its first bytes.
    pub fn judge(gfn: Gfn, start: &[u8; PROBE]) -> Option<Self> {
        let form = if start.starts_with(FIRST_KEY) {
            Form::Text
        } else if start[..4] == 11u32.to_le_bytes() && start[12..] == *NOTE_NAME {
            Form::Note
        } else {
            return None;
        };
        Some(Self { gfn, form })
    }

    fn at(self) -> GuestPhys {
        GuestPhys(self.gfn.0 << PAGE_SHIFT)
    }

    /// Parses it; `None` when it cannot be read.
    pub fn read(self, mem: &dyn GuestMemory) -> Option<Result<VmcoreInfo, Refusal>> {
        let mut page = [0; MAX_TEXT];
        let text = match self.form {
            Form::Text => {
                mem.read(self.at(), &mut page).ok()?;
                let end = page.iter().position(|&byte| byte == 0);
                &page[..end.unwrap_or(page.len())]
            }
            Form::Note => {
                let mut size = [0; 4];
                mem.read(GuestPhys(self.at().0 + 4), &mut size).ok()?;
                let size = u32::from_le_bytes(size) as usize;
                let text = page.get_mut(..size)?;
                let from = GuestPhys(self.at().0 + NOTE_HEADER as u64);
                mem.read(from, text).ok()?;
                text
            }
        };
        Some(VmcoreInfo::parse(text).map_err(Refusal::from))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::GfnRange;
    use crate::guest::guests::elf::note;
    use crate::guest::guests::memory::MemoryImage;

    const GFN: Gfn = Gfn(5);

    /// A note around a text, as the kernel writes it: the zero that ends its name is
    /// counted, and no more.
    fn kernels_note(text: &[u8]) -> Vec<u8> {
        let mut note = note(b"VMCOREINFO\0", 0, text);
        note[0] = 11;
        note
    }

    fn judged(start: &[u8]) -> Option<Form> {
        let mut probe = [0; PROBE];
        probe.copy_from_slice(&start[..PROBE]);
        Candidate::judge(GFN, &probe).map(|candidate| candidate.form)
    }

    #[test]
    fn a_page_is_judged_by_its_first_bytes() {
        let text = b"OSRELEASE=6.1.0-50-amd64\n";
        assert_eq!(judged(text), Some(Form::Text));
        let note = kernels_note(text);
        assert_eq!(judged(&note), Some(Form::Note));
        // Another length or name.
        for (place, byte) in [(0, 12), (1, 1), (12, b'v'), (22, b'\n')] {
            let mut other = note.clone();
            other[place] = byte;
            assert_eq!(judged(&other), None, "{byte} at {place}");
        }
        assert_eq!(judged(&[0; PROBE]), None);
        assert_eq!(judged(b" OSRELEASE=6.1.0-50-amd64"), None);
    }

    fn read(form: Form, page: &[u8]) -> Option<Result<Vec<u8>, Refusal>> {
        let mut memory = MemoryImage::new();
        assert!(memory.add_ram(GfnRange::new(GFN, Gfn(GFN.0 + 2))));
        memory.write(GuestPhys(GFN.0 << 12), page).expect("RAM");
        let info = Candidate { gfn: GFN, form }.read(&memory);
        info.map(|info| info.map(|info| info.text().to_vec()))
    }

    #[test]
    fn a_text_ends_at_a_zero_or_with_its_page_and_a_note_where_it_says() {
        let long = [&b"OSRELEASE=6\n"[..], &[b'x'; MAX_TEXT]].concat();
        let whole = &long[..MAX_TEXT];
        for text in [&b"OSRELEASE=6\n"[..], whole] {
            let expected = Some(Ok(text.to_vec()));
            assert_eq!(read(Form::Text, text), expected);
            assert_eq!(read(Form::Note, &kernels_note(text)), expected);
        }
        let too_long = &kernels_note(&long[..MAX_TEXT + 1]);
        assert_eq!(read(Form::Note, too_long), None);
        let cut = read(Form::Note, &kernels_note(b"OSRELEASE=6\n\0")).expect("a note");
        assert!(matches!(cut, Err(Refusal::Text(_))), "{cut:?}");
    }
}
