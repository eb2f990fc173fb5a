// SPDX-License-Identifier: LGPL-2.1-or-later
//! A verdict for every page, in at most three bits a page.
//!
//! Pages are kept in sections of 128 MiB. A section whose pages are all alike
//! takes no room; others have three bits for each page. Kinds of pages that are
//! few, or come in large blocks, share one code and are listed apart.

use crate::addr::{Gfn, GfnRange};

use super::verdict::Verdict;

/// Pages in a section of the map.
pub const SECTION_PAGES: usize = 1 << 15;
const WORDS: usize = SECTION_PAGES / 64;
const PLANES: usize = 3;

/// Runs of listed kinds, at most (24 bytes each). Pages for which there is no
/// room become [`Verdict::Unknown`].
const MAX_LISTED: usize = 1 << 20;

/// Code of pages that are listed.
const LISTED: u8 = 7;

/// Code of a verdict in the map. Zero is what nobody said anything about.
const fn code(verdict: Verdict) -> u8 {
    match verdict {
        Verdict::Unknown => 0,
        Verdict::Kernel => 1,
        Verdict::Free => 2,
        Verdict::Cache => 3,
        Verdict::PrivateCache => 4,
        Verdict::User => 5,
        Verdict::Offline => 6,
        Verdict::Hugetlb | Verdict::Poisoned | Verdict::Unaccepted | Verdict::NeverExclude => {
            LISTED
        }
    }
}

/// [`code`] of each verdict, in their order.
const CODES: [u8; Verdict::ALL.len()] = {
    let mut codes = [0; Verdict::ALL.len()];
    let mut index = 0;
    while index < codes.len() {
        codes[index] = code(Verdict::ALL[index]);
        index += 1;
    }
    codes
};

const BY_CODE: [Verdict; LISTED as usize] = [
    Verdict::Unknown,
    Verdict::Kernel,
    Verdict::Free,
    Verdict::Cache,
    Verdict::PrivateCache,
    Verdict::User,
    Verdict::Offline,
];

type Planes = [[u64; WORDS]; PLANES];

enum Section {
    Alike(u8),
    Mixed(Box<Planes>),
}

/// The map.
pub struct PageMap {
    sections: Vec<Section>,
    /// Ascending and disjoint.
    listed: Vec<(GfnRange, Verdict)>,
    overflowed: bool,
}

/// Verdicts of one section while it is being filled.
pub struct Draft {
    codes: Box<[u8; SECTION_PAGES]>,
    listed: Vec<(GfnRange, Verdict)>,
    first: Gfn,
}

impl Draft {
    /// A draft without any section in it.
    pub fn new() -> Self {
        Self {
            codes: Box::new([0; SECTION_PAGES]),
            listed: Vec::new(),
            first: Gfn(0),
        }
    }

    /// Begins the section that starts at `first`.
    pub fn begin(&mut self, first: Gfn) {
        self.codes.fill(code(Verdict::Unknown));
        self.listed.clear();
        self.first = first;
    }

    /// Sets one page, by its place in the section; places beyond it are ignored.
    #[inline]
    pub fn set(&mut self, place: usize, verdict: Verdict) {
        if let Some(slot) = self.codes.get_mut(place) {
            let code = CODES[verdict as usize];
            *slot = code;
            if code == LISTED {
                self.list(place..place + 1, verdict);
            }
        }
    }

    /// Sets pages from `place` on, one after the other; returns how many.
    #[inline]
    pub fn set_each(&mut self, place: usize, verdicts: impl Iterator<Item = Verdict>) -> usize {
        let mut number = 0;
        for verdict in verdicts {
            self.set(place + number, verdict);
            number += 1;
        }
        number
    }

    /// Sets several pages.
    pub fn fill(&mut self, places: std::ops::Range<usize>, verdict: Verdict) {
        let end = places.end.min(SECTION_PAGES);
        let start = places.start.min(end);
        self.codes[start..end].fill(code(verdict));
        if code(verdict) == LISTED && start < end {
            self.list(start..end, verdict);
        }
    }

    /// Sets pages that were set before. Others are set in ascending order.
    pub fn replace(&mut self, places: std::ops::Range<usize>, verdict: Verdict) {
        let at = |place: usize| Gfn(self.first.0 + place as u64);
        cut(
            &mut self.listed,
            GfnRange::new(at(places.start), at(places.end)),
        );
        self.fill(places, verdict);
    }

