//! Generates the types of bodies: it decides which types there are, which file each is in, and the Rust type of each
//! schema.

use std::collections::BTreeSet;

use chv_sandbox::spec::{Schema, Shape};
use proc_macro2::{TokenStream, TokenTree};
use quote::quote;

use super::api::{Api, json};
use super::{enums, layout, names, structs, type_words};

/// The files below `types/`, with their module docs.
pub(super) const MODULES: &[(&str, &str)] = &[
    ("answers", "Types that only the VMM sends."),
    (
        "bodies",
        "The bodies of requests that are no part of a VM's configuration.",
    ),
    (
        "config",
        "The configuration of a VM, sent with `vm.create` and found in `vm.info`.",
    ),
    (
        "devices",
        "The configuration of devices, also sent with the `vm.add-` operations.",
    ),
];

/// Returns each file with its items.
pub(super) fn modules(api: &Api) -> Vec<(&'static str, &'static str, Vec<TokenStream>)> {
    MODULES
        .iter()
        .map(|&(module, about)| {
            let types: Vec<TokenStream> = api
                .contract
                .schemas
                .iter()
                .filter(|(name, _)| module_of(api, name) == module)
                .flat_map(|(name, schema)| items(api, name, schema))
                .collect();
            let mut items = vec![imports(api, module, &types)];
            items.extend(types);
            (module, about, items)
        })
        .collect()
}

/// Returns the file of a type. It depends on the bodies that can contain the type.
fn module_of(api: &Api, name: &str) -> &'static str {
    let reached_by = |starts: &[&str]| {
        let mut reached = BTreeSet::new();
        starts
            .iter()
            .for_each(|start| api.reach(&Schema::reference(*start), &mut reached));
        reached.contains(name)
    };
    let added: Vec<&str> = api
        .operations()
        .filter(|op| op.name.starts_with("vm.add-"))
        .filter_map(|op| {
            op.endpoint
                .body
                .as_ref()
                .and_then(|body| json(&body.content))
        })
        .filter_map(|schema| match &schema.shape {
            Shape::Reference(name) => Some(name.as_str()),
            _ => None,
        })
        .collect();
    if reached_by(&added) {
        "devices"
    } else if reached_by(&["VmConfig"]) {
        "config"
    } else if api.answered.contains(name) {
        "answers"
    } else {
        "bodies"
    }
}

