//! The list of the library's public items, `public_items.txt`, is that of the sources, so that a change of the public
//! surface is seen in a review. `UPDATE=1 cargo test public_items` writes it.
//!
//! A line is a path with the kind of the item. Two kinds of items are not listed: implementations of traits, and the
//! fields and methods of the types in `src/api/generated`. Signatures are not listed either.

mod crate_tree;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs;
use std::path::Path;

use proc_macro2::{TokenStream, TokenTree};
use syn::{Attribute, Fields, ImplItem, Item, TraitItem, Type, Visibility};

use self::crate_tree::{CrateTree, Target, attributes, conditions, is_public, leaves, name_of};
use super::scan::is_punct;

const LIST: &str = "tests/it/tidy/public_items.txt";

#[test]
fn the_list_of_public_items_is_that_of_the_sources() {
    let lines = public_items(&CrateTree::read());
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(LIST);
    if std::env::var_os("UPDATE").is_some() {
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        fs::write(&file, text).unwrap();
    }
    let committed = fs::read_to_string(&file).unwrap();
    let committed: BTreeSet<String> = committed.lines().map(str::to_owned).collect();
    let added = lines.difference(&committed).map(|line| format!("+ {line}"));
    let removed = committed.difference(&lines).map(|line| format!("- {line}"));
    let changes: Vec<String> = added.chain(removed).collect();
    assert!(
        changes.is_empty(),
        "{LIST} is not the list of the sources: if the change is meant, run `UPDATE=1 cargo test public_items`\n  {}",
        changes.join("\n  ")
    );
}

/// The lines of the list.
fn public_items(tree: &CrateTree) -> BTreeSet<String> {
    let mut walk = Walk {
        tree,
        modules: HashSet::new(),
        paths: BTreeMap::new(),
        lines: BTreeSet::new(),
    };
    walk.module(0, &[]);
    let associated = associated_items(tree);
    let Walk {
        paths, mut lines, ..
    } = walk;
    for ((module, index), mut names) in paths {
        let defined = &tree.modules[module];
        // The name nearest to the definition is the item's name, and the others are re-exports.
        names.sort_by_key(|(name, _)| {
            let common = name.iter().zip(&defined.path);
            let common = common.take_while(|(a, b)| a == b).count();
            (std::cmp::Reverse(common), name.len(), name.clone())
        });
        let (name, marks) = names.remove(0);
        let path = name.join("::");
        for (other, marks) in names {
            lines.insert(format!("{}: use of {path}{marks}", other.join("::")));
        }
        let item = &defined.items[index];
        let kind = kind(item);
        lines.insert(format!(
            "{path}: {kind}{}{marks}",
            marks_of(attributes(item))
        ));
        if !defined
            .path
            .starts_with(&["api".to_owned(), "generated".to_owned()])
        {
            let members = members(item);
            let associated = associated.get(&(module, index)).into_iter().flatten();
            for member in members.iter().chain(associated) {
                lines.insert(format!("{path}::{member}"));
            }
        }
    }
    lines
}

/// A public path, and the marks of the `use` item that makes it public.
type PublicName = (Vec<String>, String);

/// Follows the public names from the root.
struct Walk<'a> {
    tree: &'a CrateTree,
    modules: HashSet<usize>,
    /// The public names of each item.
    paths: BTreeMap<(usize, usize), Vec<PublicName>>,
    lines: BTreeSet<String>,
}

impl Walk<'_> {
    fn module(&mut self, module: usize, path: &[String]) {
        if !self.modules.insert(module) {
            return;
        }
        for (index, item) in self.tree.modules[module].items.iter().enumerate() {
            match item {
                Item::Mod(child) if is_public(&child.vis) => {
                    let name = child.ident.to_string();
                    let target = Target::Module(self.tree.child(module, &name));
                    self.reach(target, join(path, &name), &marks_of(&child.attrs));
                }
                Item::Use(item) if is_public(&item.vis) => {
                    let marks = marks_of(&item.attrs);
                    for leaf in leaves(&item.tree) {
                        let targets = self.tree.resolve(module, &leaf.path);
                        match leaf.name {
                            Some(name) if targets.is_empty() => {
                                let name = join(path, &name).join("::");
                                self.lines.insert(format!("{name}: of a macro{marks}"));
                            }
                            Some(name) => {
                                for target in targets {
                                    self.reach(target, join(path, &name), &marks);
                                }
                            }
                            None => {
                                for target in targets {
                                    if let Target::Module(target) = target {
                                        self.module(target, path);
                                    }
                                }
                            }
                        }
                    }
                }
                _ if visibility(item).is_some_and(is_public) => {
                    if let Some(name) = name_of(item) {
                        self.reach(Target::Item(module, index), join(path, &name), "");
                    }
                }
                Item::Macro(item) => {
                    for line in defined_by_macro(item) {
                        self.lines.insert(join(path, &line).join("::"));
                    }
                }
                _ => {}
            }
        }
    }

    fn reach(&mut self, target: Target, path: Vec<String>, marks: &str) {
        match target {
            Target::Module(module) => {
                let name = path.join("::");
                self.lines.insert(format!("{name}: mod{marks}"));
                self.module(module, &path);
            }
            Target::Item(module, index) => {
                let names = self.paths.entry((module, index)).or_default();
                names.push((path, marks.to_owned()));
            }
            Target::External(target) => {
                let name = path.join("::");
                self.lines.insert(format!("{name}: use of {target}{marks}"));
            }
        }
    }
}

