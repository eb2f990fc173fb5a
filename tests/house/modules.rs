// SPDX-License-Identifier: LGPL-2.1-or-later
//! The crate's modules, and which file a path through them leads to.

use std::collections::{BTreeMap, BTreeSet};

use syn::{Ident, Item, ItemUse, UseTree, Visibility};

use super::source::{only_for_tests, Source};

/// Names from the crate's root, without `crate`.
pub(crate) type ModulePath = Vec<String>;

/// What a `use` brings into a module.
pub(crate) struct Import {
    /// The name it has there; `*` for all names.
    pub(crate) name: String,
    /// From the crate's root, as it is written: it may go through other imports.
    pub(crate) path: ModulePath,
    pub(crate) public: bool,
}

pub(crate) struct Module<'a> {
    pub(crate) file: &'a str,
    pub(crate) items: &'a [Item],
    /// Whether its parent declares it `pub`.
    pub(crate) public: bool,
    /// Types that are `pub` in it.
    pub(crate) types: BTreeSet<String>,
    /// All names that it defines, types among them.
    names: BTreeSet<String>,
    children: BTreeSet<String>,
    pub(crate) imports: Vec<Import>,
}

/// The modules that are there without tests.
pub(crate) struct Modules<'a>(pub(crate) BTreeMap<ModulePath, Module<'a>>);

/// Where a path leads to: a module, and the name that it defines; without a name,
/// the module itself.
#[derive(PartialEq, Eq, PartialOrd, Ord, Clone, Debug)]
pub(crate) struct Place {
    pub(crate) module: ModulePath,
    pub(crate) name: Option<String>,
}

type Files<'a> = BTreeMap<&'a str, &'a Source>;

impl<'a> Modules<'a> {
    pub(crate) fn of(sources: &'a [Source]) -> Self {
        let by_path = |source: &'a Source| (source.path.as_str(), source);
        let files: Files = sources.iter().map(by_path).collect();
        let mut modules = Self(BTreeMap::new());
        let root = files["src/lib.rs"];
        modules.add(&files, &[], &root.path, &root.syntax.items, true);
        modules
    }

    fn add(
        &mut self,
        files: &Files<'a>,
        path: &[String],
        file: &'a str,
        items: &'a [Item],
        public: bool,
    ) {
        self.0
            .insert(path.to_vec(), module(file, items, public, path));
        for item in items {
            let Item::Mod(child) = item else { continue };
            if only_for_tests(&child.attrs) {
                continue;
            }
            let mut below = path.to_vec();
            below.push(child.ident.to_string());
            let public = is_public(&child.vis);
            if let Some((_, items)) = &child.content {
                self.add(files, &below, file, items, public);
                continue;
            }
            let stem = format!("src/{}", below.join("/"));
            let source = [format!("{stem}.rs"), format!("{stem}/mod.rs")]
                .iter()
                .find_map(|file| files.get(file.as_str()).copied())
                .unwrap_or_else(|| panic!("no file for the module {stem}"));
            self.add(files, &below, &source.path, &source.syntax.items, public);
        }
    }

    /// A path as it is written in `module`, from the crate's root; `None` when it leads
    /// out of the crate.
    pub(crate) fn absolute(&self, module: &[String], written: &[String]) -> Option<ModulePath> {
        let here = &self.0[module];
        let known = |name: &String| {
            here.children.contains(name)
                || here.names.contains(name)
                || here.imports.iter().any(|import| import.name == *name)
        };
        absolute(module, written, known)
    }

    /// Where a path from the crate's root leads to, through whatever re-exports there
    /// are. What a macro has made is where the path says.
    pub(crate) fn resolve(&self, path: &[String]) -> Place {
        self.walk(path, 32)
    }

    fn walk(&self, path: &[String], imports_left: usize) -> Place {
        let mut at = ModulePath::new();
        for (index, name) in path.iter().enumerate() {
            let here = &self.0[&at];
            if here.children.contains(name) {
                at.push(name.clone());
                continue;
            }
            if name == "*" {
                break;
            }
            let import = here.imports.iter().find(|import| import.name == *name);
            match import.filter(|_| imports_left > 0 && !here.names.contains(name)) {
                Some(import) => {
                    let through = [&import.path, &path[index + 1..]].concat();
                    return self.walk(&through, imports_left - 1);
                }
                None => {
                    let name = Some(name.clone());
                    return Place { module: at, name };
                }
            }
        }
        let (module, name) = (at, None);
        Place { module, name }
    }
}

