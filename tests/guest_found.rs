// SPDX-License-Identifier: LGPL-2.1-or-later
//! Which kernel is found in a guest, and by what: the one that processors run.
#![allow(missing_docs)]

mod guests;

use std::cell::Cell;
use std::sync::atomic::AtomicU64;

use guests::counting::Counting;
use guests::kernels::{add_second, with_32_bits};
use guests::synthetic::{self as made, Guest};
use vicover::addr::{Gfn, GuestVirt};
use vicover::guest::arch::x86_64::Processor;
use vicover::guest::kernel::Refusal;
use vicover::guest::limits::Limits;
use vicover::guest::locate::{locate, LocateError, Located, Refused, Way};
use vicover::guest::memory::GuestMemory;
use vicover::guest::paging::Translator;

const FRAMES: u64 = 1 << 14;

fn find(guest: &dyn GuestMemory, processors: &[Processor]) -> Result<Located, LocateError> {
    locate(guest, processors, &Limits::default())
}

fn release(found: &Result<Located, LocateError>) -> &str {
    let located = found.as_ref().expect("a kernel");
    located.kernel.info.release()
}

/// What an error offers for the dump.
fn unconfirmed(found: &Result<Located, LocateError>) -> Option<&str> {
    let info = found.as_ref().expect_err("no kernel").unconfirmed();
    info.map(|info| info.release())
}

/// Descriptions that were refused, and how many pages were looked at.
fn refused(found: &Result<Located, LocateError>) -> (&[Refused], u64) {
    match found {
        Err(LocateError::Refused {
            refused,
            pages_probed,
        }) => (refused, *pages_probed),
        _ => panic!("{found:?}"),
    }
}

/// Two kernels that memory agrees with; the second's description has `more` lines.
fn two_kernels(more: &str) -> (Guest, Processor, Processor) {
    let mut guest = Guest::new(FRAMES);
    let second = add_second(&mut guest, "6.1.0-second", more);
    let first = guest.processors()[0];
    (guest, first, second.processor)
}

#[test]
fn the_way_from_a_processor_is_as_long_in_a_guest_of_any_size() {
    let probed = |frames, blocks| {
        let guest = Guest::with_blocks(frames, blocks);
        let located = find(&guest, &guest.processors()).unwrap();
        assert_eq!(located.by, Way::Processor);
        assert_eq!(located.copies.len(), 2);
        located.pages_probed
    };
    let small = probed(FRAMES, 1);
    // The image's pages, and the two that it points to.
    assert_eq!(small, made::IMAGE_FRAMES + 2);
    assert_eq!(probed(1 << 24, 1), small);
}

#[test]
fn the_kernel_that_a_processor_runs_counts_and_not_the_one_that_ran() {
    let (guest, first, second) = two_kernels("");
    assert_eq!(release(&find(&guest, &[first])), made::RELEASE);
    assert_eq!(release(&find(&guest, &[first, first])), made::RELEASE);
    assert_eq!(release(&find(&guest, &[second])), "6.1.0-second");
}

#[test]
fn a_processor_in_a_program_leads_to_the_kernel_beside_its_tables() {
    let guest = Guest::new(FRAMES);
    let mut processors = guest.processors();
    // The neighbour of the kernel's topmost table has no kernel in it.
    processors[0].cr3 |= 1 << 12;
    let located = find(&guest, &processors).unwrap();
    assert_eq!(located.by, Way::Processor);
    assert!(located.kernel.is_run_by(&guest, &processors[0]));
}

#[test]
fn a_kernel_that_handed_over_when_it_crashed_does_not_contradict_its_successor() {
    let (guest, first, second) = two_kernels("CRASHTIME=1700000000\n");
    assert_eq!(release(&find(&guest, &[second, first])), made::RELEASE);
    // Nobody runs the successor.
    assert_eq!(release(&find(&guest, &[second])), "6.1.0-second");
}

#[test]
fn two_kernels_that_processors_run_contradict_each_other() {
    let (guest, first, second) = two_kernels("");
    let found = find(&guest, &[second, first]);
    assert!(
        matches!(found, Err(LocateError::Contradiction(..))),
        "{found:?}"
    );
    assert_eq!(unconfirmed(&found), Some("6.1.0-second"));
}

