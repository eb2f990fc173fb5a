// SPDX-License-Identifier: LGPL-2.1-or-later
//! Guests that lie. Each test says how, and what comes of it: at worst a dump of
//! every page; never a panic, a walk without end, or the loss of the kernel.

mod guests;

use std::sync::atomic::AtomicU64;

use guests::counting::Counting;
use guests::lies;
use guests::synthetic::{self as made, Guest, Page, KERNEL_PAGE};
use guests::{assert_whole, plan_of as plan, plan_through, read_everything};
use proptest::prelude::*;
use vicover::addr::{Gfn, GuestPhys};
use vicover::guest::doubt::Doubt;
use vicover::guest::layout::LayoutError;
use vicover::guest::limits::Limits;
use vicover::guest::locate::{locate, LocateError};
use vicover::guest::log::Log;
use vicover::guest::memory::GuestMemory;
use vicover::guest::plan::Plan;
use vicover::guest::sections::SectionsError;
use vicover::guest::verdict::{DumpLevel, Verdict};

const FRAMES: u64 = 1 << 16;

/// The plan after lines of VMCOREINFO were changed.
fn plan_with(lines: &[(&str, &str)]) -> Plan {
    let mut guest = Guest::new(FRAMES);
    guest.set_free(0x4000, 10);
    for (key, value) in lines {
        guest.line(key, value);
    }
    guest.write_description();
    plan(&guest)
}

/// The plan is whole, and none of the kernel's image is left
/// out but what must not be read.
fn assert_sound(guest: &Guest, plan: &Plan) {
    assert_whole(guest, plan);
    for gfn in 0x1000..0x1000 + made::IMAGE_FRAMES {
        let lost = plan.is_excluded(Gfn(gfn)) && plan.verdict(Gfn(gfn)) != Verdict::Poisoned;
        assert!(!lost, "image page {gfn:#x} is left out");
    }
}

fn keeps_everything(plan: &Plan) -> bool {
    plan.level().get() == 1 && plan.excluded_pages() == 0
}

#[test]
fn page_tables_that_point_to_themselves_end_the_walk_and_keep_everything() {
    let guest = lies::circular(FRAMES);
    let counting = Counting(&guest, AtomicU64::new(0));
    let plan = plan_through(&counting, &guest.processors());
    assert_eq!(plan.doubts(), [Doubt::PageTables]);
    assert!(keeps_everything(&plan));
    // 2^26 entries, 512 of them a read, and what else there is to read.
    let reads = counting.1.into_inner();
    assert!(reads < 1 << 18, "{reads} reads");
    assert_sound(&guest, &plan);
}

#[test]
fn a_symbol_table_of_endless_names_is_given_up() {
    let mut guest = Guest::new(FRAMES);
    // Names of 127 tokens each, in a page that is mapped all over 1 GiB.
    let names = guest.new_frame();
    guest.write(names, &[0x7f; 4096]);
    guest.map(made::VMALLOC, names, 1);
    let (first, second) = (guest.new_frame(), guest.new_frame());
    for entry in 0..512 {
        guest.write_u64(first + entry * 8, second | 0x63);
        guest.write_u64(second + entry * 8, names | 0x63);
    }
    let root = guest.root();
    let upper = guest.read_u64(root + (made::VMALLOC >> 39 & 511) * 8) & !0xfff;
    guest.write_u64(upper + (made::VMALLOC >> 30 & 511) * 8, first | 0x63);
    let number = guest.new_frame();
    guest.write_u64(number, 1 << 22);
    let tokens = guest.new_frame();
    for (part, at) in [
        ("num_syms", made::DIRECT_MAP + number),
        ("names", made::VMALLOC),
        ("token_table", made::DIRECT_MAP + tokens),
        ("token_index", made::DIRECT_MAP + tokens),
        ("offsets", made::DIRECT_MAP + tokens),
    ] {
        guest.line(&format!("SYMBOL(kallsyms_{part})"), format!("{at:x}"));
    }
    guest.write_description();
    let counting = Counting(&guest, AtomicU64::new(0));
    let plan = plan_through(&counting, &guest.processors());
    assert_eq!(plan.doubts(), []);
    // 64 MiB, five reads a page, and what else there is to read.
    let reads = counting.1.into_inner();
    assert!((80_000..150_000).contains(&reads), "{reads} reads");
    assert_sound(&guest, &plan);
}

