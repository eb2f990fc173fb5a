// SPDX-License-Identifier: LGPL-2.1-or-later
//! From page tables to the kernel's description of itself, by its own pointers.
//!
//! `vmcoreinfo_data` and `vmcoreinfo_note` (`kernel/vmcore_info.c`, before Linux 6.9
//! `kernel/crash_core.c`) are variables of the kernel's image. So the words of the
//! image's writable part are looked at, and those that are addresses of pages lead to
//! the description. That takes the same time however large the guest is.

use std::collections::BTreeSet;
use std::ops::Range;

use crate::addr::{Gfn, GfnRange, GuestPhys, GuestVirt, PAGE_SIZE};

use super::arch::x86_64::{
    Levels, Processor, CR4_LA57, CR4_PAE, IMAGE_BYTES_32, IMAGE_END, KERNEL_MAP, KERNEL_MAP_32,
};
use super::candidate::{Candidate, PROBE};
use super::looked::Looked;
use super::memory::{is_ram, GuestMemory};
use super::paging::{Descend, PageTables, Translator, Visit};

/// Bytes of images that are looked at, at most; Debian's kernels have 20 to 50 MiB.
const MAX_BYTES: u64 = 256 << 20;

/// Entries of page tables that are looked at for images, at most: 1 GiB by small
/// pages, for each of eight kernels.
const MAX_ENTRIES: u64 = 1 << 22;

/// Addresses that are followed, at most; images of Debian's kernels have up to 3000.
const MAX_POINTERS: usize = 1 << 14;

/// Bytes of an image that are read at a time.
const PIECE: usize = 64 * PAGE_SIZE;

/// How long an address is.
#[derive(Clone, Copy, Debug)]
enum Word {
    Short,
    Long,
}

/// Page tables, and where they may map a kernel's image.
#[derive(Clone, Debug)]
pub(super) struct Space {
    tables: PageTables,
    image: Range<GuestVirt>,
    /// Addresses that a pointer to a page of its own may have.
    pointers: Range<GuestVirt>,
    word: Word,
}

impl Space {
    /// The space of a kernel of 64 bits.
    pub(super) fn long(tables: PageTables) -> Self {
        Self {
            tables,
            image: GuestVirt(KERNEL_MAP)..GuestVirt(IMAGE_END),
            pointers: tables.upper_half()..GuestVirt(KERNEL_MAP),
            word: Word::Long,
        }
    }

    /// The space of a kernel of 32 bits which executes what is at `text`.
    fn short(tables: PageTables, text: GuestVirt) -> Self {
        let end = (text.0 + IMAGE_BYTES_32).min(u64::from(u32::MAX));
        Self {
            tables,
            image: text..GuestVirt(end),
            pointers: GuestVirt(KERNEL_MAP_32)..GuestVirt(u64::from(u32::MAX)),
            word: Word::Short,
        }
    }

    /// The spaces that a processor was in, or has beside what it was in: the
    /// likeliest first.
    pub(super) fn of(mem: &dyn GuestMemory, processor: &Processor) -> Vec<Self> {
        let levels = match processor.cr4 & CR4_LA57 {
            0 => Levels::Four,
            _ => Levels::Five,
        };
        let tables = PageTables::new(processor.cr3, levels, 0);
        let text = processor.rip;
        let mut spaces: Vec<Self> = processor
            .roots()
            .map(|root| Self::long(tables.with_root(root)))
            .collect();
        // No register that the host tells says how many bits addresses have: that
        // the processor could execute what it executed does.
        let short = PageTables::new(processor.cr3, Levels::Pae, 0);
        let executes = |tables: &PageTables| tables.translate(mem, text).is_ok();
        let in_kernel = processor.cr4 & CR4_PAE != 0 && text.0 >= KERNEL_MAP_32;
        if in_kernel && !executes(&tables) && executes(&short) {
            spaces.push(Self::short(short, text));
        }
        spaces
    }
}

impl Space {
    /// Words that can be addresses of pages.
    fn addresses(&self, bytes: &[u8], into: &mut Vec<GuestVirt>) {
        let start = self.pointers.start.0;
        let length = self.pointers.end.0 - start;
        let mut take = |word: u64| {
            // One branch that is seldom taken: most words are neither.
            let is_page = word % PAGE_SIZE as u64 == 0;
            if is_page & (word.wrapping_sub(start) < length) {
                into.push(GuestVirt(word));
            }
        };
        match self.word {
            Word::Short => bytes
                .chunks_exact(4)
                .map(|word| u32::from_le_bytes(word.try_into().unwrap_or_default()).into())
                .for_each(&mut take),
            Word::Long => bytes
                .chunks_exact(8)
                .map(|word| u64::from_le_bytes(word.try_into().unwrap_or_default()))
                .for_each(&mut take),
        }
        into.dedup();
    }
}

