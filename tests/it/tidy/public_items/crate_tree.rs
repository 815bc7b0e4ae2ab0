//! [`CrateTree`]: the modules of the library with their items, and the rules by which a path names one of these.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::Path;

use syn::{Attribute, Item, UseTree, Visibility};

/// A module, and the items that are declared in it. Items that only tests and fuzzers see are left out.
pub(super) struct Module {
    /// From the crate's root, without the crate's name.
    pub(super) path: Vec<String>,
    pub(super) items: Vec<Item>,
    parent: usize,
    children: HashMap<String, usize>,
}

/// The modules of the library. The first is the root.
pub(super) struct CrateTree {
    pub(super) modules: Vec<Module>,
}

/// The thing that a name stands for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Target {
    /// An index of [`CrateTree::modules`].
    Module(usize),
    /// An item of a module, by the two indices.
    Item(usize, usize),
    /// A path into another crate.
    External(String),
}

/// One name that a `use` item brings into scope.
pub(super) struct UseLeaf {
    /// `None` for a glob.
    pub(super) name: Option<String>,
    pub(super) path: Vec<String>,
}

impl CrateTree {
    pub(super) fn read() -> CrateTree {
        let mut tree = CrateTree {
            modules: Vec::new(),
        };
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs");
        tree.add(Vec::new(), 0, items_of(&root));
        tree
    }

    #[cfg(test)]
    pub(super) fn of_text(text: &str) -> CrateTree {
        let mut tree = CrateTree {
            modules: Vec::new(),
        };
        tree.add(Vec::new(), 0, syn::parse_file(text).unwrap().items);
        tree
    }

    /// Adds a module with its children, and returns its index.
    fn add(&mut self, path: Vec<String>, parent: usize, mut items: Vec<Item>) -> usize {
        let index = self.modules.len();
        items.retain(|item| !is_for_tests(attributes(item)));
        let mut declared = Vec::new();
        for item in &mut items {
            if let Item::Mod(module) = item {
                let name = module.ident.to_string();
                let content = module.content.as_mut();
                declared.push((name, content.map(|(_, items)| std::mem::take(items))));
            }
        }
        self.modules.push(Module {
            path: path.clone(),
            items,
            parent,
            children: HashMap::new(),
        });
        for (name, content) in declared {
            let mut path = path.clone();
            path.push(name.clone());
            let items = content.unwrap_or_else(|| items_of_module(&path));
            let child = self.add(path, index, items);
            self.modules[index].children.insert(name, child);
        }
        index
    }

    /// Everything that a path of a `use` item or of a type stands for in a module. Empty if a macro of this crate
    /// defines it.
    pub(super) fn resolve(&self, module: usize, path: &[String]) -> Vec<Target> {
        self.resolve_once(module, path, &mut HashSet::new())
    }

    pub(super) fn child(&self, module: usize, name: &str) -> usize {
        self.modules[module].children[name]
    }

    fn resolve_once(
        &self,
        module: usize,
        path: &[String],
        visited: &mut HashSet<(usize, String)>,
    ) -> Vec<Target> {
        let mut reached = match path.first().map(String::as_str) {
            Some("crate") => vec![Target::Module(0)],
            Some("self") => vec![Target::Module(module)],
            Some("super") => vec![Target::Module(self.modules[module].parent)],
            // A module comes first, since a function in it may have its name and be re-exported beside it.
            Some(name) if path.len() > 1 && self.modules[module].children.contains_key(name) => {
                vec![Target::Module(self.child(module, name))]
            }
            Some(name) => self.named(module, name, visited),
            None => Vec::new(),
        };
        if reached.is_empty() && path.len() > 1 {
            return vec![Target::External(path.join("::"))];
        }
        for (depth, name) in path.iter().enumerate().skip(1) {
            let is_last = depth + 1 == path.len();
            let next = |target| match target {
                Target::Module(module) if name == "super" => {
                    vec![Target::Module(self.modules[module].parent)]
                }
                Target::Module(module)
                    if !is_last && self.modules[module].children.contains_key(name) =>
                {
                    vec![Target::Module(self.child(module, name))]
                }
                Target::Module(module) => self.named(module, name, visited),
                Target::External(path) => vec![Target::External(format!("{path}::{name}"))],
                Target::Item(..) => Vec::new(),
            };
            reached = reached.into_iter().flat_map(next).collect();
        }
        reached
    }