#[test]
fn sections_that_lead_to_the_same_descriptors_are_refused() {
    let mut guest = Guest::new(FRAMES);
    // Section 1 says that its descriptors are those of section 0.
    let root = guest.read_u64(guest.sections_at()) - made::DIRECT_MAP;
    let bytes = made::SECTION_PAGES * 64;
    guest.write_u64(root + 32, (made::VMEMMAP - bytes) | 0b1111);
    let plan = plan(&guest);
    let shared = SectionsError::Shared(Gfn(0), Gfn(made::SECTION_PAGES));
    assert_eq!(plan.doubts(), [Doubt::Sections(shared)]);
    assert!(keeps_everything(&plan));
}

#[test]
fn roots_of_sections_in_a_circle_tell_nothing_of_their_pages() {
    let mut guest = Guest::new(1 << 24);
    // Every root is the first one: sections 128 apart are the same entry, which
    // leads each to descriptors of its own. These are not mapped or not theirs.
    let array = guest.sections_at();
    let first = guest.read_u64(array);
    for root in 1..4 {
        guest.write_u64(array + root * 8, first);
    }
    // And the array's own page as a root.
    guest.write_u64(array, made::DIRECT_MAP + array);
    let plan = plan(&guest);
    assert_sound(&guest, &plan);
    // What the array says as a root is no section: its pages are kept, unknown.
    for section in 0..128 {
        let page = Gfn(section * made::SECTION_PAGES + 0x4000);
        assert_eq!(plan.verdict(page), Verdict::Unknown, "{page}");
    }
    assert!(!plan.is_excluded(Gfn(0x4000)));
}

#[test]
fn absurd_sizes_keep_everything() {
    for (key, value) in [
        ("SIZE(page)", "1099511627776"),
        ("SIZE(page)", "0"),
        ("SIZE(page)", "18446744073709551615"),
        ("OFFSET(page.flags)", "18446744073709551608"),
        ("OFFSET(page._mapcount)", "62"),
        ("LENGTH(zone.free_area)", "64"),
        ("NUMBER(PG_lru)", "64"),
        ("NUMBER(PG_lru)", "-1"),
        ("NUMBER(PG_head_mask)", "3"),
        ("NUMBER(PAGE_BUDDY_MAPCOUNT_VALUE)", "0"),
    ] {
        let plan = plan_with(&[(key, value)]);
        assert!(
            matches!(plan.doubts(), [Doubt::Layout(_)]),
            "{key}={value}: {:?}",
            plan.doubts()
        );
        assert!(keeps_everything(&plan), "{key}={value}");
    }
    for (key, value) in [
        ("SIZE(mem_section)", "0"),
        ("NUMBER(SECTION_SIZE_BITS)", "63"),
        ("NUMBER(SECTION_SIZE_BITS)", "-1"),
        ("OFFSET(mem_section.section_mem_map)", "4096"),
    ] {
        let plan = plan_with(&[(key, value)]);
        assert!(
            matches!(plan.doubts(), [Doubt::Sections(_)]),
            "{key}={value}: {:?}",
            plan.doubts()
        );
        assert!(keeps_everything(&plan), "{key}={value}");
    }
    for (key, value) in [
        ("LENGTH(node_data)", "18446744073709551615"),
        ("SIZE(zone)", "18446744073709551615"),
        ("OFFSET(pglist_data.nr_zones)", "99999999999"),
        ("SYMBOL(node_data)", "fffffffffffffff8"),
    ] {
        let plan = plan_with(&[(key, value)]);
        assert!(
            matches!(plan.doubts(), [Doubt::Zones(_)]),
            "{key}={value}: {:?}",
            plan.doubts()
        );
        assert_eq!(plan.level().get(), 15, "{key}={value}");
        assert_eq!(plan.excluded_pages(), 0, "{key}={value}");
    }
}

#[test]
fn offsets_that_overlap_keep_everything() {
    let plan = plan_with(&[("OFFSET(page.mapping)", "40")]);
    let overlap = LayoutError::Overlap("page.mapping", "page.private");
    assert_eq!(plan.doubts(), [Doubt::Layout(overlap)]);
    assert!(keeps_everything(&plan));
}

#[test]
fn orders_beyond_the_free_area_free_nothing() {
    let mut guest = Guest::new(FRAMES);
    for (index, order) in [11, 63, 64, u64::MAX].into_iter().enumerate() {
        let page = Page {
            mapcount: made::BUDDY,
            refcount: 0,
            private: order,
            ..KERNEL_PAGE
        };
        guest.set(0x4000 + index as u64 * 0x400, page);
    }
    let plan = plan(&guest);
    assert_eq!(plan.oddities().bad_free_blocks, 4);
    assert_eq!(plan.count_of(Verdict::Free), 0);
    assert_eq!(plan.count_of(Verdict::Unknown), 4);
    assert_eq!(plan.doubts(), []);
}

