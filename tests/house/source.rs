// SPDX-License-Identifier: LGPL-2.1-or-later
//! The tree's files, and the source among them as it parses.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use proc_macro2::{TokenStream, TokenTree};
use syn::{Attribute, Meta};

pub(crate) fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A file of Rust.
pub(crate) struct Source {
    /// Its path from the top of the tree.
    pub(crate) path: String,
    pub(crate) text: String,
    pub(crate) syntax: syn::File,
}

/// All files of Rust below a directory.
pub(crate) fn sources(directory: &str) -> Vec<Source> {
    let mut paths = below(&top().join(directory));
    paths.retain(|path| path.ends_with(".rs"));
    assert!(!paths.is_empty(), "no Rust in {directory}");
    paths
        .into_iter()
        .map(|path| {
            let text = fs::read_to_string(top().join(&path)).unwrap();
            let syntax = syn::parse_file(&text).unwrap_or_else(|error| panic!("{path}: {error}"));
            Source { path, text, syntax }
        })
        .collect()
}

/// What is there only when building from elsewhere than a clone.
const NOT_OF_THE_TREE: &[&str] = &[".git", "target", "corpus", "artifacts", "__pycache__"];

/// Paths of all files below a directory, from the top of the tree.
pub(crate) fn below(directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut left = vec![directory.to_owned()];
    while let Some(directory) = left.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path: PathBuf = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy();
            if NOT_OF_THE_TREE.contains(&&*name) {
                continue;
            }
            if path.is_dir() {
                left.push(path);
            } else {
                let path = path.strip_prefix(top()).unwrap();
                found.push(path.to_string_lossy().into_owned());
            }
        }
    }
    found.sort();
    found
}

/// Paths of the files under version control; of all files where there is none.
pub(crate) fn tracked() -> Vec<String> {
    let listed = Command::new("git")
        .args(["ls-files", "-z"])
        .current_dir(top())
        .output();
    let Some(listed) = listed.ok().filter(|listed| listed.status.success()) else {
        return below(top());
    };
    String::from_utf8(listed.stdout)
        .unwrap()
        .split_terminator('\0')
        .filter(|path| top().join(path).is_file())
        .map(str::to_owned)
        .collect()
}

/// Whether something is compiled for tests only.
pub(crate) fn only_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        Meta::List(list) if list.path.is_ident("cfg") => {
            let condition = list.tokens.to_string();
            condition == "test" || condition.starts_with("all (test")
        }
        _ => false,
    })
}

/// Tokens in their order, those in brackets among them; a bracket itself is none.
pub(crate) fn flat(tokens: TokenStream) -> Vec<TokenTree> {
    let mut all = Vec::new();
    for token in tokens {
        match token {
            TokenTree::Group(group) => {
                let inner = group.stream();
                all.push(TokenTree::Group(group));
                all.extend(flat(inner));
            }
            other => all.push(other),
        }
    }
    all
}

/// The tokens of a file: no comments, and texts only as literals.
pub(crate) fn tokens(source: &Source) -> Vec<TokenTree> {
    flat(source.text.parse().unwrap())
}
