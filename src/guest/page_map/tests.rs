// SPDX-License-Identifier: LGPL-2.1-or-later
//! What is put into the map is what it says, page by page and run by run.

use proptest::prelude::*;

use super::*;

const SECTIONS: u64 = 3;
const PAGES: u64 = SECTIONS * SECTION_PAGES as u64;

fn any_range() -> impl Strategy<Value = (u64, u64)> {
    (0..PAGES, prop_oneof![1..4u64, 1..3000u64, 1..PAGES])
        .prop_map(|(start, length)| (start, (start + length).min(PAGES)))
}

fn any_verdict() -> impl Strategy<Value = Verdict> {
    (0..Verdict::ALL.len()).prop_map(|index| Verdict::ALL[index])
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 32,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// The map says what a plain list of verdicts says.
    #[test]
    fn it_holds_what_was_put_in(
        fills in prop::collection::vec((any_range(), any_verdict()), 0..20),
        changes in prop::collection::vec((any_range(), any_verdict(), any_verdict()), 0..6),
    ) {
        let mut plain = vec![Verdict::Unknown; PAGES as usize];
        let mut map = PageMap::new(Gfn(PAGES));
        let mut draft = Draft::new();
        for &((start, end), verdict) in &fills {
            plain[start as usize..end as usize].fill(verdict);
        }
        // As a walker does: ascending, and at times the last taken back.
        for (section, pages) in plain.chunks_mut(SECTION_PAGES).enumerate() {
            draft.begin(Gfn((section * SECTION_PAGES) as u64));
            let mut place = 0;
            for run in pages.chunk_by_mut(|one, other| one == other) {
                let places = place..place + run.len();
                place = places.end;
                draft.fill(places.clone(), run[0]);
                if run.len() % 3 == 0 {
                    draft.replace(places, Verdict::Unknown);
                    run.fill(Verdict::Unknown);
                }
            }
            map.finish(&mut draft);
        }
        for &((start, end), verdict, only) in &changes {
            let pages = GfnRange::new(Gfn(start), Gfn(end));
            map.change(pages, verdict, |old| old == only);
            for slot in plain[start as usize..end as usize].iter_mut() {
                if *slot == only {
                    *slot = verdict;
                }
            }
        }
        let mut next = 0;
        for (run, verdict) in map.runs(GfnRange::new(Gfn(0), Gfn(PAGES))) {
            prop_assert_eq!(run.start.0, next);
            next = run.end.0;
            for gfn in run.iter() {
                prop_assert_eq!(plain[gfn.0 as usize], verdict, "{}", gfn);
            }
            if next < PAGES {
                prop_assert_ne!(plain[next as usize], verdict);
            }
        }
        prop_assert_eq!(next, PAGES);
    }
}

#[test]
fn sections_that_are_alike_take_no_room() {
    let map = PageMap::new(Gfn(1 << 28));
    assert!(map.bytes() < 1 << 20, "{} bytes", map.bytes());
    assert_eq!(map.get(Gfn((1 << 28) + 5)), Verdict::Unknown);
}

fn range(start: u64, end: u64) -> GfnRange {
    GfnRange::new(Gfn(start), Gfn(end))
}

/// The map as runs: how long each is, and its verdict.
fn runs(map: &PageMap, pages: GfnRange) -> Vec<(u64, Verdict)> {
    let run = |(run, verdict): (GfnRange, Verdict)| (run.len(), verdict);
    map.runs(pages).map(run).collect()
}

