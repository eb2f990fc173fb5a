// SPDX-License-Identifier: LGPL-2.1-or-later
//! Page tables of any words.
#![no_main]

#[path = "../../tests/guests/mod.rs"]
mod guests;

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use guests::overlay::Overlay;
use guests::synthetic::Guest;
use vicover::addr::GuestVirt;
use vicover::guest::arch::x86_64::Levels;
use vicover::guest::paging::{Descend, PageTables, Translator};

static GUEST: LazyLock<Guest> = LazyLock::new(guests::fuzzed_guest);

/// Entries that a visit looks at, at most.
const ENTRIES: u64 = 1 << 14;

fuzz_target!(|bytes: &[u8]| {
    let (words, _) = bytes.as_chunks::<8>();
    let mut words = words.iter().map(|word| u64::from_le_bytes(*word));
    let (Some(root), Some(at), Some(last)) = (words.next(), words.next(), words.next()) else {
        return;
    };
    let mut guest = Overlay::new(&*GUEST);
    for word in words {
        // Sixteen tables: the place in the word's high bits, which an entry
        // does not use.
        let place = word >> 52;
        let table = 0x200 + (place & 15);
        let entry = word & 0x8000_0000_0000_0fff | (0x200 + (word >> 12 & 15)) << 12;
        guest.write_u64((table << 12) + (place >> 4) * 8, entry | word & 1 << 51);
    }
    for levels in [Levels::Four, Levels::Five] {
        let tables = PageTables::new(0x20_0000 | root & 0xf000, levels, root & 1 << 47);
        let mut together = Translator::new(&guest, tables);
        for at in [at, last, at ^ 0x1000, at] {
            let alone = tables.translate(&guest, GuestVirt(at));
            assert_eq!(together.translate(GuestVirt(at)).ok(), alone.ok());
        }
        let mut page = [0; 64];
        let _ = tables.read(&guest, GuestVirt(at), &mut page);
        let mut left = ENTRIES;
        let mut seen = 0;
        let end = tables.visit(
            &guest,
            GuestVirt(at.min(last)),
            GuestVirt(at.max(last)),
            &mut left,
            &mut |_| {
                seen += 1;
                Descend::Into
            },
        );
        assert!(seen <= 2 * ENTRIES + 1);
        assert!(end.complete || left == 0);
    }
});
