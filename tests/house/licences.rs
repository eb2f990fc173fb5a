// SPDX-License-Identifier: LGPL-2.1-or-later
//! Whether a file says its licence.

use std::fs;

use super::source::top;

/// The patterns of paths that REUSE.toml speaks for.
pub(crate) fn spoken_for() -> Vec<String> {
    let text = fs::read_to_string(top().join("REUSE.toml")).unwrap();
    let lists = text.split("path = ").skip(1);
    let patterns: Vec<String> = lists
        .flat_map(|list| {
            list.split(']')
                .next()
                .unwrap()
                .split('"')
                .skip(1)
                .step_by(2)
        })
        .map(str::to_owned)
        .collect();
    assert!(!patterns.is_empty(), "REUSE.toml was not understood");
    patterns
}

/// Whether one of the first lines of a file names its licence.
pub(crate) fn says_it(path: &str) -> bool {
    let bytes = fs::read(top().join(path)).unwrap();
    let text = String::from_utf8_lossy(&bytes);
    let needle = concat!("SPDX-License-", "Identifier: ");
    text.lines().take(5).any(|line| line.contains(needle))
}

/// Whether a path is of a pattern, where `**` is anything and `*` all but a slash.
pub(crate) fn matches(pattern: &str, path: &str) -> bool {
    let ends = |rest: &str, slashes: bool| {
        let at = |index: usize| path.get(index..).is_some_and(|path| matches(rest, path));
        let end = path.find('/').filter(|_| !slashes).unwrap_or(path.len());
        (0..=end).any(at)
    };
    if let Some(rest) = pattern.strip_prefix("**") {
        ends(rest, true)
    } else if let Some(rest) = pattern.strip_prefix('*') {
        ends(rest, false)
    } else {
        let mut letters = pattern.chars();
        match letters.next() {
            None => path.is_empty(),
            Some(letter) => path
                .strip_prefix(letter)
                .is_some_and(|path| matches(letters.as_str(), path)),
        }
    }
}
