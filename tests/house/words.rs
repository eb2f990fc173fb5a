// SPDX-License-Identifier: LGPL-2.1-or-later
//! The vocabulary, and where the tree breaks it.

use std::fs;

use proc_macro2::{Delimiter, TokenTree};

use super::source::{tokens, top, Source};

#[derive(Clone, Copy, PartialEq, Debug)]
enum Kind {
    Type,
    Function,
    Word,
}

/// A line of the vocabulary.
pub(crate) struct Entry {
    kind: Kind,
    name: String,
    /// Where it counts: the beginning of paths.
    place: String,
    instead: String,
}

pub(crate) fn vocabulary() -> Vec<Entry> {
    let text = fs::read_to_string(top().join("tests/vocabulary")).unwrap();
    let lines = text
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty());
    let entries: Vec<Entry> = lines.map(entry).collect();
    assert!(!entries.is_empty());
    entries
}

fn entry(line: &str) -> Entry {
    let columns: Vec<&str> = line.split('|').map(str::trim).collect();
    assert!(
        columns.len() == 3 && columns.iter().all(|column| !column.is_empty()),
        "a word, another and a reason: {line:?}"
    );
    let (kind, name) = columns[0].split_once(' ').expect("a kind and a name");
    let (name, place) = name.split_once(" in ").unwrap_or((name, ""));
    Entry {
        kind: match kind {
            "type" => Kind::Type,
            "fn" => Kind::Function,
            "word" => Kind::Word,
            _ => panic!("{kind:?} is no kind of word: {line:?}"),
        },
        name: name.to_owned(),
        place: place.to_owned(),
        instead: columns[1].to_owned(),
    }
}

impl Entry {
    fn found(&self, path: &str, line: usize) -> String {
        let (name, instead) = (&self.name, &self.instead);
        format!("{path}:{line}: {name}: here this is {instead}")
    }

    fn counts_in(&self, kind: Kind, path: &str) -> bool {
        self.kind == kind && path.starts_with(&self.place)
    }
}

/// Names of types and functions in a file that the vocabulary has others for.
pub(crate) fn in_code(entries: &[Entry], source: &Source) -> Vec<String> {
    let tokens = tokens(source);
    let mut found = Vec::new();
    for (index, token) in tokens.iter().enumerate() {
        let TokenTree::Ident(name) = token else {
            continue;
        };
        let word = name.to_string();
        let called = is_function(&tokens, index);
        for entry in entries.iter().filter(|entry| entry.name == word) {
            let a_function = called && entry.counts_in(Kind::Function, &source.path);
            if a_function || entry.counts_in(Kind::Type, &source.path) {
                found.push(entry.found(&source.path, name.span().start().line));
            }
        }
    }
    found
}

/// Whether a name is that of a function that is defined or called: behind `fn`, `.` or
/// `::`, and before an opening parenthesis.
fn is_function(tokens: &[TokenTree], index: usize) -> bool {
    let opens = matches!(tokens.get(index + 1),
        Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Parenthesis);
    let follows = match index.checked_sub(1).map(|before| &tokens[before]) {
        Some(TokenTree::Ident(word)) => word == "fn",
        Some(TokenTree::Punct(mark)) => mark.as_char() == '.' || mark.as_char() == ':',
        _ => false,
    };
    opens && follows
}

/// Words of a text that the vocabulary has others for.
pub(crate) fn in_text(entries: &[Entry], path: &str, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let words = words(line);
        for entry in entries {
            if entry.counts_in(Kind::Word, path) && words.contains(&entry.name) {
                found.push(entry.found(path, index + 1));
            }
        }
    }
    found
}

/// The words of a line in small letters; a name is as many words as it is made of.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut before = ' ';
    for letter in line.chars() {
        if !letter.is_alphanumeric() || letter.is_uppercase() && before.is_lowercase() {
            words.push(String::new());
        }
        if letter.is_alphanumeric() {
            words.last_mut().unwrap().extend(letter.to_lowercase());
        }
        before = letter;
    }
    words.retain(|word| !word.is_empty());
    words
}
