// SPDX-License-Identifier: LGPL-2.1-or-later
//! What the shared library shows to the linker is what the header declares:
//! nothing is missing, and nothing is there by accident.
#![allow(missing_docs)]

#[allow(dead_code)] // this test only looks at the library
#[path = "support/c_program.rs"]
mod c_program;

use std::collections::BTreeSet;
use std::process::Command;

#[test]
fn exported_symbols_are_the_headers_functions() {
    let header = include_str!("../include/vicover.h");
    let declared: BTreeSet<String> = header
        .lines()
        .filter(|line| !line.starts_with([' ', '*', '/', '#']) && !line.starts_with("typedef"))
        .filter_map(|line| line.split_once('('))
        .filter_map(|(before, _)| before.rsplit([' ', '*']).next())
        .filter(|name| name.starts_with("vicover_"))
        .map(str::to_owned)
        .collect();
    assert!(declared.len() > 5, "the header was not understood");
    let nm = Command::new("nm")
        .args(["-D", "--defined-only", "--format=posix"])
        .arg(c_program::library())
        .output()
        .expect("binutils are there");
    assert!(nm.status.success());
    let exported: BTreeSet<String> = String::from_utf8_lossy(&nm.stdout)
        .lines()
        .filter_map(|line| line.split(' ').next())
        .map(str::to_owned)
        .collect();
    assert_eq!(exported, declared);
}
