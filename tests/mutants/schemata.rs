// SPDX-License-Identifier: LGPL-2.1-or-later
//! Compiles all mutants into one program ("mutant schemata"), which is one of them at a
//! time: that whose number is in the environment.
//!
//!   mutant-schemata TREE MUTANTS.JSON WITHOUT.JSON PLACES.JSON
//!
//! Rewrites the files of TREE that `cargo mutants --list --json` has found mutants in.
//! A mutant's number is its place in that list, from 1 on; those whose numbers are in
//! WITHOUT.JSON are left out, for instance because they do not compile. PLACES.JSON says
//! which bytes of the new files belong to which mutant, and which could not be placed.
//!
//! Whatever is put in stays on its line, so that the compiler's messages and panics name
//! the lines of the original.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::error::Error;
use std::ops::Range;
use std::path::Path;

use serde_json::{json, Value};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};

/// A mutant of one file.
struct Mutant {
    number: usize,
    replacement: String,
}

/// The mutants of a file by their genre and the byte that they start at.
type Found = HashMap<(String, usize), Vec<Mutant>>;

/// Which bytes of a new file belong to which mutant.
type Places = Vec<(Range<usize>, usize)>;

/// Text to be put into a file.
struct Insertion {
    at: usize,
    /// Among texts at one place: what closes comes before what opens; where they open,
    /// the longer and the earlier found is outside, and so it is where they close.
    order: (bool, i64, i64),
    text: String,
    mutant: usize,
}

struct Placing<'a> {
    source: &'a str,
    found: &'a Found,
    insertions: Vec<Insertion>,
    placed: HashSet<usize>,
}

fn bytes(node: &impl Spanned) -> Range<usize> {
    node.span().byte_range()
}

/// The condition under which the program is this mutant.
fn is_chosen(mutant: &Mutant) -> String {
    format!("crate::is_mutant({})", mutant.number)
}

impl<'a> Placing<'a> {
    fn at(&self, genre: &str, start: usize) -> &'a [Mutant] {
        let found = self.found.get(&(genre.to_owned(), start));
        found.map_or(&[], Vec::as_slice)
    }

    /// A part of the file on one line and without comments.
    fn on_one_line(&self, part: Range<usize>) -> String {
        let lines = self.source[part].lines();
        let code = lines.map(|line| match line.find("//") {
            Some(comment) if !line[..comment].contains('"') => line[..comment].trim(),
            _ => line.trim(),
        });
        code.collect::<Vec<_>>().join(" ")
    }

    fn put(&mut self, at: usize, order: (bool, i64, i64), text: String, mutant: usize) {
        self.placed.insert(mutant);
        self.insertions.push(Insertion {
            at,
            order,
            text,
            mutant,
        });
    }

    /// Has an expression be another one in each of some mutants.
    fn replace(&mut self, whole: Range<usize>, others: Vec<(&Mutant, String)>) {
        let Some((last, _)) = others.last() else {
            return;
        };
        let (length, turn) = (whole.len() as i64, self.insertions.len() as i64);
        let last = last.number;
        self.put(whole.start, (true, -length, turn), "(".into(), last);
        for (mutant, other) in others {
            let turn = self.insertions.len() as i64;
            let text = format!("if {} {{ {other} }} else ", is_chosen(mutant));
            self.put(whole.start, (true, -length, turn), text, mutant.number);
        }
        let opened = self.insertions.len() as i64;
        self.put(whole.start, (true, -length, opened), "{ ".into(), last);
        self.put(whole.end, (false, length, -turn), " })".into(), last);
    }
}

impl Visit<'_> for Placing<'_> {
    fn visit_expr_binary(&mut self, node: &syn::ExprBinary) {
        let (whole, operator) = (bytes(node), bytes(&node.op));
        let left = self.on_one_line(whole.start..operator.start);
        let right = self.on_one_line(operator.end..whole.end);
        let other = |mutant: &Mutant| format!("({left} {} {right})", mutant.replacement);
        let mutants = self.at("BinaryOperator", operator.start);
        self.replace(whole, mutants.iter().map(|one| (one, other(one))).collect());
        visit::visit_expr_binary(self, node);
    }

    fn visit_expr_unary(&mut self, node: &syn::ExprUnary) {
        let (whole, operator) = (bytes(node), bytes(&node.op));
        let operand = format!("({})", self.on_one_line(operator.end..whole.end));
        let mutants = self.at("UnaryOperator", operator.start);
        let others = mutants.iter().map(|one| (one, operand.clone()));
        self.replace(whole, others.collect());
        visit::visit_expr_unary(self, node);
    }