fn join(path: &[String], name: &str) -> Vec<String> {
    path.iter().cloned().chain([name.to_owned()]).collect()
}

/// `#[non_exhaustive]`, `#[doc(hidden)]` and `#[cfg]`, as the end of a line.
fn marks_of(attributes: &[Attribute]) -> String {
    let mut marks = String::new();
    for attribute in attributes {
        let path = attribute.path();
        if path.is_ident("non_exhaustive") {
            marks.push_str(", non_exhaustive");
        }
        let arguments = attribute.meta.require_list().map(|list| &list.tokens);
        if path.is_ident("doc") && arguments.is_ok_and(|it| it.to_string() == "hidden") {
            marks.push_str(", hidden");
        }
    }
    for condition in conditions(attributes) {
        marks.push_str(&format!(", cfg({condition})"));
    }
    marks
}

fn visibility(item: &Item) -> Option<&Visibility> {
    Some(match item {
        Item::Const(item) => &item.vis,
        Item::Enum(item) => &item.vis,
        Item::Fn(item) => &item.vis,
        Item::Static(item) => &item.vis,
        Item::Struct(item) => &item.vis,
        Item::Trait(item) => &item.vis,
        Item::Type(item) => &item.vis,
        Item::Union(item) => &item.vis,
        _ => return None,
    })
}

fn kind(item: &Item) -> &'static str {
    match item {
        Item::Const(_) => "const",
        Item::Enum(_) => "enum",
        Item::Fn(_) => "fn",
        Item::Macro(_) => "macro",
        Item::Static(_) => "static",
        Item::Struct(_) => "struct",
        Item::Trait(_) => "trait",
        Item::Type(_) => "type",
        Item::Union(_) => "union",
        _ => unreachable!("a name stands for an item of another kind"),
    }
}

/// The public fields of a struct, the variants of an enum, the items of a trait.
fn members(item: &Item) -> Vec<String> {
    match item {
        Item::Struct(item) => fields(&item.fields)
            .into_iter()
            .filter(|(_, visibility)| is_public(visibility))
            .map(|(name, _)| format!("{name}: field"))
            .collect(),
        Item::Enum(item) => {
            let line = |variant: &syn::Variant| {
                let names: Vec<String> = fields(&variant.fields)
                    .into_iter()
                    .map(|(name, _)| name)
                    .collect();
                let names = match (&variant.fields, names.join(", ")) {
                    (Fields::Named(_), names) => format!(" {{ {names} }}"),
                    (Fields::Unnamed(_), names) => format!(" ({names})"),
                    (Fields::Unit, _) => String::new(),
                };
                format!(
                    "{}: variant{names}{}",
                    variant.ident,
                    marks_of(&variant.attrs)
                )
            };
            item.variants.iter().map(line).collect()
        }
        Item::Trait(item) => {
            let line = |item: &TraitItem| match item {
                TraitItem::Const(item) => Some(format!("{}: const", item.ident)),
                TraitItem::Type(item) => Some(format!("{}: type", item.ident)),
                TraitItem::Fn(item) => {
                    let provided = match item.default {
                        Some(_) => "provided fn",
                        None => "required fn",
                    };
                    Some(format!("{}: {provided}", item.sig.ident))
                }
                _ => None,
            };
            item.items.iter().filter_map(line).collect()
        }
        _ => Vec::new(),
    }
}

