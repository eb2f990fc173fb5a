//! Finding the kernel's description of itself in a guest's memory.
//!
//! A kernel keeps VMCOREINFO twice, each time from the start of a page on: the
//! text, and an ELF note around a copy of it (`crash_save_vmcoreinfo_init`).
//! Memory may hold more: that of a kernel that ran before, a file, or a trap.
//! So nothing is believed that [`Kernel::check`] does not confirm, and two
//! different confirmed ones are as bad as none.
//!
//! Looking at every page of a large guest takes time in which nothing else
//! happens. So once one copy is confirmed, the kernel's own pointers lead to
//! the other: both pointers are variables of the same source file, a few words
//! apart, in the writable part of the kernel's image.

use crate::addr::{Gfn, GfnRange, GuestPhys, GuestVirt, PAGE_SHIFT, PAGE_SIZE};

use super::identity::Processor;
use super::kernel::{Kernel, Refusal};
use super::memory::{is_ram, GuestMemory};
use super::paging::{Descend, Visit, KERNEL_MAP};
use super::vmcoreinfo::{VmcoreInfo, FIRST_KEY, MAX_TEXT};

/// Bytes at the start of a page that tell whether it is a candidate.
pub const PROBE: usize = 24;

/// Candidates that are looked at, at most: a guest can fill its memory with
/// them.
const MAX_CANDIDATES: usize = 1024;

/// Refusals that an error tells about, at most.
const MAX_REFUSALS: usize = 8;

const NOTE_NAME: &[u8; 12] = b"VMCOREINFO\0\0";
const NOTE_HEADER: usize = 12 + NOTE_NAME.len();

/// The two ways in which the kernel keeps its description.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    /// The text alone (`vmcoreinfo_data`).
    Text,
    /// An ELF note (`vmcoreinfo_note`).
    Note,
}

/// A page that looks like a kernel's description.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
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

/// The kernel, and how it was found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Located {
    /// The kernel.
    pub kernel: Kernel,
    /// The copies of its description that were confirmed.
    pub copies: Vec<Candidate>,
    /// Pages looked at while searching.
    pub pages_probed: u64,
}

/// Why no kernel is known.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LocateError {
    /// Nothing looks like a description.
    #[error("no VMCOREINFO in {pages_probed} pages")]
    Nothing {
        /// Pages looked at.
        pages_probed: u64,
    },
    /// What looks like one does not hold against memory.
    #[error("no VMCOREINFO agrees with memory; at {}: {}", .0[0].0, .0[0].1)]
    Refused(Vec<(Gfn, Refusal)>),
    /// Two of them hold and say different things.
    #[error("VMCOREINFO at {0} and at {1} contradict each other")]
    Contradiction(Gfn, Gfn),
}

/// Candidates as they are met, in any order. For callers that go through the
/// guest's pages anyway; [`locate`] does both.
pub struct Search<'a> {
    mem: &'a dyn GuestMemory,
    processors: &'a [Processor],
    seen: usize,
    found: Option<(Kernel, Vec<Candidate>)>,
    refused: Vec<(Gfn, Refusal)>,
    contradiction: Option<(Gfn, Gfn)>,
}

impl<'a> Search<'a> {
    /// A search that has seen nothing.
    pub fn new(mem: &'a dyn GuestMemory, processors: &'a [Processor]) -> Self {
        Self {
            mem,
            processors,
            seen: 0,
            found: None,
            refused: Vec::new(),
            contradiction: None,
        }
    }

    /// Takes note of a page by its first bytes. True when the search is over:
    /// both forms of one description are confirmed, or two contradict.
    pub fn page(&mut self, gfn: Gfn, start: &[u8; PROBE]) -> bool {
        if let Some(candidate) = Candidate::judge(gfn, start) {
            if self.candidate(candidate) && !self.is_over() {
                self.follow_pointers(candidate);
            }
        }
        self.is_over()
    }

