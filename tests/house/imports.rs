// SPDX-License-Identifier: LGPL-2.1-or-later
//! Which file of the source needs which, and for what.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};
use syn::{Attribute, Expr, ImplItem, Item, Macro, Stmt, TraitItem};

use super::modules::{named_by, ModulePath, Modules};
use super::source::only_for_tests;

/// For each file: the files that it needs, and the names that it needs them for.
pub(crate) type Needs<'a> = BTreeMap<&'a str, BTreeMap<&'a str, BTreeSet<String>>>;

/// What a file needs without tests. A folder's `mod.rs` does not need the children
/// whose names it passes on.
pub(crate) fn needs<'a>(modules: &'a Modules<'a>) -> Needs<'a> {
    let mut all = Needs::new();
    for (path, module) in &modules.0 {
        let mut names = Names {
            modules,
            path,
            paths: Vec::new(),
        };
        for item in module.items {
            if !matches!(item, Item::Mod(_)) {
                names.visit_item(item);
            }
        }
        let from = all.entry(module.file).or_default();
        for path in names.paths {
            let place = modules.resolve(&path);
            let to = &modules.0[&place.module];
            let passes_on = place.name.is_none() && to.file.ends_with("/mod.rs");
            if to.file != module.file && !passes_on {
                let name = place.name.unwrap_or_else(|| path.last().unwrap().clone());
                from.entry(to.file).or_default().insert(name);
            }
        }
    }
    all
}

/// Gathers the paths that a module names.
struct Names<'a> {
    modules: &'a Modules<'a>,
    path: &'a ModulePath,
    paths: Vec<ModulePath>,
}

impl Names<'_> {
    fn named(&mut self, written: &[String]) {
        if written.len() > 1 {
            self.paths.extend(self.modules.absolute(self.path, written));
        }
    }

    /// Paths in what a macro is given: names with `::` between them.
    fn in_tokens(&mut self, tokens: TokenStream) {
        let (mut written, mut colons) = (Vec::new(), 0);
        for token in tokens {
            match token {
                TokenTree::Ident(name) => {
                    if colons != 2 {
                        self.named(&written);
                        written.clear();
                    }
                    written.push(name.to_string());
                    colons = 0;
                }
                TokenTree::Punct(mark) if mark.as_char() == ':' => colons += 1,
                other => {
                    self.named(&written);
                    (written, colons) = (Vec::new(), 0);
                    if let TokenTree::Group(group) = other {
                        self.in_tokens(group.stream());
                    }
                }
            }
        }
        self.named(&written);
    }
}

impl<'ast> Visit<'ast> for Names<'_> {
    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        let own = self.path.len();
        let known = |name: &String| {
            self.modules
                .absolute(self.path, std::slice::from_ref(name))
                .is_some()
        };
        for import in named_by(item, self.path, known) {
            let of_a_child = import.path.len() > own && import.path.starts_with(self.path);
            if !(import.public && of_a_child) {
                self.paths.push(import.path);
            }
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let written: Vec<String> = path
            .segments
            .iter()
            .map(|segment| segment.ident.to_string())
            .collect();
        self.named(&written);
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast Macro) {
        self.in_tokens(call.tokens.clone());
        visit::visit_macro(self, call);
    }

    // Documentation may name what it likes.
    fn visit_attribute(&mut self, attribute: &'ast Attribute) {
        if !attribute.path().is_ident("doc") {
            visit::visit_attribute(self, attribute);
        }
    }

    fn visit_item(&mut self, item: &'ast Item) {
        let attributes: &[Attribute] = match item {
            Item::Const(item) => &item.attrs,
            Item::Enum(item) => &item.attrs,
            Item::Fn(item) => &item.attrs,
            Item::Impl(item) => &item.attrs,
            Item::Macro(item) => &item.attrs,
            Item::Mod(item) => &item.attrs,
            Item::Static(item) => &item.attrs,
            Item::Struct(item) => &item.attrs,
            Item::Trait(item) => &item.attrs,
            Item::Type(item) => &item.attrs,
            Item::Use(item) => &item.attrs,
            _ => &[],
        };
        if !only_for_tests(attributes) {
            visit::visit_item(self, item);
        }
    }

    fn visit_impl_item(&mut self, item: &'ast ImplItem) {
        let attributes: &[Attribute] = match item {
            ImplItem::Const(item) => &item.attrs,
            ImplItem::Fn(item) => &item.attrs,
            ImplItem::Type(item) => &item.attrs,
            _ => &[],
        };
        if !only_for_tests(attributes) {
            visit::visit_impl_item(self, item);
        }
    }

    fn visit_trait_item(&mut self, item: &'ast TraitItem) {
        let attributes: &[Attribute] = match item {
            TraitItem::Const(item) => &item.attrs,
            TraitItem::Fn(item) => &item.attrs,
            _ => &[],
        };
        if !only_for_tests(attributes) {
            visit::visit_trait_item(self, item);
        }
    }

    fn visit_stmt(&mut self, statement: &'ast Stmt) {
        let attributes: &[Attribute] = match statement {
            Stmt::Local(local) => &local.attrs,
            Stmt::Macro(call) => &call.attrs,
            Stmt::Expr(Expr::Block(block), _) => &block.attrs,
            Stmt::Expr(Expr::Call(call), _) => &call.attrs,
            _ => &[],
        };
        if !only_for_tests(attributes) {
            visit::visit_stmt(self, statement);
        }
    }
}

/// The shortest circle through each file that is on one, each circle once, and every
/// step of it with the names that tie it.
pub(crate) fn circles(needs: &Needs) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let mut told = Vec::new();
    for &file in needs.keys() {
        let Some(circle) = shortest(needs, file) else {
            continue;
        };
        if !seen.insert(circle.iter().copied().collect::<BTreeSet<_>>()) {
            continue;
        }
        let mut text = file.to_owned();
        for (index, from) in circle.iter().enumerate() {
            let to = circle.get(index + 1).copied().unwrap_or(file);
            let names: Vec<&str> = needs[from][to].iter().map(String::as_str).collect();
            text += &format!("\n    -> {to} for {}", names.join(", "));
        }
        told.push(text);
    }
    told
}

/// The files of the shortest way from one back to itself, in their order.
fn shortest<'a>(needs: &Needs<'a>, file: &'a str) -> Option<Vec<&'a str>> {
    let mut before: BTreeMap<&str, &'a str> = BTreeMap::new();
    let mut left = VecDeque::from([file]);
    while let Some(from) = left.pop_front() {
        for &to in needs.get(from).into_iter().flat_map(BTreeMap::keys) {
            if to == file {
                let mut circle = vec![from];
                while circle[0] != file {
                    circle.insert(0, before[circle[0]]);
                }
                return Some(circle);
            }
            if !before.contains_key(to) {
                before.insert(to, from);
                left.push_back(to);
            }
        }
    }
    None
}
