// SPDX-License-Identifier: LGPL-2.1-or-later
//! The kernel's symbols in tables of every form, and in tables that lie.

use super::*;
use crate::guest::guests::symbols::{
    Kept, BASE_ADDRESS, NAMES, NUMBER, OFFSETS, TOKENS, TOKEN_INDEX,
};
use crate::guest::guests::synthetic::{self as made, Guest};
use crate::guest::limits::Limits;
use crate::guest::locate::locate;

const TEXT: u64 = made::KERNEL_MAP + made::IMAGE;
const FRAMES: u64 = 1 << 14;

fn look_up<const N: usize>(
    guest: &mut Guest,
    names: [&str; N],
) -> Result<[Option<u64>; N], KallsymsError> {
    guest.write_description();
    let processors = guest.processors();
    let located = locate(guest, &processors, &Limits::default()).expect("a kernel");
    let found = lookup(guest, &located.kernel, names)?;
    Ok(found.map(|at| at.map(|at| at.0)))
}

#[test]
fn addresses_are_found_however_they_are_kept() {
    let base = BASE_ADDRESS;
    let symbols = [
        ("first", base + 3),
        ("__init_begin", base + 0x123_4567),
        // Of the same length.
        ("__init_begun", base + 0x223_4567),
        ("_stext", TEXT),
        ("far", base + 0x7eff_0000),
        ("last", base + 0x10),
    ];
    for kept in [Kept::Itself, Kept::Base, Kept::BaseOrAbsolute] {
        let mut guest = Guest::new(FRAMES);
        guest.add_symbols(kept, &symbols);
        let names = ["last", "__init_begin", "none", "first", "far"];
        let far = base + 0x7eff_0000;
        let found = look_up(&mut guest, names);
        let begin = Some(base + 0x123_4567);
        assert_eq!(
            found,
            Ok([Some(base + 0x10), begin, None, Some(base + 3), Some(far)]),
            "{kept:?}"
        );
    }
}

#[test]
fn small_addresses_may_stand_for_themselves() {
    let mut guest = Guest::new(FRAMES);
    let symbols = [
        ("_stext", TEXT),
        ("zero", 0),
        ("small", 0x7fff_ffff),
        ("at_base", BASE_ADDRESS),
    ];
    guest.add_symbols(Kept::BaseOrAbsolute, &symbols);
    let found = look_up(&mut guest, ["at_base", "small", "zero"]);
    let addresses = [BASE_ADDRESS, 0x7fff_ffff, 0].map(Some);
    assert_eq!(found, Ok(addresses));
}

#[test]
fn names_may_be_long_and_lie_across_pages() {
    let mut guest = Guest::new(FRAMES);
    let names: Vec<String> = [1, 126, 127, 128, 129, 300, 511]
        .iter()
        .map(|&length| "n".repeat(length))
        .collect();
    let mut symbols = vec![("_stext", TEXT)];
    // Names on both sides of each page's end.
    for round in 0..5 {
        for (index, name) in names.iter().enumerate() {
            symbols.push((name, BASE_ADDRESS + round * 0x100 + index as u64));
        }
    }
    guest.add_symbols(Kept::Base, &symbols);
    for (index, name) in names.iter().enumerate() {
        // The last of several counts.
        let at = BASE_ADDRESS + 4 * 0x100 + index as u64;
        assert_eq!(look_up(&mut guest, [name]), Ok([Some(at)]), "{index}");
    }
}

#[test]
fn a_token_ends_where_the_longest_name_does() {
    let mut guest = Guest::new(FRAMES);
    guest.add_symbols(Kept::Base, &[("_stext", TEXT)]);
    // A second symbol, of the token of byte 2, which has no end.
    let far = 0xfff0u16;
    guest.write_image(TOKENS + u64::from(far), &[b'x'; 0x1000]);
    guest.write_image(TOKEN_INDEX + 2 * 2, &far.to_le_bytes());
    guest.write_image(NAMES + "_T_stext".len() as u64, &[1, 2]);
    guest.write_image(NUMBER, &2u32.to_le_bytes());
    guest.write_image(OFFSETS + 4, &0x55u32.to_le_bytes());
    let found = look_up(&mut guest, [&"x".repeat(512), &"x".repeat(513)]);
    assert_eq!(found, Ok([Some(BASE_ADDRESS + 0x55), None]));
}

#[test]
fn a_table_that_cannot_be_is_not_believed() {
    let symbols = [("_stext", TEXT), ("last", TEXT + 5)];
    let with = |change: &dyn Fn(&mut Guest)| {
        let mut guest = Guest::new(FRAMES);
        guest.add_symbols(Kept::Base, &symbols);
        change(&mut guest);
        look_up(&mut guest, ["last"])
    };
    assert_eq!(with(&|_| ()), Ok([Some(TEXT + 5)]));
    let number = |number: u64| {
        let bytes = (number as u32).to_le_bytes();
        with(&move |guest: &mut Guest| guest.write_image(NUMBER, &bytes))
    };
    let value = |name| Err(KallsymsError::Value(name));
    assert_eq!(number(MAX_SYMBOLS + 1), value("kallsyms_num_syms"));
    assert_eq!(number(1), Ok([None]));
    let missing = |name: &str| with(&|guest: &mut Guest| guest.forget(&format!("SYMBOL({name})")));
    for name in [
        "kallsyms_num_syms",
        "kallsyms_names",
        "kallsyms_token_table",
        "kallsyms_token_index",
        "kallsyms_offsets",
    ] {
        assert_eq!(missing(name), value(name));
    }
    // Neither without a base, nor by any of the ways with one.
    let contradiction = Err(KallsymsError::Contradiction);
    assert_eq!(missing("kallsyms_relative_base"), contradiction);
    let elsewhere = |guest: &mut Guest| guest.write_image(OFFSETS, &1u32.to_le_bytes());
    assert_eq!(with(&elsewhere), contradiction);
    let nameless = |guest: &mut Guest| guest.write_image(NAMES + 2, b"-");
    assert_eq!(with(&nameless), contradiction);
    let unmapped = |guest: &mut Guest| {
        guest.line("SYMBOL(kallsyms_offsets)", format!("{:x}", made::VMALLOC));
    };
    let not_mapped = WalkError::NotMapped(GuestVirt(made::VMALLOC));
    assert_eq!(with(&unmapped), Err(KallsymsError::Unreadable(not_mapped)));
}