#[test]
fn a_free_block_with_a_page_in_use_is_kept() {
    let mut guest = Guest::new(FRAMES);
    guest.set_free(0x4000, 10);
    guest.set(0x4123, KERNEL_PAGE);
    guest.write_description();
    let plan = plan(&guest);
    assert_eq!(plan.oddities().broken_blocks, 1);
    assert_eq!(plan.count_of(Verdict::Free), 0);
    assert_eq!(plan.verdict(Gfn(0x4000)), Verdict::Unknown);
    assert_eq!(plan.excluded_pages(), 0);
}

#[test]
fn descriptors_that_call_the_kernels_text_free_do_not_lose_it() {
    let mut guest = Guest::new(FRAMES);
    guest.protect_image();
    // The zone counts these blocks, so the totals agree.
    guest.set_free(0x1000, 9);
    guest.set_free(0x4000, 10);
    guest.write_description();
    let plan = plan(&guest);
    assert_eq!(plan.doubts(), []);
    assert_eq!(plan.count_of(Verdict::NeverExclude), made::IMAGE_FRAMES);
    assert_eq!(plan.count_of(Verdict::Free), 1024);
    assert_sound(&guest, &plan);
}

#[test]
fn single_wrong_descriptors_do_not_lose_the_kernels_data() {
    // Writable, and no symbols tell which of it is in use.
    let mut guest = Guest::new(FRAMES);
    guest.set_free(0x1040, 3);
    guest.set_cache(0x10ff);
    guest.write_description();
    let plan = plan(&guest);
    assert_eq!(plan.count_of(Verdict::NeverExclude), 9);
    assert_sound(&guest, &plan);
}

#[test]
fn descriptors_that_call_page_tables_and_descriptors_cache_do_not_lose_them() {
    let mut guest = Guest::new(FRAMES);
    let tables = (guest.root() >> 12, 0x101);
    for gfn in [tables.0, tables.1, 0x2000, 0x2001, 0x2200] {
        guest.set_cache(gfn);
    }
    guest.set_cache(0x5000);
    let plan = plan(&guest);
    assert_eq!(plan.count_of(Verdict::NeverExclude), 5);
    assert_eq!(plan.count_of(Verdict::Cache), 1);
}

#[test]
fn a_wrong_count_of_free_pages_keeps_them() {
    let mut guest = Guest::new(FRAMES);
    for block in 0..8 {
        guest.set_free(0x4000 + block * 0x400, 10);
    }
    guest.set_cache(0x7000);
    guest.write_description();
    for block in 8..16 {
        guest.set_free(0x4000 + block * 0x400, 10);
    }
    let plan = plan(&guest);
    let doubt = Doubt::FreePages {
        found: 16 * 1024,
        counted: 8 * 1024,
    };
    assert_eq!(plan.doubts(), [doubt]);
    assert_eq!((plan.asked().get(), plan.level().get()), (31, 15));
    assert!(!plan.is_excluded(Gfn(0x4000)));
}

#[test]
fn a_false_description_is_refused_and_the_true_one_found() {
    let mut guest = Guest::new(FRAMES);
    // Where it is met first: another kernel's, with the same addresses.
    let text = String::from_utf8(guest.text()).unwrap();
    let false_text = text.replace("6.12.0-made", "6.99.0-made");
    guest.write(0x100_0000 - 0x1000, b"OSRELEASE=");
    guest.write(0x400_0000, false_text.as_bytes());
    let located = locate(&guest, &guest.processors(), &Limits::default()).unwrap();
    assert_eq!(located.kernel.info.release(), made::RELEASE);
    let gfns: Vec<_> = located.copies.iter().map(|copy| copy.gfn).collect();
    assert!(!gfns.contains(&Gfn(0x4000)));
}

#[test]
fn memory_full_of_descriptions_is_not_read_through() {
    let mut guest = Guest::new(FRAMES);
    for at in [guest.text_at, guest.note_at] {
        guest.write(at.0, &[0; 64]);
    }
    for gfn in 0x2400..0x4000u64 {
        guest.write(gfn << 12, b"OSRELEASE=trap\nPAGESIZE=4096\n");
    }
    let found = locate(&guest, &guest.processors(), &Limits::default());
    let Err(LocateError::Refused { refused, .. }) = found else {
        panic!("{found:?}");
    };
    assert_eq!(
        refused.len(),
        8,
        "that many are told, however many there are"
    );
}

#[test]
fn a_processor_on_another_kernels_tables_is_noticed() {
    let mut guest = Guest::new(FRAMES);
    let mut processors = guest.processors();
    // A copy of the topmost table in which the kernel is elsewhere.
    let root = guest.new_frame();
    let tables = [guest.new_frame(), guest.new_frame()];
    guest.write_u64(root + 511 * 8, tables[0] | 0x63);
    guest.write_u64(tables[0] + 510 * 8, tables[1] | 0x63);
    guest.write_u64(tables[1] + 8 * 8, 0x300_0000 | 0xe3);
    processors[0].cr3 = root;
    let found = locate(&guest, &processors, &Limits::default());
    assert!(
        matches!(found, Err(LocateError::Refused { .. })),
        "{found:?}"
    );
}