    /// True when it was confirmed.
    fn candidate(&mut self, candidate: Candidate) -> bool {
        let known = |copies: &[Candidate]| copies.contains(&candidate);
        if self.seen >= MAX_CANDIDATES || self.found.as_ref().is_some_and(|(_, c)| known(c)) {
            return false;
        }
        self.seen += 1;
        let checked = match candidate.read(self.mem) {
            None => return false,
            Some(read) => read.and_then(|info| Kernel::check(self.mem, info, self.processors)),
        };
        match (checked, &mut self.found) {
            (Err(refusal), _) => {
                if self.refused.len() < MAX_REFUSALS {
                    self.refused.push((candidate.gfn, refusal));
                }
                return false;
            }
            (Ok(kernel), None) => self.found = Some((kernel, vec![candidate])),
            (Ok(kernel), Some((first, copies))) => {
                if !first.info.agrees_with(&kernel.info) {
                    self.contradiction = Some((copies[0].gfn, candidate.gfn));
                    return false;
                }
                // The one written last says more.
                if kernel.info.text().len() > first.info.text().len() {
                    *first = kernel;
                }
                copies.push(candidate);
            }
        }
        true
    }

    fn is_over(&self) -> bool {
        let both = |copies: &[Candidate]| {
            copies.iter().any(|copy| copy.form == Form::Text)
                && copies.iter().any(|copy| copy.form == Form::Note)
        };
        self.contradiction.is_some() || self.found.as_ref().is_some_and(|(_, c)| both(c))
    }

    /// Looks in the kernel's variables for the address of `copy`, and near it
    /// for the address of the other form.
    fn follow_pointers(&mut self, copy: Candidate) {
        let Some((kernel, _)) = &self.found else {
            return;
        };
        let Some(direct_map) = kernel.direct_map else {
            return;
        };
        let Some(wanted) = direct_map.checked_add(copy.at().0) else {
            return;
        };
        let mut others = Vec::new();
        for (start, bytes) in writable_image(self.mem, kernel) {
            others.extend(neighbours(self.mem, start, bytes, wanted));
        }
        let mut candidates: Vec<Candidate> = Vec::new();
        for other in others {
            let Some(phys) = other.0.checked_sub(direct_map.0).map(GuestPhys) else {
                continue;
            };
            if phys.page_offset() != 0 || !is_ram(self.mem.ram(), phys.gfn()) {
                continue;
            }
            let mut start = [0; PROBE];
            if self.mem.read(phys, &mut start).is_ok() {
                candidates.extend(Candidate::judge(phys.gfn(), &start));
            }
        }
        for candidate in candidates {
            self.candidate(candidate);
        }
    }

    /// What the search came to, after `pages_probed` pages.
    pub fn finish(self, pages_probed: u64) -> Result<Located, LocateError> {
        if let Some((one, other)) = self.contradiction {
            return Err(LocateError::Contradiction(one, other));
        }
        match self.found {
            Some((kernel, copies)) => Ok(Located {
                kernel,
                copies,
                pages_probed,
            }),
            None if self.refused.is_empty() => Err(LocateError::Nothing { pages_probed }),
            None => Err(LocateError::Refused(self.refused)),
        }
    }
}

/// Largest writable part of a kernel's image that is searched for pointers.
const MAX_IMAGE: u64 = 256 << 20;

/// The writable memory mapped as the kernel's image (data and bss).
fn writable_image(mem: &dyn GuestMemory, kernel: &Kernel) -> Vec<(GuestPhys, u64)> {
    let mut runs: Vec<(GuestPhys, u64)> = Vec::new();
    let mut total = 0;
    let last = GuestVirt(KERNEL_MAP + (1 << 30) - 1);
    let mut entries = 1 << 19;
    kernel.tables.visit(
        mem,
        GuestVirt(KERNEL_MAP),
        last,
        &mut entries,
        &mut |visit| {
            if let Visit::Leaf {
                phys,
                bytes,
                writable: true,
                ..
            } = visit
            {
                if bytes <= MAX_IMAGE - total {
                    total += bytes;
                    match runs.last_mut() {
                        Some((start, len)) if start.0 + *len == phys.0 => *len += bytes,
                        _ => runs.push((phys, bytes)),
                    }
                }
            }
            Descend::Into
        },
    );
    runs
}

