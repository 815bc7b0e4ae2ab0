//! Generates a function for each operation.

use proc_macro2::TokenStream;
use quote::quote;

use super::api::{Api, Op, json};
use super::layout::{doc, either};
use super::types;

/// Generates the items of `calls.rs`.
pub(super) fn items(api: &Api) -> Vec<TokenStream> {
    let mut items = vec![quote! {
        use super::types::*;
        use crate::api::{Operation, Request};
    }];
    items.extend(api.operations().map(|op| call(api, &op)));
    items
}

fn call(api: &Api, op: &Op<'_>) -> TokenStream {
    let (function, variant) = (&op.function, &op.variant);
    let successes: Vec<u16> = op
        .endpoint
        .responses
        .keys()
        .copied()
        .filter(|status| *status < 300)
        .collect();
    let failures: Vec<u16> = op
        .endpoint
        .responses
        .keys()
        .copied()
        .filter(|status| *status >= 300)
        .collect();
    let answer = op
        .endpoint
        .responses
        .values()
        .find_map(|response| json(&response.content));
    let (answer, constructor) = match (answer.map(types::rust), successes.len()) {
        (None, _) => (quote! { () }, quote! { empty }),
        (Some(answer), 1) => (answer, quote! { json }),
        (Some(answer), 2) => (quote! { Option<#answer> }, quote! { json_or_empty }),
        (_, count) => panic!("{}: no way to read one of {count} answers", op.name),
    };
    let mut about = vec![
        format!(
            "`{}`, {} a body.",
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
            .map(
                |status| match json(&op.endpoint.responses[status].content) {
                    Some(schema) => format!("{status} with a {}", types::linked(schema)),
                    None => format!("{status} without a body"),
                },
            )
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
    match op
        .endpoint
        .body
        .as_ref()
        .and_then(|body| json(&body.content))
        .map(types::rust)
    {
        None => quote! {
            #about
            pub fn #function() -> Request<#answer> {
                Request::#constructor(Operation::#variant)
            }
        },
        Some(body) => quote! {
            #about
            pub fn #function(body: &#body) -> Request<#answer> {
                Request::#constructor(Operation::#variant).with_body(body)
            }
        },
    }
}
