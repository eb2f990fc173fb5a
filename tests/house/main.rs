// SPDX-License-Identifier: LGPL-2.1-or-later
//! The tree is a house that a stranger can walk: every room can be understood alone,
//! nothing is too long to read, and every idea has one name.
#![allow(missing_docs)]

mod imports;
mod licences;
mod modules;
mod places;
mod shape;
mod source;
mod words;

use modules::Modules;
use source::{sources, top, tracked};

/// Longer functions are several.
const FUNCTION_LINES: usize = 60;
/// Longer files are several.
const FILE_LINES: usize = 500;

/// What may lie in src beside the folders.
const LOOSE: &[&str] = &["addr.rs", "error.rs", "lib.rs"];

/// Where `unsafe` may be.
const UNSAFE: &[&str] = &["src/capi/", "src/host/xen/", "src/os/"];

/// Names of types that have two meanings for a reason.
const TWO_MEANINGS: &[(&str, &str)] = &[(
    "Error",
    "as in std, each is the error of its module: dump::Error that of writing a dump, \
     which knows nothing of jobs, error::Error that of a job",
)];

/// Names nothing, or fails with every line.
#[track_caller]
fn nothing(found: &[String], what: &str) {
    assert!(found.is_empty(), "{what}:\n{}", found.join("\n"));
}

#[test]
fn no_file_of_the_source_needs_one_that_needs_it() {
    let sources = sources("src");
    let modules = Modules::of(&sources);
    let needs = imports::needs(&modules);
    let arrows: usize = needs.values().map(|to| to.len()).sum();
    assert!(arrows > needs.len(), "imports were not understood");
    nothing(&imports::circles(&needs), "files in a circle");
}

#[test]
fn nothing_lies_loose_in_src() {
    let loose: Vec<String> = sources("src")
        .into_iter()
        .map(|source| source.path)
        .filter(|path| path.matches('/').count() == 1)
        .filter(|path| !LOOSE.contains(&&path["src/".len()..]))
        .collect();
    nothing(&loose, "files that belong in a folder");
}

#[test]
fn no_function_is_too_long_to_read() {
    let mut long = Vec::new();
    for source in sources("src").iter().chain(&sources("tests")) {
        for (name, lines) in shape::lengths(source) {
            if lines > FUNCTION_LINES {
                long.push(format!("{}: {name}: {lines} lines", source.path));
            }
        }
    }
    nothing(&long, "functions that are several");
}

#[test]
fn no_file_is_too_long_to_read() {
    let mut long = Vec::new();
    for source in sources("src").iter().chain(&sources("tests")) {
        let lines = source.text.lines().count();
        if lines > FILE_LINES {
            long.push(format!("{}: {lines} lines", source.path));
        }
    }
    nothing(&long, "files that are several");
}

#[test]
fn every_public_type_has_a_name_of_its_own() {
    let sources = sources("src");
    let types = shape::public_types(&Modules::of(&sources));
    assert!(types.len() > 50, "types were not found");
    for (name, _) in TWO_MEANINGS {
        assert!(types[*name].len() > 1, "{name} has one meaning again");
    }
    let doubled: Vec<String> = types
        .iter()
        .filter(|(name, _)| TWO_MEANINGS.iter().all(|(known, _)| known != name))
        .filter(|(_, files)| files.len() > 1)
        .map(|(name, files)| {
            let files: Vec<&str> = files.iter().map(String::as_str).collect();
            format!("{name}: {}", files.join(", "))
        })
        .collect();
    nothing(&doubled, "names with two meanings");
}

#[test]
fn unsafe_code_is_in_three_rooms() {
    let (inside, outside): (Vec<_>, Vec<_>) = sources("src")
        .into_iter()
        .partition(|source| UNSAFE.iter().any(|room| source.path.starts_with(room)));
    let all: usize = inside.iter().map(|s| shape::unsafe_lines(s).len()).sum();
    assert!(all > 10, "unsafe code was not found");
    let found: Vec<String> = outside
        .iter()
        .flat_map(|source| {
            let lines = shape::unsafe_lines(source).into_iter();
            lines.map(|line| format!("{}:{line}", source.path))
        })
        .collect();
    nothing(&found, "unsafe code outside of its rooms");
}

#[test]
fn every_file_says_its_licence() {
    let spoken_for = licences::spoken_for();
    let tracked = tracked();
    let is_spoken_for = |path: &str| {
        let mut patterns = spoken_for.iter();
        patterns.any(|pattern| licences::matches(pattern, path))
    };
    let silent: Vec<String> = tracked
        .iter()
        .filter(|path| !is_spoken_for(path) && !licences::says_it(path))
        .cloned()
        .collect();
    nothing(&silent, "files without a licence");
    for pattern in &spoken_for {
        let used = tracked.iter().any(|path| licences::matches(pattern, path));
        assert!(used, "REUSE.toml speaks for no file with {pattern:?}");
    }
}

#[test]
fn every_idea_has_one_word() {
    let entries = words::vocabulary();
    let mut found = Vec::new();
    for source in sources("src").iter().chain(&sources("tests")) {
        if !source.path.starts_with("tests/house/") {
            found.extend(words::in_code(&entries, source));
        }
    }
    for path in tracked().iter().filter(|path| is_searched(path)) {
        let bytes = std::fs::read(top().join(path)).unwrap();
        let text = String::from_utf8_lossy(&bytes);
        found.extend(words::in_text(&entries, path, &text));
    }
    nothing(&found, "words that this tree has others for");
}

/// Whether the words of a file count. Drivers of the emulated host speak of QEMU in its
/// words; what changed is told in those of its day.
fn is_searched(path: &str) -> bool {
    let rooms = ["src/", "include/", "docs/"];
    rooms.iter().any(|room| path.starts_with(room))
        || path.starts_with("tests/") && path.ends_with(".rs")
        || !path.contains('/') && path.ends_with(".md") && path != "CHANGELOG.md"
}

#[test]
fn every_place_that_a_document_names_is_there() {
    let tracked = tracked();
    let mut tests = sources("tests");
    tests.extend(sources("src"));
    for document in ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"] {
        let text = std::fs::read_to_string(top().join(document)).unwrap();
        let missing = places::missing(&text, &tracked, &tests);
        nothing(&missing, &format!("{document} names what is not there"));
    }
}