#[test]
fn a_draft_holds_what_was_set_of_its_section_alone() {
    use Verdict::*;
    let mut draft = Draft::new();
    let mut map = PageMap::new(Gfn(PAGES));
    assert_eq!(map.sections(), 3);
    let section = SECTION_PAGES as u64;
    draft.begin(Gfn(section));
    assert_eq!(draft.set_each(0, [Free, Hugetlb, Hugetlb].into_iter()), 3);
    draft.set(3, Poisoned);
    // A run without pages is none.
    draft.fill(4..4, Hugetlb);
    draft.fill(5..9, User);
    draft.fill(9..12, Hugetlb);
    let end = SECTION_PAGES;
    draft.fill(end - 2..end + 7, Hugetlb);
    draft.set(end, Free);
    let listed = [
        (range(section + 1, section + 3), Hugetlb),
        (range(section + 3, section + 4), Poisoned),
        (range(section + 9, section + 12), Hugetlb),
        (range(2 * section - 2, 2 * section), Hugetlb),
    ];
    assert_eq!(draft.listed, listed);
    map.finish(&mut draft);
    assert_eq!(map.listed, listed);

    draft.begin(Gfn(2 * section));
    assert_eq!(draft.listed, []);
    draft.set(1, Offline);
    map.finish(&mut draft);
    assert_eq!(runs(&map, range(0, section)), [(section, Unknown)]);
    assert_eq!(
        runs(&map, range(section, PAGES)),
        [
            (1, Free),
            (2, Hugetlb),
            (1, Poisoned),
            (1, Unknown),
            (4, User),
            (3, Hugetlb),
            (section - 14, Unknown),
            (2, Hugetlb),
            (1, Unknown),
            (1, Offline),
            (section - 2, Unknown),
        ]
    );
    assert!(!map.overflowed());
}

#[test]
fn what_is_replaced_leaves_the_rest_of_its_run() {
    use Verdict::*;
    let mut draft = Draft::new();
    let section = SECTION_PAGES as u64;
    draft.begin(Gfn(section));
    draft.fill(10..20, Hugetlb);
    draft.fill(20..30, Poisoned);
    draft.replace(14..24, Free);
    let at = |start, end| range(section + start, section + end);
    assert_eq!(
        draft.listed,
        [(at(10, 14), Hugetlb), (at(24, 30), Poisoned)]
    );
    draft.replace(26..27, Kernel);
    // Next to runs, and within none.
    draft.replace(14..24, Unknown);
    assert_eq!(
        draft.listed,
        [
            (at(10, 14), Hugetlb),
            (at(24, 26), Poisoned),
            (at(27, 30), Poisoned)
        ]
    );
    draft.replace(10..30, Kernel);
    assert_eq!(draft.listed, []);
}

#[test]
fn a_change_says_how_many_pages_it_changed() {
    use Verdict::*;
    let section = SECTION_PAGES as u64;
    let mut map = PageMap::new(Gfn(PAGES));
    let mut draft = Draft::new();
    draft.begin(Gfn(section));
    draft.fill(0..SECTION_PAGES, Free);
    map.finish(&mut draft);
    let all = |_| true;
    assert_eq!(map.change(range(section, section + 70), Free, all), 0);
    assert_eq!(map.change(range(0, 70), User, |old| old == Free), 0);
    // Across a section's start, bit by bit of each code.
    let pages = range(section - 3, section + 67);
    for verdict in Verdict::ALL {
        let old = map.get(pages.start);
        let changed = if verdict == Unknown { 67 } else { 70 };
        assert_eq!(map.change(pages, verdict, all), changed, "{old} {verdict}");
        assert_eq!(
            runs(&map, range(section - 5, section + 68)),
            match verdict {
                Unknown => vec![(72, Unknown), (1, Free)],
                Free => vec![(2, Unknown), (71, Free)],
                _ => vec![(2, Unknown), (70, verdict), (1, Free)],
            }
        );
    }
    // In the middle of what is listed, and before it.
    assert_eq!(map.listed, [(pages, NeverExclude)]);
    let middle = range(section + 10, section + 11);
    assert_eq!(map.change(middle, Hugetlb, |old| old == NeverExclude), 1);
    assert_eq!(map.change(range(2, 4), Poisoned, |old| old == Unknown), 2);
    assert_eq!(
        map.listed,
        [
            (range(2, 4), Poisoned),
            (range(section - 3, section + 10), NeverExclude),
            (middle, Hugetlb),
            (range(section + 11, section + 67), NeverExclude),
        ]
    );
    let whole = runs(&map, range(0, section + 70));
    let pages: u64 = whole.iter().map(|(pages, _)| pages).sum();
    assert_eq!((whole.len(), pages), (7, section + 70));
}

