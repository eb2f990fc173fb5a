// SPDX-License-Identifier: LGPL-2.1-or-later
//! Functions and their lengths, types that callers see, and `unsafe`.

use std::collections::{BTreeMap, BTreeSet};

use proc_macro2::TokenTree;
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{Block, Signature};

use super::modules::{ModulePath, Modules};
use super::source::{tokens, Source};

/// The functions of a file with their lengths in lines, from `fn` to the last brace.
pub(crate) fn lengths(source: &Source) -> Vec<(String, usize)> {
    let mut functions = Functions(Vec::new());
    functions.visit_file(&source.syntax);
    functions.0
}

struct Functions(Vec<(String, usize)>);

impl Functions {
    fn add(&mut self, signature: &Signature, body: &Block) {
        let first = signature.fn_token.span().start().line;
        let last = body.brace_token.span.close().end().line;
        let name = signature.ident.to_string();
        self.0.push((name, last + 1 - first));
    }
}

impl<'ast> Visit<'ast> for Functions {
    fn visit_item_fn(&mut self, function: &'ast syn::ItemFn) {
        self.add(&function.sig, &function.block);
        visit::visit_item_fn(self, function);
    }

    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        self.add(&function.sig, &function.block);
        visit::visit_impl_item_fn(self, function);
    }

    fn visit_trait_item_fn(&mut self, function: &'ast syn::TraitItemFn) {
        if let Some(body) = &function.default {
            self.add(&function.sig, body);
        }
        visit::visit_trait_item_fn(self, function);
    }
}

/// The types that another crate can name, and the files that define each.
pub(crate) fn public_types(modules: &Modules) -> BTreeMap<String, BTreeSet<String>> {
    let mut types = BTreeMap::new();
    public_types_of(modules, &Vec::new(), &mut BTreeSet::new(), &mut types);
    types
}

fn public_types_of(
    modules: &Modules,
    path: &ModulePath,
    seen: &mut BTreeSet<ModulePath>,
    types: &mut BTreeMap<String, BTreeSet<String>>,
) {
    if !seen.insert(path.clone()) {
        return;
    }
    let module = &modules.0[path];
    let mut add = |name: &str, file: &str| {
        let files = types.entry(name.to_owned()).or_default();
        files.insert(file.to_owned());
    };
    for name in &module.types {
        add(name, module.file);
    }
    let mut further = Vec::new();
    for import in module.imports.iter().filter(|import| import.public) {
        let place = modules.resolve(&import.path);
        let defined_in = &modules.0[&place.module];
        match place.name {
            Some(name) if defined_in.types.contains(&name) => add(&import.name, defined_in.file),
            Some(_) => {}
            None => further.push(place.module),
        }
    }
    let children = modules.0.iter().filter(|(child, module)| {
        module.public && child.len() == path.len() + 1 && child.starts_with(path)
    });
    further.extend(children.map(|(child, _)| child.clone()));
    for path in further {
        public_types_of(modules, &path, seen, types);
    }
}

/// The lines of a file that hold `unsafe`, or allow it.
pub(crate) fn unsafe_lines(source: &Source) -> Vec<usize> {
    let tokens = tokens(source);
    let mut lines = Vec::new();
    for (index, token) in tokens.iter().enumerate() {
        let TokenTree::Ident(name) = token else {
            continue;
        };
        let allows = |before: &TokenTree| matches!(before, TokenTree::Ident(name) if name == "allow" || name == "expect");
        let attribute = &tokens[index.saturating_sub(40)..index];
        let last_word = attribute.iter().rev().find(|token| is_level(token));
        if name == "unsafe" || name == "unsafe_code" && last_word.is_some_and(allows) {
            lines.push(name.span().start().line);
        }
    }
    lines
}

/// Whether it is a word that sets the level of a lint.
fn is_level(token: &TokenTree) -> bool {
    let levels = ["allow", "expect", "warn", "deny", "forbid"];
    matches!(token, TokenTree::Ident(name) if levels.iter().any(|level| name == level))
}