/// Follows the pointers of one image after another, within bounds that hold for all.
pub(super) struct Pointers<'a> {
    mem: &'a dyn GuestMemory,
    give_up: &'a dyn Fn() -> bool,
    bytes_left: u64,
    entries_left: u64,
    pointers_left: usize,
    /// Parts of images that were looked at: where, and how many bytes.
    seen: BTreeSet<(GuestPhys, u64)>,
    looked: Looked,
}

impl<'a> Pointers<'a> {
    pub(super) fn new(mem: &'a dyn GuestMemory, give_up: &'a dyn Fn() -> bool) -> Self {
        Self {
            mem,
            give_up,
            bytes_left: MAX_BYTES,
            entries_left: MAX_ENTRIES,
            pointers_left: MAX_POINTERS,
            seen: BTreeSet::new(),
            looked: Looked::default(),
        }
    }

    /// Pages of images, and pages that their pointers led to, so far.
    pub(super) fn looked(&self) -> &Looked {
        &self.looked
    }

    /// What looks like a description and is pointed to by the image in `space`,
    /// unless that image was looked at before.
    pub(super) fn follow(&mut self, space: &Space) -> Vec<Candidate> {
        let mut pointers = BTreeSet::new();
        for (start, bytes) in self.writable(space) {
            if !self.seen.insert((start, bytes)) {
                continue;
            }
            let end = Gfn(start.gfn().0 + bytes / PAGE_SIZE as u64);
            self.looked.add(GfnRange::new(start.gfn(), end));
            self.scan(space, start, bytes, &mut pointers);
        }
        let mut candidates = Vec::new();
        let mut translator = Translator::new(self.mem, space.tables);
        for at in pointers {
            if (self.give_up)() {
                break;
            }
            if let Ok(found) = translator.translate(at) {
                candidates.extend(self.candidate(found.phys));
            }
        }
        candidates
    }

    /// What is at an address, when it looks like a description.
    fn candidate(&mut self, at: GuestPhys) -> Option<Candidate> {
        if !is_ram(self.mem.ram(), at.gfn()) {
            return None;
        }
        self.looked.add_page(at.gfn());
        let mut start = [0; PROBE];
        self.mem.read(at, &mut start).ok()?;
        Candidate::judge(at.gfn(), &start)
    }

    /// The writable memory that is mapped as the image (data and bss).
    fn writable(&mut self, space: &Space) -> Vec<(GuestPhys, u64)> {
        let mut runs: Vec<(GuestPhys, u64)> = Vec::new();
        let left = &mut self.bytes_left;
        let mut visitor = |visit| {
            if let Visit::Leaf {
                phys,
                bytes,
                writable: true,
                ..
            } = visit
            {
                if bytes <= *left {
                    *left -= bytes;
                    match runs.last_mut() {
                        Some((start, length)) if start.0 + *length == phys.0 => *length += bytes,
                        _ => runs.push((phys, bytes)),
                    }
                }
            }
            Descend::Into
        };
        let last = GuestVirt(space.image.end.0 - 1);
        let first = space.image.start;
        let entries = &mut self.entries_left;
        space
            .tables
            .visit(self.mem, first, last, entries, &mut visitor);
        runs
    }

    /// Words from `start` on that can be addresses of pages.
    fn scan(
        &mut self,
        space: &Space,
        start: GuestPhys,
        bytes: u64,
        pointers: &mut BTreeSet<GuestVirt>,
    ) {
        let mut piece = vec![0; PIECE];
        let mut addresses = Vec::new();
        for offset in (0..bytes).step_by(PIECE) {
            if (self.give_up)() {
                return;
            }
            let part = &mut piece[..PIECE.min((bytes - offset) as usize)];
            if self.mem.read(GuestPhys(start.0 + offset), part).is_err() {
                continue;
            }
            addresses.clear();
            space.addresses(part, &mut addresses);
            for &at in &addresses {
                if self.pointers_left == 0 {
                    return;
                }
                self.pointers_left -= usize::from(pointers.insert(at));
            }
        }
    }
}

#[cfg(test)]
mod tests;