/// Words within 64 bytes of every word that equals `wanted`.
fn neighbours(
    mem: &dyn GuestMemory,
    start: GuestPhys,
    bytes: u64,
    wanted: GuestVirt,
) -> Vec<GuestVirt> {
    const PIECE: usize = 64 * PAGE_SIZE;
    const NEAR: usize = 8;
    const MAX_HITS: usize = 64;
    let mut found = Vec::new();
    let mut piece = vec![0; PIECE];
    let mut done = 0;
    while done < bytes && found.len() < MAX_HITS * 2 * NEAR {
        let part = &mut piece[..PIECE.min((bytes - done) as usize)];
        if mem.read(GuestPhys(start.0 + done), part).is_ok() {
            let words = || part.chunks_exact(8);
            let pattern = wanted.0.to_le_bytes();
            let hits = words()
                .enumerate()
                .filter(|(_, word)| *word == pattern)
                .map(|(index, _)| index);
            for hit in hits.take(MAX_HITS) {
                let first = hit.saturating_sub(NEAR);
                let near = words().take(hit + NEAR + 1).skip(first);
                let address = |word: &[u8]| word.try_into().map(u64::from_le_bytes);
                found.extend(near.filter_map(|word| address(word).ok()).map(GuestVirt));
            }
        }
        done += part.len() as u64;
    }
    found
}

/// Frames at which Linux's zones DMA32 and Normal begin (16 MiB and 4 GiB,
/// `arch/x86/include/asm/dma.h`). Early in boot it takes memory from the start
/// of the highest zone, so a copy is likely to be soon after one of these.
const ZONE_STARTS: [u64; 2] = [1 << (32 - PAGE_SHIFT), 1 << (24 - PAGE_SHIFT)];

/// Frames from there on that are probed before all others (64 MiB).
const LIKELY: u64 = 1 << (26 - PAGE_SHIFT);

/// Frames that are probed before it is the next place's turn (2 MiB).
const TURN: u64 = 1 << (21 - PAGE_SHIFT);

/// Frames where a copy is likely, the likeliest first: from the start of a zone on,
/// or, in Xen's PVH guests, from the end of RAM back. Nothing tells which of these
/// places it is, so they take turns.
fn likely(ram: &[GfnRange]) -> impl Iterator<Item = GfnRange> + '_ {
    (0..LIKELY / TURN).flat_map(move |nth| {
        let ends = ram.iter().rev().map(move |range| {
            let end = Gfn(range.end.0.saturating_sub(nth * TURN));
            GfnRange::new(Gfn(end.0.saturating_sub(TURN)), end)
        });
        let starts = ZONE_STARTS.map(|zone| {
            let start = zone + nth * TURN;
            GfnRange::new(Gfn(start), Gfn(start + TURN))
        });
        ends.chain(starts)
    })
}

/// Finds the kernel. Looks at the starts of pages where a copy is likely, then
/// at the start of every page of RAM in ascending order, no longer than needed.
pub fn locate(mem: &dyn GuestMemory, processors: &[Processor]) -> Result<Located, LocateError> {
    let everything = GfnRange::new(Gfn(0), mem.end());
    let mut search = Search::new(mem, processors);
    let mut pages_probed = 0;
    for part in likely(mem.ram()).chain([everything]) {
        for range in mem.ram() {
            let common = GfnRange::new(range.start.max(part.start), range.end.min(part.end));
            if probe(&mut search, common, &mut pages_probed) {
                return search.finish(pages_probed);
            }
        }
    }
    search.finish(pages_probed)
}

/// True when the search is over.
fn probe(search: &mut Search<'_>, frames: GfnRange, pages_probed: &mut u64) -> bool {
    let mut start = [0; PROBE];
    frames.iter().any(|gfn| {
        *pages_probed += 1;
        let at = gfn.as_pfn().address();
        at.is_some_and(|at| search.mem.read(at, &mut start).is_ok()) && search.page(gfn, &start)
    })
}
