// SPDX-License-Identifier: LGPL-2.1-or-later
//! A guest whose memory is changed in any place, and all that is read of it.
#![no_main]

#[path = "../../tests/guests/mod.rs"]
mod guests;

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use guests::overlay::Overlay;
use guests::synthetic::{self as made, Guest};

static GUEST: LazyLock<Guest> = LazyLock::new(guests::fuzzed_guest);

fuzz_target!(|bytes: &[u8]| {
    let mut guest = Overlay::new(&*GUEST);
    for record in bytes.chunks_exact(12) {
        let place = u64::from(u32::from_le_bytes(record[..4].try_into().unwrap()));
        let word = u64::from_le_bytes(record[4..].try_into().unwrap());
        // Where something is: tables and sections, the image's data, descriptors,
        // the description itself.
        let within = place & 0xffff;
        let at = match place >> 29 {
            0 | 1 => 0x10_0000 + within * 8 % 0x4_0000,
            2 | 3 => made::IMAGE + 0x10_0000 + within * 8 % 0x8000,
            4 | 5 => made::DESCRIPTORS + within * 8,
            6 => GUEST.text_at.0 + within % 4088,
            _ => GUEST.note_at.0 + within % 4088,
        };
        // What looks like something: an entry of a table, an address.
        let word = match place >> 26 & 7 {
            0..=3 => word,
            4 => word & 0x3ff_f000 | 0x63,
            5 => made::DIRECT_MAP | word & 0x3ff_fff8,
            6 => made::KERNEL_MAP | word & 0x3ff_fff8,
            _ => word & 0xff,
        };
        guest.write_u64(at, word);
    }
    guests::read_everything(&guest, &GUEST.processors());
});