fn items(api: &Api, name: &str, schema: &Schema) -> Vec<TokenStream> {
    match &schema.shape {
        Shape::String { values, .. } if !values.is_empty() => {
            enums::items(api, name, schema, values)
        }
        Shape::Object {
            properties,
            required,
        } => structs::items(api, name, schema, properties, required),
        _ => {
            let (alias, rust) = (names::ident(name), rust(schema));
            let doc = layout::doc(&about(api, name, schema));
            vec![quote! { #doc pub type #alias = #rust; }]
        }
    }
}

/// Generates the imports that the items of `module` need.
fn imports(api: &Api, module: &str, items: &[TokenStream]) -> TokenStream {
    let mut words = BTreeSet::new();
    items
        .iter()
        .for_each(|item| collect_words(item.clone(), &mut words));
    let used = |names: &[&str]| {
        let names = names.iter().filter(|name| words.contains(**name));
        let names: Vec<_> = names.map(|name| names::ident(name)).collect();
        match names.as_slice() {
            [] => None,
            [one] => Some(quote! { #one }),
            several => Some(quote! { {#(#several),*} }),
        }
    };
    let map = words
        .contains("BTreeMap")
        .then(|| quote! { use std::collections::BTreeMap; });
    let serde = used(&["Deserialize", "Serialize"]).map(|names| quote! { use serde::#names; });
    let ours = used(&["RawJson", "UnknownFields"]).map(|names| quote! { use crate::api::#names; });
    let open_object = words
        .contains("open_object")
        .then(|| quote! { use crate::api::open_object::open_object; });
    let mut others = api
        .contract
        .schemas
        .keys()
        .filter(|name| words.contains(*name) && module_of(api, name) != module);
    let others = others
        .by_ref()
        .map(|name| names::ident(name))
        .collect::<Vec<_>>();
    let others = (!others.is_empty()).then(|| quote! { use super::{#(#others),*}; });
    quote! {
        #map
        #serde
        #open_object
        #ours
        #others
    }
}

/// Collects every identifier in `tokens`.
fn collect_words(tokens: TokenStream, words: &mut BTreeSet<String>) {
    for token in tokens {
        match token {
            TokenTree::Ident(ident) => {
                words.insert(ident.to_string());
            }
            TokenTree::Group(group) => collect_words(group.stream(), words),
            TokenTree::Punct(_) | TokenTree::Literal(_) => {}
        }
    }
}

/// Returns doc sentences about the use of a type, from the facts of the contract.
pub(super) fn about(api: &Api, name: &str, schema: &Schema) -> Vec<String> {
    let mut uses = Vec::new();
    for op in api.operations() {
        let takes = op
            .endpoint
            .body
            .as_ref()
            .and_then(|body| json(&body.content));
        let gives = op
            .endpoint
            .responses
            .values()
            .find_map(|response| json(&response.content));
        for (schema, role) in [(takes, "the body of"), (gives, "the answer to")] {
            if schema.is_some_and(|schema| schema.shape == Shape::Reference(name.to_owned())) {
                uses.push(format!(
                    "{role} [`{0}`](crate::api::{1})",
                    op.name, op.function
                ));
            }
        }
    }
    let mut owners = BTreeSet::new();
    for (owner, schema) in &api.contract.schemas {
        if mentions(schema, name) {
            owners.insert(format!("[`{owner}`](super::{owner})"));
        }
    }
    if !owners.is_empty() {
        uses.push(format!(
            "part of {}",
            owners.into_iter().collect::<Vec<_>>().join(", ")
        ));
    }
    let uses = match uses.len() {
        0..=3 => uses.join("; "),
        more => format!("{}; and {} more", uses[..2].join("; "), more - 2),
    };
    let words =
        type_words::words(name).unwrap_or_else(|| panic!("{name} has no words in `type_words`"));
    let (first, rest) = uses.split_at_checked(1).unwrap_or_default();
    let uses = format!("{}{rest}", first.to_ascii_uppercase());
    let mut lines = vec![words.to_owned(), String::new(), format!("{uses}.")];
    if let Some(support) = api.support(name, None) {
        lines.extend([String::new(), support]);
    }
    if let Some(default) = &schema.default {
        lines.extend([
            String::new(),
            format!("The server's default is `{default}`."),
        ]);
    }
    if let Some(correction) = api.undocumented_schema(name) {
        lines.extend([
            String::new(),
            format!("Missing in upstream's document (correction `{correction}`)."),
        ]);
    }
    lines
}

/// Whether `schema` refers to `name` directly, without another named schema in between.
fn mentions(schema: &Schema, name: &str) -> bool {
    match &schema.shape {
        Shape::Reference(other) => other == name,
        Shape::Array(inner) | Shape::Map(inner) => mentions(inner, name),
        Shape::Object { properties, .. } => {
            properties.values().any(|property| mentions(property, name))
        }
        _ => false,
    }
}

/// Returns the Rust type of a schema.
pub(super) fn rust(schema: &Schema) -> TokenStream {
    let plain = match &schema.shape {
        Shape::Any => quote! { RawJson },
        Shape::Boolean => quote! { bool },
        Shape::Integer { format, .. } => integer(format.as_deref()),
        Shape::String { values, .. } if values.is_empty() => quote! { String },
        Shape::Array(items) => {
            let items = rust(items);
            quote! { Vec<#items> }
        }
        Shape::Map(values) => {
            let values = rust(values);
            quote! { BTreeMap<String, #values> }
        }
        Shape::Reference(name) => {
            let name = names::ident(name);
            quote! { #name }
        }
        Shape::Number { .. } => {
            panic!(
                "a number with a fraction is not supported: add a correction that gives its integer format"
            )
        }
        Shape::String { .. } | Shape::Object { .. } => {
            panic!("the schema has no name: add a correction that gives it one")
        }
    };
    if schema.nullable {
        quote! { Option<#plain> }
    } else {
        plain
    }
}

fn integer(format: Option<&str>) -> TokenStream {
    match format {
        Some("int8") => quote! { i8 },
        Some("int16") => quote! { i16 },
        Some("int32") => quote! { i32 },
        Some("int64") => quote! { i64 },
        Some("uint8") => quote! { u8 },
        Some("uint16") => quote! { u16 },
        Some("uint32") => quote! { u32 },
        Some("uint64") => quote! { u64 },
        other => {
            panic!(
                "an integer of width {other:?} is not supported: add a correction that gives its width"
            )
        }
    }
}

/// Returns a doc link to a schema that has a name.
pub(super) fn linked(schema: &Schema) -> String {
    match &schema.shape {
        Shape::Reference(name) => format!("[`{name}`]"),
        _ => panic!("the schema of an answer has no name"),
    }
}
