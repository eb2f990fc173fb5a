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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::guests::synthetic::{self as made, Guest};
    use crate::guest::guests::{plan_of, verdicts};

    const SECTION: u64 = SECTION_PAGES as u64;

    #[test]
    fn pages_whose_descriptors_cannot_be_read_are_unknown_and_no_others() {
        use Verdict::*;
        let mut guest = Guest::new(2 * SECTION);
        guest.set_free(SECTION, 9);
        guest.set_cache(SECTION + 512);
        guest.set_free(SECTION + 1024, 10);
        guest.set_cache(SECTION + 2047);
        guest.set_cache(SECTION + 2048);
        guest.set_cache(SECTION + 2560 + 4095);
        guest.set_cache(2 * SECTION - 1);
        guest.write_description();
        // A page of descriptors is about 64 pages, and any that is missing takes the
        // other 448 with it that are mapped together with them.
        let descriptors = made::VMEMMAP + SECTION * 64;
        guest.split(descriptors, 30..31);
        let plan = plan_of(&guest);
        assert_eq!(plan.doubts(), []);
        // The second half of the block is not there, so that all of it is unknown.
        assert_eq!(
            verdicts(&plan, SECTION..2 * SECTION),
            [
                (512, Free),
                (1, Cache),
                (511, Kernel),
                (1024, Unknown),
                (1, Cache),
                (512 + 4094, Kernel),
                (1, Cache),
                (SECTION - 2560 - 4096 - 1, Kernel),
                (1, Cache)
            ]
        );
        assert_eq!(verdicts(&plan, 0x4000..SECTION), [(0x4000, Kernel)]);
    }

    #[test]
    fn memory_sections_may_be_larger_and_smaller_than_those_of_the_map() {
        use Verdict::*;
        for bits in [24, 26, 27, 28] {
            let mut guest = Guest::new(2 * SECTION);
            guest.set_cache(0x5fff);
            guest.set_cache(SECTION - 1);
            guest.set_free(SECTION, 3);
            guest.set_cache(SECTION + 0x1000);
            guest.set_cache(2 * SECTION - 1);
            guest.line("NUMBER(SECTION_SIZE_BITS)", bits);
            // All say the same: where the descriptor of page 0 is.
            let entries = guest.read_u64(guest.sections_at()) - made::DIRECT_MAP;
            let map = guest.read_u64(entries);
            for number in 0..(2 * SECTION) >> (bits - 12) {
                guest.write_u64(entries + number * 32, map);
            }
            guest.write_description();
            let plan = plan_of(&guest);
            assert_eq!(plan.doubts(), []);
            assert_eq!(
                verdicts(&plan, 0x5000..2 * SECTION),
                [
                    (0xfff, Kernel),
                    (1, Cache),
                    (0x1fff, Kernel),
                    (1, Cache),
                    (8, Free),
                    (0xff8, Kernel),
                    (1, Cache),
                    (SECTION - 0x1002, Kernel),
                    (1, Cache)
                ],
                "sections of {bits} bits"
            );
        }
    }

    #[test]
    fn pages_of_sections_that_are_not_there_are_unknown() {
        use Verdict::*;
        for missing in 0..3 {
            let mut guest = Guest::new(3 * SECTION);
            let entries = guest.read_u64(guest.sections_at()) - made::DIRECT_MAP;
            guest.write_u64(entries + missing * 32, 0);
            let plan = plan_of(&guest);
            for section in 0..3 {
                let pages = (section * SECTION + 0x5000)..(section + 1) * SECTION;
                let expected = if section == missing { Unknown } else { Kernel };
                assert_eq!(verdicts(&plan, pages), [(0x3000, expected)]);
            }
        }
    }
}
