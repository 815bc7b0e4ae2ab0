//! Generates a function for each operation.

use chv_sandbox::spec::{Schema, Shape};
use proc_macro2::TokenStream;
use quote::quote;
use syn::Ident;

use super::api::{Api, Op, json};
use super::layout::{doc, either};
use super::{names, types};

/// Generates the items of `calls.rs`.
pub(super) fn items(api: &Api) -> Vec<TokenStream> {
    let mut items = vec![quote! {
        use super::types::*;
        use crate::api::{Operation, Request};
    }];
    items.extend(api.operations().map(|op| call(api, &op)));
    items
}

/// What a function for an operation takes and what its request is answered with.
pub(super) struct Signature {
    /// The name and the type of the body, for an operation that has one.
    pub(super) parameter: Option<(Ident, TokenStream)>,
    pub(super) answer: TokenStream,
    /// The constructor of `Request` that reads such an answer.
    constructor: Ident,
}

impl Signature {
    pub(super) fn of(op: &Op<'_>) -> Signature {
        let responses = &op.endpoint.responses;
        let successes = responses.keys().filter(|status| **status < 300).count();
        let answer = responses
            .values()
            .find_map(|response| json(&response.content));
        let (answer, constructor) = match (answer.map(types::rust), successes) {
            (None, _) => (quote! { () }, "empty"),
            (Some(answer), 1) => (answer, "json"),
            (Some(answer), 2) => (quote! { Option<#answer> }, "json_or_empty"),
            (_, count) => panic!("{}: no way to read one of {count} answers", op.name),
        };
        let body = op.endpoint.body.as_ref();
        let body = body.and_then(|body| json(&body.content));
        Signature {
            parameter: body.map(|body| (parameter(body), types::rust(body))),
            answer,
            constructor: names::ident(constructor),
        }
    }
}

/// `config` for a configuration, `body` for any other.
fn parameter(schema: &Schema) -> Ident {
    names::ident(match &schema.shape {
        Shape::Reference(name) if name.ends_with("Config") => "config",
        _ => "body",
    })
}

fn call(api: &Api, op: &Op<'_>) -> TokenStream {
    let (function, variant) = (&op.function, &op.variant);
    let responses = &op.endpoint.responses;
    let (successes, failures): (Vec<u16>, Vec<u16>) =
        responses.keys().partition(|status| **status < 300);
    let mut about = vec![
        format!(
            "Builds `{}`, {} a body; sent by [`Client::{function}`](crate::client::Client::{function}).",
            op.name,
            if op.endpoint.body.is_some() {
                "with"
            } else {
                "without"
            }
        ),
        String::new(),
    ];
    let success = either(
        &successes
            .iter()
            .map(|status| match json(&responses[status].content) {
                Some(schema) => format!("{status} with a {}", types::linked(schema)),
                None => format!("{status} without a body"),
            })
            .collect::<Vec<_>>(),
    );
    about.push(format!("Success is {success}."));
    if !failures.is_empty() {
        about.push(format!("Failures are {}.", either(&failures)));
    }
    if let Some(support) = api.support(&format!("/{}", op.name), None) {
        about.extend([String::new(), support]);
    }
    let about = doc(&about);
    let Signature {
        parameter,
        answer,
        constructor,
    } = Signature::of(op);
    match parameter {
        None => quote! {
            #about
            pub fn #function() -> Request<#answer> {
                Request::#constructor(Operation::#variant)
            }
        },
        Some((name, body)) => quote! {
            #about
            pub fn #function(#name: &#body) -> Request<#answer> {
                Request::#constructor(Operation::#variant).with_body(#name)
            }
        },
    }
}