    fn list(&mut self, places: std::ops::Range<usize>, verdict: Verdict) {
        let at = |place: usize| Gfn(self.first.0 + place as u64);
        let range = GfnRange::new(at(places.start), at(places.end));
        push_run(&mut self.listed, range, verdict);
    }
}

impl Default for Draft {
    fn default() -> Self {
        Self::new()
    }
}

fn push_run(runs: &mut Vec<(GfnRange, Verdict)>, range: GfnRange, verdict: Verdict) {
    match runs.last_mut() {
        Some((last, same)) if *same == verdict && last.end == range.start => last.end = range.end,
        _ => runs.push((range, verdict)),
    }
}

/// Takes pages out of ascending, disjoint runs.
fn cut(runs: &mut Vec<(GfnRange, Verdict)>, pages: GfnRange) {
    let first = runs.partition_point(|(range, _)| range.end <= pages.start);
    let last = runs.partition_point(|(range, _)| range.start < pages.end);
    let rest: Vec<_> = runs[first..last.max(first)]
        .iter()
        .flat_map(|&(range, verdict)| {
            let before = GfnRange::new(range.start, pages.start.min(range.end));
            let after = GfnRange::new(pages.end.max(range.start), range.end);
            [(before, verdict), (after, verdict)]
        })
        .filter(|(range, _)| !range.is_empty())
        .collect();
    runs.splice(first..last.max(first), rest);
}

impl PageMap {
    /// A map up to `end`, all [`Verdict::Unknown`].
    pub fn new(end: Gfn) -> Self {
        let sections = end.0.div_ceil(SECTION_PAGES as u64);
        Self {
            sections: (0..sections).map(|_| Section::Alike(0)).collect(),
            listed: Vec::new(),
            overflowed: false,
        }
    }

    /// Number of sections.
    pub fn sections(&self) -> usize {
        self.sections.len()
    }

    /// Whether some pages became unknown for lack of room.
    pub fn overflowed(&self) -> bool {
        self.overflowed
    }

    /// Takes a finished draft over. Sections are finished in ascending order,
    /// each once.
    pub fn finish(&mut self, draft: &mut Draft) {
        let index = (draft.first.0 / SECTION_PAGES as u64) as usize;
        if self.listed.len() + draft.listed.len() > MAX_LISTED {
            self.overflowed = true;
            for slot in draft.codes.iter_mut().filter(|slot| **slot == LISTED) {
                *slot = code(Verdict::Unknown);
            }
        } else {
            for &(range, verdict) in &draft.listed {
                push_run(&mut self.listed, range, verdict);
            }
        }
        let first = draft.codes[0];
        self.sections[index] = if draft.codes.iter().all(|&code| code == first) {
            Section::Alike(first)
        } else {
            Section::Mixed(pack(&draft.codes))
        };
    }

    /// The verdict on a page; [`Verdict::Unknown`] beyond the map.
    pub fn get(&self, gfn: Gfn) -> Verdict {
        let place = (gfn.0 % SECTION_PAGES as u64) as usize;
        let code = match self.section(gfn) {
            None => 0,
            Some(Section::Alike(code)) => *code,
            Some(Section::Mixed(planes)) => code_at(planes, place),
        };
        match BY_CODE.get(code as usize) {
            Some(&verdict) => verdict,
            None => self
                .find_listed(gfn)
                .map_or(Verdict::Unknown, |(_, verdict)| verdict),
        }
    }

    fn section(&self, gfn: Gfn) -> Option<&Section> {
        let index = usize::try_from(gfn.0 / SECTION_PAGES as u64).ok()?;
        self.sections.get(index)
    }

    fn find_listed(&self, gfn: Gfn) -> Option<(GfnRange, Verdict)> {
        let after = self.listed.partition_point(|(range, _)| range.start <= gfn);
        let last = after.checked_sub(1).map(|index| self.listed[index]);
        last.filter(|(range, _)| range.contains(gfn))
    }

    /// Sets pages that `which` selects by their verdict until now. Slow: for few
    /// pages.
    pub fn change(
        &mut self,
        pages: GfnRange,
        verdict: Verdict,
        which: impl Fn(Verdict) -> bool,
    ) -> u64 {
        let hit: Vec<GfnRange> = self
            .runs(pages)
            .filter(|&(_, old)| old != verdict && which(old))
            .map(|(range, _)| range)
            .collect();
        for &range in &hit {
            self.overwrite(range, verdict);
        }
        hit.iter().map(GfnRange::len).sum()
    }

