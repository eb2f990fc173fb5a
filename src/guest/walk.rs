// SPDX-License-Identifier: LGPL-2.1-or-later
//! Reading page descriptors, section by section.

use crate::addr::{Gfn, GfnRange, GuestVirt};

use super::classify::Classifier;
use super::kernel::Kernel;
use super::limits::Limits;
use super::memory::GuestMemory;
use super::page_map::{Draft, PageMap, SECTION_PAGES};
use super::sections::MemorySection;
use super::verdict::Verdict;

/// Descriptors are read in pieces of this many pages: 256 KiB.
const PIECE_PAGES: u64 = 4096;

/// Descriptors of this many pages are mapped together or not at all
/// (`PAGES_PER_SUBSECTION`).
const SUBSECTION_PAGES: u64 = 512;

/// Gives every page that has a descriptor its verdict. False when the caller wants
/// no more of it.
pub(super) fn classify_all(
    mem: &dyn GuestMemory,
    kernel: &Kernel,
    sections: &[MemorySection],
    classifier: &mut Classifier,
    map: &mut PageMap,
    limits: &Limits<'_>,
) -> bool {
    let mut draft = Draft::new();
    let mut walker = Walker {
        mem,
        kernel,
        descriptor_bytes: classifier.descriptor_bytes() as u64,
        buffer: vec![0; PIECE_PAGES as usize * classifier.descriptor_bytes()],
    };
    let mut sections = sections.iter().peekable();
    for index in 0..map.sections() {
        if (limits.give_up)() {
            return false;
        }
        let start = Gfn((index * SECTION_PAGES) as u64);
        let here = GfnRange::new(start, Gfn(start.0 + SECTION_PAGES as u64));
        while sections.next_if(|s| s.pages.end <= start).is_some() {}
        if sections.peek().is_none_or(|s| s.pages.start >= here.end) {
            continue;
        }
        draft.begin(start);
        for section in sections.clone().take_while(|s| s.pages.start < here.end) {
            walker.section(section, here, classifier, &mut draft);
        }
        map.finish(&mut draft);
        for (from, to) in classifier.take_retracted() {
            map.change(GfnRange::new(from, to), Verdict::Unknown, |_| true);
        }
    }
    true
}

struct Walker<'a> {
    mem: &'a dyn GuestMemory,
    kernel: &'a Kernel,
    descriptor_bytes: u64,
    buffer: Vec<u8>,
}

impl Walker<'_> {
    /// Classifies what `section` has of the pages `here`.
    fn section(
        &mut self,
        section: &MemorySection,
        here: GfnRange,
        classifier: &mut Classifier,
        draft: &mut Draft,
    ) {
        let end = section.pages.end.min(here.end);
        let mut next = section.pages.start.max(here.start);
        while next < end {
            let mut pages = GfnRange::new(next, Gfn((next.0 + PIECE_PAGES).min(end.0)));
            if !self.read(section, pages) {
                // Perhaps only a part of it is not there.
                pages.end = Gfn((next.0 + SUBSECTION_PAGES).min(end.0));
                if !self.read(section, pages) {
                    classifier.interrupt(here.start, next, draft);
                    next = pages.end;
                    continue;
                }
            }
            let bytes = (pages.len() * self.descriptor_bytes) as usize;
            classifier.classify(here.start, next, &self.buffer[..bytes], draft);
            next = pages.end;
        }
    }

    /// Reads the descriptors of some of a section's pages.
    fn read(&mut self, section: &MemorySection, pages: GfnRange) -> bool {
        let skipped = pages.start.0 - section.pages.start.0;
        let at = section.descriptors.0 + skipped * self.descriptor_bytes;
        let bytes = (pages.len() * self.descriptor_bytes) as usize;
        let into = &mut self.buffer[..bytes];
        self.kernel
            .tables
            .read(self.mem, GuestVirt(at), into)
            .is_ok()
    }
}
