// SPDX-License-Identifier: LGPL-2.1-or-later
//! Registers of processors, of any text.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vicover::host::qemu_registers::{parse, MAX_VCPUS};

fuzz_target!(|bytes: &[u8]| {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(vcpus) = parse(&text) {
        assert!((1..=MAX_VCPUS).contains(&vcpus.len()));
    }
});
