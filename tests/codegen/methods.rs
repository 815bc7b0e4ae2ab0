//! One method of the client an operation.

use std::collections::BTreeMap;

use proc_macro2::TokenStream;
use quote::quote;

use super::api::{Api, Op};
use super::calls::Signature;
use super::layout::doc;
use super::method_words::{FILES, WORDS, Words};

/// The files below `src/client/generated/`, each with what it holds and its items.
pub(super) fn files(api: &Api) -> Vec<(&'static str, &'static str, Vec<TokenStream>)> {
    let mut ops: BTreeMap<&str, Op<'_>> = api.operations().map(|op| (op.name, op)).collect();
    let mut methods: BTreeMap<&str, Vec<TokenStream>> = BTreeMap::new();
    for words in WORDS {
        let op = ops.remove(words.operation);
        let op = op.unwrap_or_else(|| panic!("{} is there no more, or twice", words.operation));
        let file = methods.entry(words.file).or_default();
        file.push(method(api, &op, words));
    }
    assert!(
        ops.is_empty(),
        "these operations have no words in tests/codegen/method_words.rs: {:?}",
        ops.keys()
    );
    let files = FILES.iter().map(|&(file, about)| {
        let methods = methods.remove(file);
        let methods = methods.unwrap_or_else(|| panic!("{file} has no methods"));
        let items = vec![
            quote! {
                use crate::api::{self, types::*};
                use crate::client::{Client, Error};
            },
            quote! { impl Client { #(#methods)* } },
        ];
        (file, about, items)
    });
    let files = files.collect();
    assert!(methods.is_empty(), "unknown files: {:?}", methods.keys());
    files
}

fn method(api: &Api, op: &Op<'_>, words: &Words) -> TokenStream {
    let mut about = vec![
        words.does.to_owned(),
        String::new(),
        words.states.to_owned(),
    ];
    for paragraph in words.more {
        about.extend([String::new(), (*paragraph).to_owned()]);
    }
    let releases = api.support(&format!("/{}", op.name), None);
    let releases = releases.unwrap_or_else(|| "Every supported release has it.".to_owned());
    about.extend([
        String::new(),
        format!(
            "Sends [`api::{0}`] (`{1} {2}`). {releases}",
            op.function, op.method, op.path
        ),
        String::new(),
        "# Errors".to_owned(),
        String::new(),
    ]);
    for (kind, when) in words.errors {
        about.push(format!(
            "- [`ErrorKind::{kind}`](crate::client::ErrorKind::{kind}): {when}"
        ));
    }
    about.push(match words.errors {
        [] => "Those of [`Client::send`].".to_owned(),
        _ => "- Those of [`Client::send`].".to_owned(),
    });
    let about = doc(&about);
    let function = &op.function;
    let Signature {
        parameter, answer, ..
    } = Signature::of(op);
    match parameter {
        None => quote! {
            #about
            pub async fn #function(&self) -> Result<#answer, Error> {
                self.send(api::#function()).await
            }
        },
        Some((name, body)) => quote! {
            #about
            pub async fn #function(&self, #name: &#body) -> Result<#answer, Error> {
                self.send(api::#function(#name)).await
            }
        },
    }
}