#[test]
fn a_look_ahead_ends_where_pages_may_differ() {
    use Verdict::*;
    let section = SECTION_PAGES as u64;
    let mut map = PageMap::new(Gfn(PAGES));
    let mut draft = Draft::new();
    draft.begin(Gfn(0));
    // Codes that differ in one bit, in two, and in all three.
    draft.fill(10..12, Cache);
    draft.fill(12..64, Free);
    draft.fill(64..200, Free);
    draft.fill(200..300, Hugetlb);
    draft.fill(SECTION_PAGES - 5..SECTION_PAGES, Poisoned);
    map.finish(&mut draft);
    draft.begin(Gfn(section));
    draft.fill(0..7, Poisoned);
    map.finish(&mut draft);
    let until = |gfn| map.alike_until(Gfn(gfn)).0;
    assert_eq!([0, 9, 10, 11].map(until), [10, 10, 12, 12]);
    // Words of 64 pages are looked at one by one.
    assert_eq!([12, 63, 64, 130, 199].map(until), [64, 64, 128, 192, 200]);
    // Listed pages are alike to the end of their run or section.
    assert_eq!([200, 250, 299].map(until), [300, 300, 300]);
    assert_eq!(
        [section - 5, section - 1, section].map(until),
        [section, section, section + 7]
    );
    // A section that is all alike, and what is beyond the map.
    assert_eq!(until(2 * section + 9), 3 * section);
    assert_eq!(until(PAGES), u64::MAX);
}

#[test]
fn runs_for_which_there_is_no_room_become_unknown() {
    use Verdict::*;
    let full = (MAX_LISTED / SECTION_PAGES) as u64;
    let beyond = full * SECTION_PAGES as u64;
    let mut map = PageMap::new(Gfn(beyond + SECTION_PAGES as u64));
    let mut draft = Draft::new();
    for section in 0..full {
        draft.begin(Gfn(section * SECTION_PAGES as u64));
        let kinds = (0..SECTION_PAGES).map(|place| [Hugetlb, Poisoned][place % 2]);
        draft.set_each(0, kinds);
        map.finish(&mut draft);
    }
    assert_eq!((map.listed.len(), map.overflowed()), (MAX_LISTED, false));
    assert_eq!(map.get(Gfn(beyond - 1)), Poisoned);

    draft.begin(Gfn(beyond));
    draft.set(0, Free);
    draft.set(1, Hugetlb);
    draft.set(2, Offline);
    map.finish(&mut draft);
    assert!(map.overflowed());
    let said = [(1, Poisoned), (1, Free), (1, Unknown), (1, Offline)];
    assert_eq!(runs(&map, range(beyond - 1, beyond + 3)), said);
}

#[test]
fn a_change_for_which_there_is_no_room_makes_pages_unknown() {
    use Verdict::*;
    let mut map = PageMap::new(Gfn(PAGES));
    let nowhere = (range(PAGES, PAGES), Hugetlb);
    map.listed = vec![nowhere; MAX_LISTED - 1];
    assert_eq!(map.change(range(3, 4), Poisoned, |_| true), 1);
    assert_eq!((map.get(Gfn(3)), map.overflowed()), (Poisoned, false));
    map.change(range(5, 6), Offline, |_| true);
    assert!(!map.overflowed());
    map.change(range(5, 6), NeverExclude, |_| true);
    assert_eq!((map.get(Gfn(5)), map.overflowed()), (Unknown, true));
}

#[test]
fn room_is_taken_by_sections_that_are_mixed_and_by_what_is_listed() {
    let mut map = PageMap::new(Gfn(PAGES));
    let empty = map.bytes();
    assert_eq!(empty, 3 * size_of::<Section>());
    let mut draft = Draft::new();
    for section in 0..2 {
        draft.begin(Gfn(section * SECTION_PAGES as u64));
        draft.set(5, Verdict::Free);
        map.finish(&mut draft);
    }
    draft.begin(Gfn(2 * SECTION_PAGES as u64));
    draft.fill(0..SECTION_PAGES, Verdict::User);
    map.finish(&mut draft);
    // Three bits for each page.
    assert_eq!(map.bytes() - empty, 2 * SECTION_PAGES * 3 / 8);
    let before = map.bytes();
    map.listed.reserve_exact(7);
    assert_eq!(map.bytes() - before, 7 * 24);
}
