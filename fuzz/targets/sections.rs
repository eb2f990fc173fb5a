// SPDX-License-Identifier: LGPL-2.1-or-later
//! Memory sections and page descriptors of any words: the plan is whole, and
//! keeps what the kernel's page tables show to be in use.
#![no_main]

#[path = "../../tests/guests/mod.rs"]
mod guests;

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use guests::overlay::Overlay;
use guests::synthetic::{self as made, Guest};
use vicover::addr::Gfn;
use vicover::guest::locate::locate;
use vicover::guest::limits::Limits;
use vicover::guest::plan::build;
use vicover::guest::verdict::{DumpLevel, Verdict};

static GUEST: LazyLock<Guest> = LazyLock::new(|| {
    let mut guest = guests::fuzzed_guest();
    guest.protect_image();
    guest
});

fuzz_target!(|bytes: &[u8]| {
    let mut guest = Overlay::new(&*GUEST);
    for record in bytes.chunks_exact(12) {
        let place = u32::from_le_bytes(record[..4].try_into().unwrap());
        let word = u64::from_le_bytes(record[4..].try_into().unwrap());
        let at = if place >> 31 == 0 {
            let pfn = u64::from(place >> 3) % GUEST.frames();
            GUEST.descriptor(pfn) + u64::from(place & 7) * 8
        } else {
            GUEST.sections_at() + u64::from(place) % 0x600 * 8
        };
        guest.write_u64(at, word);
    }
    let processors = GUEST.processors();
    let located = locate(&guest, &processors, &Limits::default()).expect("the kernel is untouched");
    let level = DumpLevel::DEFAULT;
    let plan = build(&guest, &located, &processors, level, &Limits::default());
    guests::assert_whole(&guest, &plan);
    for gfn in 0x1000..0x1000 + made::IMAGE_FRAMES {
        let lost = plan.is_excluded(Gfn(gfn)) && plan.verdict(Gfn(gfn)) != Verdict::Poisoned;
        assert!(!lost, "image page {gfn:#x} is left out");
    }
});
