//! Structs: required fields plain, optional ones `Option`, and the fields of another release. They are
//! `#[non_exhaustive]`, since any release may add a field; `new` or `Default` and a setter for each optional field make
//! their values.

use std::collections::{BTreeMap, BTreeSet};

use chv_sandbox::spec::{Schema, Shape};
use proc_macro2::TokenStream;
use quote::quote;

use super::api::Api;
use super::{field_words, layout, names, types};

/// The struct, its constructor where something is required, and its setters.
pub(super) fn items(
    api: &Api,
    name: &str,
    schema: &Schema,
    properties: &BTreeMap<String, Schema>,
    required: &BTreeSet<String>,
) -> Vec<TokenStream> {
    let ident = names::ident(name);
    let doc = layout::doc(&types::about(api, name, schema));
    assert!(
        required.iter().all(|name| properties.contains_key(name)),
        "{name} requires a property that it does not have"
    );
    let (needed, optional): (Vec<_>, Vec<_>) = properties
        .iter()
        .partition(|(name, _)| required.contains(*name));
    let fields = needed
        .iter()
        .map(|(wire, schema)| field(api, name, wire, schema, true));
    let options = optional
        .iter()
        .map(|(wire, schema)| field(api, name, wire, schema, false));
    let unknown = api.answered.contains(name).then(|| {
        quote! {
            /// The fields that the server sent and this type doesn't have, in a value that was read. A request sends
            /// them as they are.
            #[serde(flatten)]
            pub unknown: UnknownFields,
        }
    });
    let derive_default = needed.is_empty().then(|| quote! { Default, });
    // Serde's own would read unknown fields into a tree.
    let derive_deserialize = unknown.is_none().then(|| quote! { Deserialize, });
    let mut items = vec![quote! {
        #doc
        #[derive(Clone, Debug, #derive_default PartialEq, Eq, #derive_deserialize Serialize)]
        #[non_exhaustive]
        pub struct #ident {
            #(#fields,)*
            #(#options,)*
            #unknown
        }
    }];
    if unknown.is_some() {
        let fields = needed.iter().chain(&optional).map(|(wire, _)| {
            let name = names::field(wire);
            quote! { #name: #wire }
        });
        items.push(quote! { open_object! { #ident { #(#fields),* } } });
    }
    let mut methods = Vec::new();
    if !needed.is_empty() {
        methods.push(constructor(&needed, &optional, unknown.is_some()));
    }
    methods.extend(
        optional
            .iter()
            .map(|(wire, schema)| setter(api, name, wire, schema)),
    );
    if !methods.is_empty() {
        items.push(quote! { impl #ident { #(#methods)* } });
    }
    items
}

/// A property by its name on the wire.
type Property<'a> = (&'a String, &'a Schema);

fn constructor(needed: &[Property<'_>], optional: &[Property<'_>], is_open: bool) -> TokenStream {
    let parameters = needed.iter().map(|(wire, schema)| {
        let (name, (taken, _)) = (names::field(wire), taken(schema));
        quote! { #name: #taken }
    });
    let given = needed.iter().map(|(wire, schema)| {
        let (name, (_, converted)) = (names::field(wire), taken(schema));
        match converted.is_empty() {
            true => quote! { #name },
            false => quote! { #name: #name #converted },
        }
    });
    let absent = optional.iter().map(|(wire, _)| names::field(wire));
    let unknown = is_open.then(|| quote! { unknown: UnknownFields::default(), });
    let about = layout::doc(&[match optional.len() {
        0 => "A value of these fields, in their order.".to_owned(),
        _ => "A value of the required fields, in their order. The optional ones are not set."
            .to_owned(),
    }]);
    quote! {
        #about
        pub fn new(#(#parameters),*) -> Self {
            Self { #(#given,)* #(#absent: None,)* #unknown }
        }
    }
}

/// The method that sets an optional field: `with_disks`.
fn setter(api: &Api, owner: &str, wire: &str, schema: &Schema) -> TokenStream {
    let field = names::field(wire);
    let plain = field.to_string();
    let plain = plain.trim_start_matches("r#");
    let method = names::ident(&format!("with_{plain}"));
    let mut about = format!("Sets [`{plain}`](Self::{plain}).");
    if let Some(support) = api.support(&format!("{owner}.{wire}"), Some(owner)) {
        about = format!("{about} {support}");
    }
    let about = layout::doc(&[about]);
    let (taken, converted) = taken(schema);
    quote! {
        #about
        #[must_use]
        pub fn #method(mut self, #field: #taken) -> Self {
            self.#field = Some(#field #converted);
            self
        }
    }
}

/// What a function takes for a value of this schema, and the call that converts it to the field's type.
fn taken(schema: &Schema) -> (TokenStream, TokenStream) {
    let rust = types::rust(schema);
    match schema.shape {
        Shape::String { .. } | Shape::Array(_) => (quote! { impl Into<#rust> }, quote! { .into() }),
        _ => (rust, quote! {}),
    }
}

fn field(api: &Api, owner: &str, wire: &str, schema: &Schema, required: bool) -> TokenStream {
    let (name, rust) = (names::field(wire), types::rust(schema));
    let rename = (name != wire).then(|| quote! { #[serde(rename = #wire)] });
    let doc = layout::doc(&facts(api, owner, wire, schema, required));
    if required {
        quote! { #doc #rename pub #name: #rust }
    } else {
        quote! {
            #doc
            #rename
            #[serde(skip_serializing_if = "Option::is_none")]
            pub #name: Option<#rust>
        }
    }
}

/// Returns doc sentences: what a property means, then the facts of the contracts that its type does not show.
fn facts(api: &Api, owner: &str, wire: &str, schema: &Schema, required: bool) -> Vec<String> {
    let target = api.resolve(schema);
    let mut facts = match (api.asked.contains(owner), required, &target.default) {
        (false, true, _) => "Always sent".to_owned(),
        (false, false, _) => "Sent where there is one".to_owned(),
        (true, true, _) => "Required".to_owned(),
        (true, false, Some(default)) => format!("`{default}` if absent"),
        (true, false, None) => "Optional".to_owned(),
    };
    if let Shape::Integer {
        minimum, maximum, ..
    } = &target.shape
    {
        facts += &match (
            minimum.as_ref().filter(|least| least.as_u64() != Some(0)),
            maximum,
        ) {
            (Some(least), Some(greatest)) => format!("; {least} to {greatest}"),
            (Some(least), None) => format!("; at least {least}"),
            (None, Some(greatest)) => format!("; at most {greatest}"),
            (None, None) => String::new(),
        };
    }
    if schema.deprecated {
        facts += "; deprecated";
    }
    if names::field(wire) != wire {
        facts += &format!("; `{wire}` on the wire");
    }
    if let Some(correction) = api.undocumented(owner, wire) {
        facts += &format!("; missing in upstream's document (correction `{correction}`)");
    }
    facts.push('.');
    if let Some(support) = api.support(&format!("{owner}.{wire}"), Some(owner)) {
        facts = format!("{facts} {support}");
    }
    let words = field_words::words(owner, wire)
        .unwrap_or_else(|| panic!("{owner}.{wire} has no words in `field_words`"));
    vec![format!("{words} {facts}")]
}