#[test]
fn a_description_that_the_kernel_does_not_point_to_contradicts_nothing() {
    let mut guest = Guest::new(FRAMES);
    let text = String::from_utf8(guest.text()).unwrap();
    let other = text.replace("SIZE(page)=64", "SIZE(page)=56");
    guest.write(0x300_0000, other.as_bytes());
    let located = find(&guest, &guest.processors()).unwrap();
    assert_eq!(located.kernel.info.size("page"), Some(64));
    // Nor when it is met first, by a search.
    let located = find(&guest, &[]).unwrap();
    assert_eq!(located.by, Way::Search);
    assert_eq!(located.kernel.info.size("page"), Some(64));
}

#[test]
fn two_descriptions_that_the_kernel_points_to_contradict_each_other() {
    let mut guest = Guest::new(FRAMES);
    let text = String::from_utf8(guest.text()).unwrap();
    let other = text.replace("SIZE(page)=64", "SIZE(page)=56");
    guest.write(guest.text_at.0, other.as_bytes());
    let found = find(&guest, &guest.processors());
    let (text, note) = (guest.text_at.gfn(), guest.note_at.gfn());
    match &found {
        Err(LocateError::Contradiction(one, other)) => {
            assert_eq!((one.gfn, other.gfn), (text, note));
        }
        _ => panic!("{found:?}"),
    }
    assert_eq!(unconfirmed(&found), Some(made::RELEASE));
}

#[test]
fn a_kernel_that_no_processor_runs_is_a_candidate_and_no_more() {
    let mut guest = Guest::new(FRAMES);
    let elsewhere = Processor {
        cr3: guest.new_frame(),
        ..Processor::default()
    };
    let found = find(&guest, &[elsewhere]);
    let (refused, pages_probed) = refused(&found);
    assert_eq!(refused.len(), 2);
    assert!(refused.iter().all(|one| one.why == Refusal::NotRun));
    assert_eq!(pages_probed, FRAMES, "each page is counted once");
    assert_eq!(unconfirmed(&found), Some(made::RELEASE));
    let said = found.unwrap_err().to_string();
    let named = format!(
        "; at {} (Linux {}): no processor runs this kernel",
        guest.text_at.gfn(),
        made::RELEASE
    );
    assert!(said.contains(&named), "{said}");
    // Without any processor nobody can tell.
    assert_eq!(release(&find(&guest, &[])), made::RELEASE);
}

#[test]
fn a_kernel_of_32_bits_is_named_without_a_search() {
    let (memory, processor, text) = with_32_bits(0x2000);
    let found = find(&memory, &[processor, processor]);
    let (refused, pages_probed) = refused(&found);
    assert_eq!(refused.len(), 1);
    assert_eq!(refused[0].gfn, Gfn(0x1fff));
    assert_eq!(refused[0].why, Refusal::Bits32);
    // Where it may have variables: from what the processor executes to the end of
    // what is mapped, without the text.
    assert_eq!(pages_probed, 0x2000 - 0x1200);
    let error = found.unwrap_err();
    let info = error.unconfirmed().expect("its description");
    assert!(info.is_32_bit());
    assert_eq!(info.text(), text.as_bytes());
}

#[test]
fn processors_that_run_a_kernel_that_is_known_lead_nowhere_else() {
    let mut guest = Guest::new(FRAMES);
    let first = guest.processors()[0];
    // Tables with the same kernel, and more that is mapped as an image.
    let [root, upper, lower] = [(); 3].map(|()| guest.new_frame());
    let index = (made::KERNEL_MAP + made::IMAGE) >> 21 & 511;
    guest.write_u64(root + 511 * 8, upper | 0x63);
    guest.write_u64(upper + 510 * 8, lower | 0x63);
    guest.write_u64(lower + index * 8, made::IMAGE | 0xe3);
    guest.write_u64(lower + 100 * 8, 0x60_0000 | 0xe3);
    // Where the pointers lead to.
    let direct = (made::DIRECT_MAP >> 39 & 511) * 8;
    let map = guest.read_u64(guest.root() + direct);
    guest.write_u64(root + direct, map);
    let second = Processor { cr3: root, ..first };
    let probed = |processors: &[Processor]| {
        let located = find(&guest, processors).unwrap();
        assert_eq!(located.by, Way::Processor);
        located.pages_probed
    };
    assert_eq!(probed(&[first, second]), made::IMAGE_FRAMES + 2);
    assert_eq!(probed(&[second, first]), 2 * made::IMAGE_FRAMES + 2);
    // Nor is anything asked of a second processor when the first one's has 32 bits.
    let (memory, processor, _) = with_32_bits(0x2000);
    let lower = Processor {
        rip: GuestVirt(0xc000_0123),
        ..processor
    };
    let probed = |processors: &[Processor]| refused(&find(&memory, processors)).1;
    assert_eq!(probed(&[processor, lower]), probed(&[processor]));
    assert!(probed(&[lower]) > probed(&[processor]));
}