    fn overwrite(&mut self, pages: GfnRange, verdict: Verdict) {
        cut(&mut self.listed, pages);
        let mut code = code(verdict);
        if code == LISTED {
            if self.listed.len() < MAX_LISTED {
                let place = self
                    .listed
                    .partition_point(|(range, _)| range.start < pages.start);
                self.listed.insert(place, (pages, verdict));
            } else {
                self.overflowed = true;
                code = 0;
            }
        }
        for gfn in pages.iter() {
            let index = (gfn.0 / SECTION_PAGES as u64) as usize;
            let place = (gfn.0 % SECTION_PAGES as u64) as usize;
            let section = &mut self.sections[index];
            if let Section::Alike(all) = *section {
                *section = Section::Mixed(pack(&[all; SECTION_PAGES]));
            }
            if let Section::Mixed(planes) = section {
                for (plane, words) in planes.iter_mut().enumerate() {
                    let bit = 1 << (place % 64);
                    words[place / 64] &= !bit;
                    if code >> plane & 1 != 0 {
                        words[place / 64] |= bit;
                    }
                }
            }
        }
    }

    /// Runs of pages with the same verdict, ascending, that make up `pages`.
    pub fn runs(&self, pages: GfnRange) -> impl Iterator<Item = (GfnRange, Verdict)> + '_ {
        let mut next = pages.start;
        std::iter::from_fn(move || {
            if next >= pages.end {
                return None;
            }
            let start = next;
            let verdict = self.get(start);
            while next < pages.end && self.get(next) == verdict {
                next = self.alike_until(next).min(pages.end);
            }
            Some((GfnRange::new(start, next), verdict))
        })
    }

    /// A frame above `gfn` up to which everything is surely like it.
    fn alike_until(&self, gfn: Gfn) -> Gfn {
        let place = (gfn.0 % SECTION_PAGES as u64) as usize;
        let section_end = gfn.0.saturating_add((SECTION_PAGES - place) as u64);
        let (code, end) = match self.section(gfn) {
            None => return Gfn(u64::MAX),
            Some(Section::Alike(code)) => (*code, section_end),
            Some(Section::Mixed(planes)) => {
                let (word, bit) = (place / 64, place % 64);
                let differs = planes.iter().fold(0, |differs, words| {
                    let all = 0u64.wrapping_sub(words[word] >> bit & 1);
                    differs | (words[word] ^ all)
                });
                let same = (differs >> bit).trailing_zeros().min(64 - bit as u32);
                (code_at(planes, place), gfn.0 + u64::from(same))
            }
        };
        if code != LISTED {
            return Gfn(end);
        }
        self.find_listed(gfn)
            .map_or(Gfn(gfn.0 + 1), |(range, _)| range.end.min(Gfn(section_end)))
    }

    /// Bytes of memory that the map takes.
    pub fn bytes(&self) -> usize {
        let mixed = |section: &&Section| matches!(section, Section::Mixed(_));
        self.sections.capacity() * size_of::<Section>()
            + self.sections.iter().filter(mixed).count() * size_of::<Planes>()
            + self.listed.capacity() * size_of::<(GfnRange, Verdict)>()
    }
}

fn code_at(planes: &Planes, place: usize) -> u8 {
    planes.iter().enumerate().fold(0, |code, (plane, words)| {
        code | ((words[place / 64] >> (place % 64) & 1) as u8) << plane
    })
}

/// From a byte a page to a bit a page in each plane.
fn pack(codes: &[u8; SECTION_PAGES]) -> Box<Planes> {
    let mut planes: Box<Planes> = vec![[0u64; WORDS]; PLANES]
        .into_boxed_slice()
        .try_into()
        .unwrap_or_else(|_| Box::new([[0; WORDS]; PLANES]));
    for (word, pages) in codes.chunks_exact(64).enumerate() {
        for (part, eight) in pages.chunks_exact(8).enumerate() {
            let eight = u64::from_le_bytes(eight.try_into().unwrap_or_default());
            for (plane, words) in planes.iter_mut().enumerate() {
                // Gathers the lowest bit of each byte into the top byte.
                let bits = eight >> plane & 0x0101_0101_0101_0101;
                let gathered = bits.wrapping_mul(0x0102_0408_1020_4080) >> 56;
                words[word] |= gathered << (part * 8);
            }
        }
    }
    planes
}

#[cfg(test)]
mod tests;
