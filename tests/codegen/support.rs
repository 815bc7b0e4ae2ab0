//! Generates static tables of the releases that know each operation, each field of a request body, and each value of
//! such a field.

use std::collections::BTreeSet;

use chv_sandbox::spec::{Release, Schema, Shape};
use proc_macro2::{Literal, TokenStream};
use quote::quote;
use syn::Ident;

use super::api::{Api, Op, Span, json};
use super::names;

/// Generates the items of `support.rs`.
pub(super) fn items(api: &Api) -> Vec<TokenStream> {
    let releases = api.releases.iter().map(|release| release_of(*release));
    let mut items = vec![
        quote! {
            use crate::api::support::{EnumValue, Enumeration, Field, Kind, Object, Support};
            use crate::api::{Operation, Release};
        },
        quote! {
            /// The supported releases, oldest first. The types and the operations are the union of theirs.
            pub const SUPPORTED: &[Release] = &[#(#releases),*];
        },
    ];
    let tables: Vec<TokenStream> = api
        .asked
        .iter()
        .filter_map(|name| table(api, name, &api.contract.schemas[name].shape))
        .collect();
    let spans: BTreeSet<Span> = spans(api).collect();
    let constants = spans
        .iter()
        .filter(|span| !span.is_universal())
        .map(|span| {
            let (name, since, until) = (constant(*span), bound(span.since), bound(span.until));
            quote! { const #name: Support = Support::new(#since, #until); }
        });
    items.push(quote! {
        const ALWAYS: Support = Support::new(None, None);
        #(#constants)*
    });
    items.push(operations(api));
    items.extend(tables);
    items
}

fn operations(api: &Api) -> TokenStream {
    let ops: Vec<Op<'_>> = api.operations().collect();
    let supports = ops.iter().filter_map(|op| {
        let span = api.span(&format!("/{}", op.name));
        let (variant, support) = (&op.variant, constant(span));
        (!span.is_universal()).then(|| quote! { Operation::#variant => #support, })
    });
    let bodies = ops.iter().filter_map(|op| {
        let body = json(&op.endpoint.body.as_ref()?.content)?;
        let Shape::Reference(name) = &body.shape else {
            panic!("{}: its body has no name", op.name)
        };
        let (variant, table) = (&op.variant, names::shouted(name));
        Some(quote! { Operation::#variant => &#table, })
    });
    quote! {
        impl Operation {
            /// The releases that have the operation.
            pub const fn support(self) -> Support {
                match self {
                    #(#supports)*
                    _ => ALWAYS,
                }
            }

            /// The fields of the request's body, for the operations that take one.
            pub const fn body(self) -> Option<&'static Object> {
                Some(match self {
                    #(#bodies)*
                    _ => return None,
                })
            }
        }
    }
}

/// Generates the table of a schema that has fields or values.
fn table(api: &Api, name: &str, shape: &Shape) -> Option<TokenStream> {
    let table = names::shouted(name);
    match shape {
        Shape::Object { properties, .. } => {
            let fields = properties.iter().map(|(wire, schema)| {
                let support = constant(api.span(&format!("{name}.{wire}")));
                let kind = kind(api, schema);
                quote! { Field::new(#wire, #support, #kind) }
            });
            Some(quote! {
                static #table: Object = Object { name: #name, fields: &[#(#fields),*] };
            })
        }
        Shape::String { values, .. } if !values.is_empty() => {
            let values = values.iter().map(|value| {
                let support = constant(api.span(&format!("{name}={value}")));
                quote! { EnumValue::new(#value, #support) }
            });
            Some(quote! {
                static #table: Enumeration = Enumeration { name: #name, values: &[#(#values),*] };
            })
        }
        _ => None,
    }
}

fn kind(api: &Api, schema: &Schema) -> TokenStream {
    match &schema.shape {
        Shape::Reference(name) => {
            let table = names::shouted(name);
            match &api.contract.schemas[name].shape {
                Shape::Object { .. } => quote! { Kind::Object(&#table) },
                Shape::String { values, .. } if !values.is_empty() => {
                    quote! { Kind::Enumeration(&#table) }
                }
                _ => kind(api, &api.contract.schemas[name]),
            }
        }
        Shape::Array(items) => {
            let items = kind(api, items);
            quote! { Kind::List(&#items) }
        }
        Shape::Map(values) => {
            let values = kind(api, values);
            quote! { Kind::Map(&#values) }
        }
        _ => quote! { Kind::Leaf },
    }
}

/// Returns the span of every item of the tables.
fn spans(api: &Api) -> impl Iterator<Item = Span> {
    let paths = api.operations().map(|op| format!("/{}", op.name));
    let members = api
        .asked
        .iter()
        .flat_map(|name| match &api.contract.schemas[name].shape {
            Shape::Object { properties, .. } => {
                let properties = properties.keys();
                properties.map(|wire| format!("{name}.{wire}")).collect()
            }
            Shape::String { values, .. } => {
                let values = values.iter();
                values.map(|value| format!("{name}={value}")).collect()
            }
            _ => Vec::new(),
        });
    paths.chain(members).map(|place| api.span(&place))
}

/// Returns the name of the constant for a span: `SINCE_V52_0`, `UNTIL_V46_0`, `V44_0_TO_V46_0`.
fn constant(span: Span) -> Ident {
    let tag = |release: Release| format!("V{}_{}", release.major, release.minor);
    names::ident(&match (span.since.map(tag), span.until.map(tag)) {
        (None, None) => "ALWAYS".to_owned(),
        (Some(since), None) => format!("SINCE_{since}"),
        (None, Some(until)) => format!("UNTIL_{until}"),
        (Some(since), Some(until)) => format!("{since}_TO_{until}"),
    })
}

fn bound(release: Option<Release>) -> TokenStream {
    match release.map(release_of) {
        Some(release) => quote! { Some(#release) },
        None => quote! { None },
    }
}

fn release_of(release: Release) -> TokenStream {
    let number = |number: u16| Literal::u16_unsuffixed(number);
    let (major, minor) = (number(release.major), number(release.minor));
    quote! { Release::new(#major, #minor) }
}
