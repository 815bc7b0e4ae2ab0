//! Generates structs: required fields have their plain type, optional fields are an `Option`, and a further field keeps
//! unknown properties.

use std::collections::{BTreeMap, BTreeSet};

use chv_sandbox::spec::{Schema, Shape};
use proc_macro2::TokenStream;
use quote::quote;

use super::api::Api;
use super::{layout, names, types};

/// Generates a struct, and a constructor if it has required fields.
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
            /// What the server sent beyond these fields. Empty in a value that you build; sent as it is.
            #[serde(flatten)]
            pub unknown: UnknownFields,
        }
    });
    let derive_default = needed.is_empty().then(|| quote! { Default, });
    // The derived `Deserialize` of serde would read unknown properties into a tree of values.
    let derive_deserialize = unknown.is_none().then(|| quote! { Deserialize, });
    let mut items = vec![quote! {
        #doc
        #[derive(Clone, Debug, #derive_default PartialEq, Eq, #derive_deserialize Serialize)]
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
    if !needed.is_empty() {
        let parameters = needed.iter().map(|(wire, schema)| {
            let (name, rust) = (names::field(wire), types::rust(schema));
            match schema.shape {
                Shape::String { .. } => quote! { #name: impl Into<String> },
                _ => quote! { #name: #rust },
            }
        });
        let given = needed.iter().map(|(wire, schema)| {
            let name = names::field(wire);
            match schema.shape {
                Shape::String { .. } => quote! { #name: #name.into() },
                _ => quote! { #name },
            }
        });
        let absent = optional.iter().map(|(wire, _)| names::field(wire));
        let unknown = unknown.map(|_| quote! { unknown: UnknownFields::default(), });
        let about = layout::doc(&[match optional.len() {
            0 => "A value of these fields, in their order.".to_owned(),
            _ => "A value of what is required, in the order of the fields, with nothing else set."
                .to_owned(),
        }]);
        items.push(quote! {
            impl #ident {
                #about
                pub fn new(#(#parameters),*) -> Self {
                    Self { #(#given,)* #(#absent: None,)* #unknown }
                }
            }
        });
    }
    items
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

/// Returns doc sentences with the facts of a property that its type does not show.
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
        facts += &format!("; not in the document (correction `{correction}`)");
    }
    facts.push('.');
    if let Some(support) = api.support(&format!("{owner}.{wire}"), Some(owner)) {
        facts = format!("{facts} {support}");
    }
    vec![facts]
}
