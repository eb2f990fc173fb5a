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