    /// Everything of this name in a module, private or not.
    fn named(
        &self,
        module: usize,
        name: &str,
        visited: &mut HashSet<(usize, String)>,
    ) -> Vec<Target> {
        if !visited.insert((module, name.to_owned())) {
            return Vec::new();
        }
        let mut found = Vec::new();
        for (index, item) in self.modules[module].items.iter().enumerate() {
            match item {
                Item::Mod(child) if child.ident == name => {
                    found.push(Target::Module(self.child(module, name)));
                }
                Item::Use(item) => {
                    for leaf in leaves(&item.tree) {
                        if leaf.name.as_deref() == Some(name) {
                            found.extend(self.resolve_once(module, &leaf.path, visited));
                        }
                        if leaf.name.is_none() {
                            let mut path = leaf.path;
                            path.push(name.to_owned());
                            let targets = self.resolve_once(module, &path, visited);
                            let ours = |target: &Target| !matches!(target, Target::External(_));
                            found.extend(targets.into_iter().filter(ours));
                        }
                    }
                }
                _ if name_of(item).as_deref() == Some(name) => {
                    found.push(Target::Item(module, index));
                }
                _ => {}
            }
        }
        visited.remove(&(module, name.to_owned()));
        found
    }
}

fn items_of(file: &Path) -> Vec<Item> {
    let text = fs::read_to_string(file).unwrap();
    syn::parse_file(&text).unwrap().items
}

fn items_of_module(path: &[String]) -> Vec<Item> {
    let base = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("src")
        .join(path.join("/"));
    let file = base.with_extension("rs");
    match file.exists() {
        true => items_of(&file),
        false => items_of(&base.join("mod.rs")),
    }
}

/// The name of an item that is neither a module nor a `use`.
pub(super) fn name_of(item: &Item) -> Option<String> {
    let ident = match item {
        Item::Const(item) => &item.ident,
        Item::Enum(item) => &item.ident,
        Item::Fn(item) => &item.sig.ident,
        Item::Macro(item) => item.ident.as_ref()?,
        Item::Static(item) => &item.ident,
        Item::Struct(item) => &item.ident,
        Item::Trait(item) => &item.ident,
        Item::Type(item) => &item.ident,
        Item::Union(item) => &item.ident,
        _ => return None,
    };
    Some(ident.to_string())
}

pub(super) fn is_public(visibility: &Visibility) -> bool {
    matches!(visibility, Visibility::Public(_))
}

pub(super) fn attributes(item: &Item) -> &[Attribute] {
    match item {
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
        Item::Union(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

/// The conditions in the `cfg` attributes, as text without spaces.
pub(super) fn conditions(attributes: &[Attribute]) -> Vec<String> {
    let condition = |attribute: &Attribute| {
        let list = attribute.meta.require_list().ok()?;
        let is_cfg = list.path.is_ident("cfg");
        is_cfg.then(|| list.tokens.to_string().replace(' ', ""))
    };
    attributes.iter().filter_map(condition).collect()
}

fn is_for_tests(attributes: &[Attribute]) -> bool {
    conditions(attributes).iter().any(|condition| {
        matches!(
            condition.as_str(),
            "test" | "doctest" | "fuzzing" | "any(test,fuzzing)"
        )
    })
}

pub(super) fn leaves(tree: &UseTree) -> Vec<UseLeaf> {
    let mut found = Vec::new();
    collect_leaves(tree, &mut Vec::new(), &mut found);
    found
}

fn collect_leaves(tree: &UseTree, prefix: &mut Vec<String>, found: &mut Vec<UseLeaf>) {
    match tree {
        UseTree::Path(path) => {
            prefix.push(path.ident.to_string());
            collect_leaves(&path.tree, prefix, found);
            prefix.pop();
        }
        UseTree::Group(group) => {
            for tree in &group.items {
                collect_leaves(tree, prefix, found);
            }
        }
        UseTree::Glob(_) => found.push(UseLeaf {
            name: None,
            path: prefix.clone(),
        }),
        UseTree::Name(name) if name.ident == "self" => found.push(UseLeaf {
            name: prefix.last().cloned(),
            path: prefix.clone(),
        }),
        UseTree::Name(name) => {
            let name = name.ident.to_string();
            let path = prefix.iter().cloned().chain([name.clone()]).collect();
            found.push(UseLeaf {
                name: Some(name),
                path,
            });
        }
        UseTree::Rename(rename) => {
            let mut path = prefix.clone();
            if rename.ident != "self" {
                path.push(rename.ident.to_string());
            }
            found.push(UseLeaf {
                name: Some(rename.rename.to_string()),
                path,
            });
        }
    }
}
