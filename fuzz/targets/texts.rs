// SPDX-License-Identifier: LGPL-2.1-or-later
//! Option texts, journals and histories of crashes of any bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vicover::journal::{History, Past};
use vicover::options::Options;

/// What a journal begins with, so that not every one is refused at its first line.
const BEGUN: &str = r#"{"entry":"begun","version":1,"guest":"g","uuid":"u","domid":1,"boot_id":"b","options":"","dump_dir":"/d","memory_pages":1,"host":"{}"}"#;

fuzz_target!(|bytes: &[u8]| {
    let text = String::from_utf8_lossy(bytes);
    let _ = Options::parse(&text);
    let _ = Past::read(&text);
    if let Ok(history) = History::read(&text) {
        assert!(history.crashes_ms.len() <= History::MOST && history.crashes_ms.is_sorted());
    }
    if let Ok(past) = Past::read(&format!("{BEGUN}\n{text}")) {
        assert_eq!(past.begun.guest, "g");
    }
});