#[test]
fn a_guest_without_any_kernel_is_dumped_whole() {
    let mut guest = Guest::new(FRAMES);
    for at in [guest.text_at, guest.note_at] {
        guest.write(at.0, &[0; 64]);
    }
    let error = locate(&guest, &guest.processors(), &Limits::default()).unwrap_err();
    let plan = Plan::everything(&guest, DumpLevel::DEFAULT, Doubt::NoKernel(error));
    assert!(keeps_everything(&plan));
    assert_sound(&guest, &plan);
}

fn any_number() -> impl Strategy<Value = i128> {
    prop_oneof![
        -2i128..300,
        Just(i64::MAX as i128),
        Just(i64::MIN as i128),
        Just(u64::MAX as i128),
        any::<i64>().prop_map(i128::from),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_numbers_in_the_description_are_survived(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any_number()), 1..4)
    ) {
        let mut guest = Guest::new(FRAMES);
        guest.set_free(0x4000, 10);
        guest.add_log(&["first", "second"]);
        let keys: Vec<String> = guest.lines.keys().cloned().collect();
        for (index, number) in changes {
            let key = index.get(&keys);
            let value = match key.starts_with("SYMBOL") {
                true => format!("{:x}", number as u64),
                false => number.to_string(),
            };
            guest.line(key, value);
        }
        guest.write_description();
        read_everything(&guest, &guest.processors());
    }

    #[test]
    fn any_words_in_the_kernels_structures_are_survived(
        changes in prop::collection::vec((0u64..0x120_0000 / 8, any::<u64>(), 0u8..4), 1..40)
    ) {
        let mut guest = Guest::new(FRAMES);
        guest.set_free(0x4000, 10);
        guest.add_log(&["first", "second"]);
        guest.write_description();
        for (word, value, kind) in changes {
            // Mostly what looks like an entry or a pointer, near what is in use.
            let at = (0x10_0000 + word * 8 % 0x2_0000) | (word & 1) << 24;
            let value = match kind {
                0 => value,
                1 => value & 0x3ff_f000 | 0x63,
                2 => made::DIRECT_MAP | value & 0x3ff_fff8,
                _ => value & 0xff,
            };
            guest.write_u64(at, value);
        }
        read_everything(&guest, &guest.processors());
    }

    #[test]
    fn any_descriptors_are_survived(
        changes in prop::collection::vec((0u64..FRAMES, 0u64..8, any::<u64>(), 0u8..4), 1..200)
    ) {
        let mut guest = Guest::new(FRAMES);
        guest.protect_image();
        guest.set_free(0x4000, 10);
        for (pfn, word, value, kind) in changes {
            let at = guest.descriptor(pfn) + word * 8;
            let value = match kind {
                0 => value,
                1 => value & 0x1f_ffff,
                2 => u64::from(made::BUDDY),
                _ => value & 0x7f,
            };
            guest.write_u64(at, value);
        }
        guest.write_description();
        let plan = plan(&guest);
        assert_sound(&guest, &plan);
    }
}

#[test]
fn a_log_that_leads_in_circles_is_read_to_an_end() {
    let mut guest = Guest::new(FRAMES);
    guest.add_log(&["[one]", "[two]", "[three]"]);
    guest.write_description();
    let located = locate(&guest, &guest.processors(), &Limits::default()).unwrap();
    let log = Log::find(&guest, &located.kernel).unwrap();
    let texts = |guest: &Guest, most| -> Vec<String> {
        let records = log.tail(guest, most);
        records.into_iter().map(|record| record.text).collect()
    };
    assert_eq!(texts(&guest, 4096), ["[one]", "[two]", "[three]"]);
    assert_eq!(texts(&guest, 12), ["[two]", "[three]"]);

    // The oldest record is said to be one that is never met.
    guest.write_u64(guest.log_at() + 0x28, u64::MAX);
    let located = locate(&guest, &guest.processors(), &Limits::default()).unwrap();
    let log = Log::find(&guest, &located.kernel).unwrap();
    assert!(log.tail(&guest, 4096).len() <= 16);
    // The ring is said to have 2^63 records.
    guest.write(guest.log_at(), &63u32.to_le_bytes());
    assert!(Log::find(&guest, &located.kernel).is_err());
    assert!(GuestPhys(guest.log_at()).gfn() < guest.end());
}
