//! Generates the enum of all operations.

use chv_sandbox::spec::Method;
use proc_macro2::TokenStream;
use quote::quote;

use super::api::{Api, Op};
use super::layout::doc;

/// Generates the items of `operation.rs`.
pub(super) fn items(api: &Api) -> Vec<TokenStream> {
    let ops: Vec<Op<'_>> = api.operations().collect();
    let variants = ops.iter().map(|op| {
        let mut about = format!("`{} {}`", op.method, op.path);
        if let Some(support) = api.support(&format!("/{}", op.name), None) {
            about = format!("{about}. {support}");
        }
        let (variant, doc) = (&op.variant, doc(&[about]));
        quote! { #doc #variant }
    });
    let all = ops.iter().map(|op| &op.variant);
    let names = ops.iter().map(|op| {
        let (variant, name) = (&op.variant, op.name);
        quote! { Operation::#variant => #name }
    });
    let paths = ops.iter().map(|op| {
        let (variant, path) = (&op.variant, &op.path);
        quote! { Operation::#variant => #path }
    });
    let gets = ops
        .iter()
        .filter(|op| op.method == Method::Get)
        .map(|op| &op.variant);
    assert!(
        ops.iter()
            .all(|op| matches!(op.method, Method::Get | Method::Put)),
        "`api::Method` has no other"
    );
    let without_body = ops
        .iter()
        .filter(|op| op.endpoint.body.is_none())
        .map(|op| &op.variant);
    vec![
        quote! { use crate::api::Method; },
        quote! {
            /// An operation of the VMM's API, named as its path is.
            #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
            #[non_exhaustive]
            pub enum Operation { #(#variants),* }
        },
        quote! {
            impl Operation {
                /// Every operation, sorted by name.
                pub const ALL: &[Operation] = &[#(Operation::#all),*];

                /// The name as the document has it: `vm.info`.
                pub const fn name(self) -> &'static str {
                    match self { #(#names),* }
                }

                /// The path of the request: `/api/v1/vm.info`.
                pub const fn path(self) -> &'static str {
                    match self { #(#paths),* }
                }

                /// The HTTP method.
                pub const fn method(self) -> Method {
                    match self {
                        #(Operation::#gets)|* => Method::Get,
                        _ => Method::Put,
                    }
                }

                /// Whether the request has a body. The VMM refuses, with status 400, a body that the operation doesn't
                /// take.
                pub const fn takes_body(self) -> bool {
                    !matches!(self, #(Operation::#without_body)|*)
                }
            }
        },
    ]
}