/// The names of the fields, which are numbers in a tuple.
fn fields(fields: &Fields) -> Vec<(String, &Visibility)> {
    let named = fields.iter().enumerate().map(|(index, field)| {
        let name = field.ident.as_ref();
        let name = name.map_or_else(|| index.to_string(), ToString::to_string);
        (name, &field.vis)
    });
    named.collect()
}

/// The public functions and constants in the `impl` blocks of each item.
fn associated_items(tree: &CrateTree) -> HashMap<(usize, usize), Vec<String>> {
    let mut found: HashMap<_, Vec<String>> = HashMap::new();
    for (module, content) in tree.modules.iter().enumerate() {
        for item in &content.items {
            let Item::Impl(item) = item else { continue };
            let Type::Path(self_type) = &*item.self_ty else {
                continue;
            };
            if item.trait_.is_some() {
                continue;
            }
            let segments = self_type.path.segments.iter();
            let path: Vec<String> = segments.map(|segment| segment.ident.to_string()).collect();
            let conditions = marks_of(&item.attrs);
            for target in tree.resolve(module, &path) {
                let Target::Item(module, index) = target else {
                    continue;
                };
                let lines = item.items.iter().flat_map(associated);
                let lines = lines.map(|line| format!("{line}{conditions}"));
                found.entry((module, index)).or_default().extend(lines);
            }
        }
    }
    found
}

fn associated(item: &ImplItem) -> Vec<String> {
    match item {
        ImplItem::Fn(item) if is_public(&item.vis) => {
            vec![format!("{}: fn{}", item.sig.ident, marks_of(&item.attrs))]
        }
        ImplItem::Const(item) if is_public(&item.vis) => {
            vec![format!("{}: const{}", item.ident, marks_of(&item.attrs))]
        }
        // `name: type => value;` defines a setter.
        ImplItem::Macro(item) if item.mac.path.is_ident("setters") => {
            let names = first_names(item.mac.tokens.clone());
            names.map(|name| format!("{name}: fn")).collect()
        }
        _ => Vec::new(),
    }
}

/// The items that the call of a macro of this crate defines.
fn defined_by_macro(item: &syn::ItemMacro) -> Vec<String> {
    let path = &item.mac.path;
    if path.is_ident("time_limits") {
        let names = first_names(item.mac.tokens.clone());
        let lines = names.flat_map(|name| {
            let path = format!("TimeLimits::{name}");
            [format!("{path}: field"), format!("{path}: fn")]
        });
        return lines
            .chain(["TimeLimits: struct, non_exhaustive".to_owned()])
            .collect();
    }
    Vec::new()
}

/// The first name after each documentation, in a list whose entries end with `;`.
fn first_names(list: TokenStream) -> impl Iterator<Item = String> {
    let tokens: Vec<TokenTree> = list.into_iter().collect();
    let entries: Vec<Option<String>> = tokens
        .split(|token| is_punct(Some(token), ';'))
        .map(|entry| {
            entry.iter().find_map(|token| match token {
                TokenTree::Ident(ident) => Some(ident.to_string()),
                _ => None,
            })
        })
        .collect();
    entries.into_iter().flatten()
}

#[test]
fn public_names_are_found() {
    let text = "
        pub mod a {
            mod hidden { pub struct S { pub x: u8, y: u8 } impl S { pub fn f(&self) {} fn g() {} } pub fn unused() {} }
            pub use hidden::S as T;
            pub(crate) fn k() {}
            #[cfg(test)] pub fn t() {}
        }
        mod b { pub enum E { One, #[non_exhaustive] Two { n: u8 }, Three(u8) } pub const C: u8 = 0; }
        #[cfg(feature = \"f\")] pub use b::*;
        pub use a::T;
        pub use std::fmt::Debug;
        impl a::T { pub const N: u8 = 1; }
        impl Clone for a::T { fn clone(&self) -> Self { a::T } }
        #[doc(hidden)] #[non_exhaustive] pub trait R { fn q(); fn p() {} }
    ";
    let expected = [
        "C: const",
        "Debug: use of std::fmt::Debug",
        "E: enum",
        "E::One: variant",
        "E::Three: variant (0)",
        "E::Two: variant { n }, non_exhaustive",
        "R: trait, hidden, non_exhaustive",
        "R::p: provided fn",
        "R::q: required fn",
        "T: use of a::T",
        "a: mod",
        "a::T: struct",
        "a::T::N: const",
        "a::T::f: fn",
        "a::T::x: field",
    ];
    let found: Vec<String> = public_items(&CrateTree::of_text(text))
        .into_iter()
        .collect();
    assert_eq!(found, expected);
}