    /// A function's value is at its body's first statement.
    fn visit_block(&mut self, node: &syn::Block) {
        let first = node.stmts.first().map(|first| bytes(first).start);
        for mutant in first.map_or(&[][..], |first| self.at("FnValue", first)) {
            if !self.placed.contains(&mutant.number) {
                let (chosen, value) = (is_chosen(mutant), &mutant.replacement);
                let text = format!(" if {chosen} {{ return {value}; }}");
                let behind_brace = bytes(node).start + 1;
                self.put(behind_brace, (true, i64::MIN, 0), text, mutant.number);
            }
        }
        visit::visit_block(self, node);
    }

    fn visit_arm(&mut self, node: &syn::Arm) {
        for mutant in self.at("MatchArm", bytes(node).start) {
            let text = format!(" if !{}", is_chosen(mutant));
            let behind_pattern = bytes(&node.pat).end;
            self.put(behind_pattern, (false, i64::MAX, 0), text, mutant.number);
        }
        if let Some((_, guard)) = &node.guard {
            let guard = bytes(&**guard);
            let mutants = self.at("MatchArmGuard", guard.start);
            let value = |mutant: &Mutant| mutant.replacement.clone();
            self.replace(guard, mutants.iter().map(|one| (one, value(one))).collect());
        }
        visit::visit_arm(self, node);
    }

    /// A field that is deleted is what the rest of the structure is taken from has.
    fn visit_expr_struct(&mut self, node: &syn::ExprStruct) {
        let rest = node.rest.as_ref().map(|rest| bytes(&**rest));
        let rest = rest.map(|rest| self.on_one_line(rest)).unwrap_or_default();
        for field in &node.fields {
            let name = &self.source[bytes(&field.member)];
            let value = bytes(&field.expr);
            for mutant in self.at("StructField", bytes(field).start) {
                if field.colon_token.is_none() {
                    let text = format!("{name}: ");
                    self.put(value.start, (true, i64::MIN, 0), text, mutant.number);
                }
                self.replace(value.clone(), vec![(mutant, format!("({rest}).{name}"))]);
            }
        }
        visit::visit_expr_struct(self, node);
    }
}

/// The byte that cargo-mutants means with a line and a column, both counted from 1.
fn byte_of(source: &str, place: &Value) -> usize {
    let number = |key: &str| place[key].as_u64().unwrap_or(1) as usize - 1;
    let start = source
        .split_inclusive('\n')
        .take(number("line"))
        .map(str::len);
    let start: usize = start.sum();
    let column = source[start..].char_indices().nth(number("column"));
    start + column.map_or(0, |(at, _)| at)
}

/// Rewrites a file; returns where its mutants are in what was put in.
fn rewrite(path: &Path, found: &Found) -> Result<Places, Box<dyn Error>> {
    let source = std::fs::read_to_string(path)?;
    let mut placing = Placing {
        source: &source,
        found,
        insertions: Vec::new(),
        placed: HashSet::new(),
    };
    placing.visit_file(&syn::parse_file(&source)?);
    let mut insertions = placing.insertions;
    insertions.sort_by_key(|one| (one.at, one.order));
    let (mut text, mut places, mut copied) = (String::new(), Vec::new(), 0);
    for one in insertions {
        text.push_str(&source[copied..one.at]);
        copied = one.at;
        places.push((text.len()..text.len() + one.text.len(), one.mutant));
        text.push_str(&one.text);
    }
    text.push_str(&source[copied..]);
    std::fs::write(path, text)?;
    Ok(places)
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [tree, list, without, out] = &arguments[..] else {
        return Err("mutant-schemata TREE MUTANTS.JSON WITHOUT.JSON PLACES.JSON".into());
    };
    let tree = Path::new(tree);
    let list: Vec<Value> = serde_json::from_slice(&std::fs::read(list)?)?;
    let without: HashSet<usize> = serde_json::from_slice(&std::fs::read(without)?)?;
    let (mut files, mut left) = (BTreeMap::<String, Found>::new(), HashSet::new());
    for (number, entry) in (1..)
        .zip(&list)
        .filter(|(number, _)| !without.contains(number))
    {
        let text = |key: &str| entry[key].as_str().unwrap_or_default().to_owned();
        let source = std::fs::read_to_string(tree.join(text("file")))?;
        let start = byte_of(&source, &entry["span"]["start"]);
        let mutants = files.entry(text("file")).or_default();
        let replacement = text("replacement");
        mutants
            .entry((text("genre"), start))
            .or_default()
            .push(Mutant {
                number,
                replacement,
            });
        left.insert(number);
    }
    let mut places = Vec::new();
    for (file, found) in &files {
        for (part, mutant) in rewrite(&tree.join(file), found)? {
            left.remove(&mutant);
            places.push(json!([file, part.start, part.end, mutant]));
        }
    }
    let said = json!({ "places": places, "not_placed": left });
    Ok(std::fs::write(out, said.to_string())?)
}
