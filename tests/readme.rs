// SPDX-License-Identifier: LGPL-2.1-or-later
//! What the README and the manual page say of the options, of C and of the tree is so.
#![allow(missing_docs)]

mod support;

use std::path::Path;

use vicover::options::{Options, TABLE};

const README: &str = include_str!("../README.md");
const MANUAL: &str = include_str!("../xl-patch/xl.cfg.pod");

/// Cells of the rows of a Markdown table whose first line is `head`.
fn table(head: &str) -> Vec<Vec<&'static str>> {
    let rows: Vec<Vec<&str>> = README
        .lines()
        .skip_while(|line| *line != head)
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    assert!(!rows.is_empty(), "the README has no table {head:?}");
    rows
}

/// Texts between the fences of blocks in `language`.
fn blocks(language: &str) -> Vec<&'static str> {
    README
        .split("\n```")
        .filter_map(|part| part.strip_prefix(language)?.strip_prefix('\n'))
        .collect()
}

#[test]
fn the_option_table_is_the_library_s() {
    let code = |cell: &'static str| cell.trim_matches('`');
    let listed: Vec<Vec<&str>> = table("| key | values | default | meaning |")
        .into_iter()
        .map(|row| vec![code(row[0]), row[1], row[2], row[3]])
        .collect();
    let real: Vec<Vec<&str>> = TABLE
        .iter()
        .map(|spec| vec![spec.key, spec.allowed, spec.default, spec.help])
        .collect();
    assert_eq!(listed, real);
}

/// Of every item of the manual page that is called `KEY=...`: the key, and what is told
/// before the next item, in one line.
fn manual() -> Vec<(&'static str, String)> {
    let items = MANUAL.split("\n=item B<").skip(1);
    items
        .filter_map(|item| {
            let (title, text) = item.split_once(">\n")?;
            let (key, _) = title.split_once('=')?;
            Some((key, text.split_whitespace().collect::<Vec<_>>().join(" ")))
        })
        .collect()
}

#[test]
fn the_manual_page_has_every_option_with_values_and_default() {
    let told: Vec<(&str, String)> = manual()
        .into_iter()
        .filter(|(key, _)| *key != "vicover")
        .collect();
    let keys: Vec<&str> = told.iter().map(|(key, _)| *key).collect();
    let real: Vec<&str> = TABLE.iter().map(|spec| spec.key).collect();
    assert_eq!(keys, real);
    for (spec, (key, text)) in TABLE.iter().zip(told) {
        let says = format!("Values: {}. Default: {}. ", spec.allowed, spec.default);
        assert!(
            text.starts_with(&says),
            "{key}: {says:?} is not how {text:?} begins"
        );
    }
}

#[test]
fn the_options_in_configurations_are_taken() {
    let given: Vec<&str> = README
        .lines()
        .filter_map(|line| line.strip_prefix("vicover  = \"")?.strip_suffix('"'))
        .collect();
    assert!(!given.is_empty(), "no xl.cfg in the README has options");
    for options in given {
        assert!(Options::parse(options).is_ok(), "{options}");
    }
}

#[test]
fn the_c_example_dumps_a_guest() {
    let examples = blocks("c");
    assert_eq!(examples.len(), 1, "C examples in the README");
    let directory = tempfile::tempdir().unwrap();
    let source = directory.path().join("dump-guest.c");
    std::fs::write(&source, examples[0]).unwrap();
    let path = support::c_program::build_and_run(&source, directory.path());
    let bytes = std::fs::read(path.trim()).expect("the dump is where it says");
    assert_eq!(&bytes[..8], b"KDUMP   ");
}

#[test]
fn everything_on_the_map_is_there() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    for row in table("| where | what |") {
        for path in row[0].split(", ") {
            let path = path.trim_matches('`');
            assert!(top.join(path).exists(), "no {path} in the tree");
        }
    }
}