fn module<'a>(file: &'a str, items: &'a [Item], public: bool, path: &[String]) -> Module<'a> {
    let mut module = Module {
        file,
        items,
        public,
        types: BTreeSet::new(),
        names: BTreeSet::new(),
        children: BTreeSet::new(),
        imports: Vec::new(),
    };
    for item in items {
        if let Item::Mod(child) = item {
            if !only_for_tests(&child.attrs) {
                module.children.insert(child.ident.to_string());
            }
        } else if let Some((name, visibility)) = definition(item) {
            if visibility.is_some_and(is_public) {
                module.types.insert(name.to_string());
            }
            module.names.insert(name.to_string());
        }
    }
    let mut imports = Vec::new();
    for item in items {
        let Item::Use(item) = item else { continue };
        if !only_for_tests(&item.attrs) {
            let known = |name: &String| module.children.contains(name);
            imports.extend(named_by(item, path, known));
        }
    }
    module.imports = imports;
    module
}

fn is_public(visibility: &Visibility) -> bool {
    matches!(visibility, Visibility::Public(_))
}

/// The name that an item defines; of a type, also who sees it.
fn definition(item: &Item) -> Option<(&Ident, Option<&Visibility>)> {
    Some(match item {
        Item::Struct(item) => (&item.ident, Some(&item.vis)),
        Item::Enum(item) => (&item.ident, Some(&item.vis)),
        Item::Union(item) => (&item.ident, Some(&item.vis)),
        Item::Trait(item) => (&item.ident, Some(&item.vis)),
        Item::Type(item) => (&item.ident, Some(&item.vis)),
        Item::Fn(item) => (&item.sig.ident, None),
        Item::Const(item) => (&item.ident, None),
        Item::Static(item) => (&item.ident, None),
        Item::Macro(item) => (item.ident.as_ref()?, None),
        _ => return None,
    })
}

/// The crate's own names among those that a `use` in the module `path` names.
pub(crate) fn named_by(
    item: &ItemUse,
    path: &[String],
    known: impl Fn(&String) -> bool + Copy,
) -> Vec<Import> {
    let mut leaves = Vec::new();
    spread(&item.tree, Vec::new(), &mut leaves);
    let public = !matches!(item.vis, Visibility::Inherited);
    leaves
        .into_iter()
        .filter_map(|(name, written)| {
            let path = absolute(path, &written, known)?;
            Some(Import { name, path, public })
        })
        .collect()
}

/// Every name of a `use`, with the path it stands for.
fn spread(tree: &UseTree, before: Vec<String>, leaves: &mut Vec<(String, Vec<String>)>) {
    let with = |name: &Ident| [before.clone(), vec![name.to_string()]].concat();
    match tree {
        UseTree::Path(tree) => spread(&tree.tree, with(&tree.ident), leaves),
        UseTree::Name(tree) if tree.ident == "self" => {
            leaves.push((before.last().unwrap().clone(), before));
        }
        UseTree::Name(tree) => leaves.push((tree.ident.to_string(), with(&tree.ident))),
        UseTree::Rename(tree) => leaves.push((tree.rename.to_string(), with(&tree.ident))),
        UseTree::Glob(_) => leaves.push(("*".to_owned(), [before, vec!["*".to_owned()]].concat())),
        UseTree::Group(tree) => {
            for tree in &tree.items {
                spread(tree, before.clone(), leaves);
            }
        }
    }
}

/// A written path from the crate's root, in a module where `known` names may begin one.
fn absolute(
    module: &[String],
    written: &[String],
    known: impl Fn(&String) -> bool,
) -> Option<ModulePath> {
    let mut at = module.to_vec();
    let mut rest = written;
    match written.first()?.as_str() {
        "crate" => {
            at.clear();
            rest = &rest[1..];
        }
        "self" => rest = &rest[1..],
        "super" => {}
        _ if known(&written[0]) => {}
        _ => return None,
    }
    while rest.first().is_some_and(|name| name == "super") {
        at.pop();
        rest = &rest[1..];
    }
    at.extend_from_slice(rest);
    Some(at)
}