#[test]
fn the_copy_that_was_written_last_says_more() {
    for text_is_last in [true, false] {
        let mut guest = Guest::new(FRAMES);
        let more = [&guest.text()[..], b"CRASHTIME=1700000000\n"].concat();
        let (text_at, note_at) = (guest.text_at.0, guest.note_at.0);
        if text_is_last {
            guest.write(text_at, &more);
        } else {
            let mut note = guests::elf::note(b"VMCOREINFO\0", 0, &more);
            note[0] = 11;
            guest.write(note_at, &note);
        }
        let located = find(&guest, &guest.processors()).unwrap();
        assert_eq!(located.kernel.info.text(), more);
        assert_eq!(located.copies.len(), 2);
    }
}

#[test]
fn a_description_that_nothing_points_to_is_found_by_a_search() {
    let mut guest = Guest::new(FRAMES);
    for word in 0..2 {
        guest.write_u64(made::IMAGE + 0x10_3000 + word * 8, 0);
    }
    let located = find(&guest, &[]).unwrap();
    let text = guest.text_at.gfn();
    let copies: Vec<Gfn> = located.copies.iter().map(|copy| copy.gfn).collect();
    assert_eq!((located.by, copies), (Way::Search, vec![text]));
    // The last 2 MiB before which memory is searched from its end back.
    assert_eq!(located.pages_probed, FRAMES - 0x200 + text.0 + 1);
}

#[test]
fn a_search_ends_when_the_caller_says_so_and_counts_what_it_looked_at() {
    let mut guest = Guest::with_blocks(1 << 24, 1);
    for at in [guest.text_at, guest.note_at] {
        guest.write(at.0, &[0; 64]);
    }
    let asked = Cell::new(0u64);
    let third = || {
        asked.set(asked.get() + 1);
        asked.get() == 3
    };
    let limits = Limits {
        end_search: &third,
        ..Limits::default()
    };
    let found = locate(&guest, &[], &limits);
    let Err(LocateError::Nothing {
        pages_probed,
        whole: false,
    }) = found
    else {
        panic!("{found:?}");
    };
    assert_eq!(pages_probed, 512);
    let said = found.unwrap_err().to_string();
    let ended = "no VMCOREINFO in 512 pages, then the search was ended";
    assert_eq!(said, ended);
}

#[test]
fn an_image_full_of_pointers_is_followed_to_a_bound() {
    let mut guest = Guest::new(FRAMES);
    // Every word of the image leads to a page of its own, or would.
    let root = guest.root() - made::IMAGE;
    for word in (0..root / 8).chain(root / 8 + 0x2000..made::IMAGE_FRAMES * 512) {
        let page = word;
        guest.write_u64(made::IMAGE + word * 8, made::DIRECT_MAP + (page << 12));
    }
    let counting = Counting(&guest, AtomicU64::new(0));
    // What is found depends on where the pointers end.
    let _ = find(&counting, &guest.processors());
    // 16384 pointers, of which each takes a read.
    let reads = counting.1.into_inner();
    assert!((16_384..20_000).contains(&reads), "{reads} reads");
}

#[test]
fn addresses_are_translated_together_as_each_alone_and_with_fewer_reads() {
    let mut guest = Guest::new(FRAMES);
    for page in (0..1024).step_by(3) {
        let frame = guest.new_frame();
        guest.map(made::VMALLOC + (page << 12), frame, 1);
    }
    let tables = find(&guest, &guest.processors()).unwrap().kernel.tables;
    let counting = Counting(&guest, AtomicU64::new(0));
    let mut together = Translator::new(&counting, tables);
    let pages = (0..1024).map(|page| made::VMALLOC + (page << 12) + page);
    let others = [made::DIRECT_MAP, made::KERNEL_MAP, 0, u64::MAX, 1 << 62];
    for at in pages.chain(others).map(GuestVirt) {
        assert_eq!(together.translate(at), tables.translate(&guest, at), "{at}");
    }
    let reads = counting.1.into_inner();
    assert!(reads < 20, "{reads} reads");
}
