// SPDX-License-Identifier: LGPL-2.1-or-later
//! A kernel's description of itself, of any bytes: parsed, checked, used.
#![no_main]

#[path = "../../tests/guests/mod.rs"]
mod guests;

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use guests::overlay::Overlay;
use guests::synthetic::Guest;
use vicover::guest::kernel::Kernel;
use vicover::guest::layout::PageLayout;
use vicover::guest::candidate::{Candidate, Form};
use vicover::guest::vmcoreinfo::VmcoreInfo;

static GUEST: LazyLock<Guest> = LazyLock::new(guests::fuzzed_guest);

fuzz_target!(|bytes: &[u8]| {
    let Some((&kind, text)) = bytes.split_first() else {
        return;
    };
    let whole = GUEST.text();
    let text = match kind & 1 {
        0 => text.to_vec(),
        // Lines before the true ones, so that most of what follows is met.
        _ => [b"OSRELEASE=", text, b"\n", &whole].concat(),
    };
    if let Ok(info) = VmcoreInfo::parse(&text) {
        let _ = PageLayout::new(&info);
        let _ = Kernel::check(&*GUEST, info);
    }
    let mut guest = Overlay::new(&*GUEST);
    let (at, form) = match kind & 2 {
        0 => (GUEST.text_at, Form::Text),
        _ => (GUEST.note_at, Form::Note),
    };
    let longest = if form == Form::Text { 4096 } else { 8192 };
    guest.write(at.0, &text[..text.len().min(longest)]);
    let _ = Candidate { gfn: at.gfn(), form }.read(&guest);
    guests::read_everything(&guest, &GUEST.processors());
});
