// SPDX-License-Identifier: LGPL-2.1-or-later
//! Places of the tree that documents name: paths, and tests by their sentences.

use crate::source::Source;

/// What a text has between backquotes.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .flat_map(|line| line.split('`').skip(1).step_by(2))
}

/// Whether it names a file or folder of the tree, below the top or below src.
fn is_path(name: &str) -> bool {
    let ends = [".rs", ".h", ".c", ".md", ".pod"];
    let clean = |c: char| c.is_ascii_alphanumeric() || "_-./".contains(c);
    name.chars().all(clean)
        && !name.starts_with(['/', '.'])
        && (name.contains('/') || ends.iter().any(|end| name.ends_with(end)))
        && !name.split('/').any(|part| part == "target")
}

/// Paths and tests that `text` names and that are not there.
pub(crate) fn missing(text: &str, tracked: &[String], tests: &[Source]) -> Vec<String> {
    let there = |name: &str| {
        let name = name.trim_end_matches('/');
        tracked.iter().any(|path| {
            let below = path.strip_prefix("src/").unwrap_or(path);
            [path, below].iter().any(|path| {
                path.strip_suffix(name)
                    .is_some_and(|before| before.is_empty() || before.ends_with('/'))
                    || path.starts_with(&format!("{name}/"))
            })
        })
    };
    let is_test = |name: &str| name.matches('_').count() > 4;
    let mut missing = Vec::new();
    for name in quoted(text) {
        let is_there = match name {
            name if is_path(name) => there(name),
            name if is_test(name) && !name.contains(['(', ' ', '=']) => {
                let function = format!("fn {name}(");
                tests.iter().any(|source| source.text.contains(&function))
            }
            _ => true,
        };
        if !is_there {
            missing.push(name.to_owned());
        }
    }
    missing
}
