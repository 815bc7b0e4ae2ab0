//! Generates enums that keep a value that this crate does not know.

use std::collections::BTreeSet;

use chv_sandbox::spec::Schema;
use proc_macro2::TokenStream;
use quote::quote;

use super::api::Api;
use super::{layout, names, types};

/// Generates an enum and its methods.
pub(super) fn items(
    api: &Api,
    name: &str,
    schema: &Schema,
    values: &BTreeSet<String>,
) -> Vec<TokenStream> {
    let ident = names::ident(name);
    let doc = layout::doc(&types::about(api, name, schema));
    let default = schema
        .default
        .as_ref()
        .map(|default| default.as_str().expect("the default is one of the values"));
    let variants = values.iter().map(|value| {
        let variant = names::variant(value);
        let mut about = match value.as_str() {
            "Unknown" => "`Unknown` on the wire: a value that the server knows, unlike those of the last variant.".to_owned(),
            value => format!("`{value}` on the wire."),
        };
        if let Some(support) = api.support(&format!("{name}={value}"), Some(name)) {
            about = format!("{about} {support}");
        }
        let doc = layout::doc(&[about]);
        let default = (default == Some(value)).then(|| quote! { #[default] });
        let rename = (variant != *value).then(|| quote! { #[serde(rename = #value)] });
        quote! { #doc #default #rename #variant }
    });
    let texts = values.iter().map(|value| {
        let variant = names::variant(value);
        quote! { #ident::#variant => #value }
    });
    let derive_default = default.map(|_| quote! { Default, });
    vec![
        quote! {
            #doc
            #[derive(Clone, Debug, #derive_default PartialEq, Eq, Hash, Deserialize, Serialize)]
            #[non_exhaustive]
            pub enum #ident {
                #(#variants,)*
                /// A value of another release, as it is on the wire.
                #[serde(untagged)]
                Unknown(String),
            }
        },
        quote! {
            impl #ident {
                /// The value on the wire.
                pub fn as_str(&self) -> &str {
                    match self {
                        #(#texts,)*
                        #ident::Unknown(value) => value,
                    }
                }
            }
        },
        quote! {
            /// Shows a value of another release as a [line](crate::sanitize::line) of at most 64 characters.
            impl std::fmt::Display for #ident {
                fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                    f.write_str(&crate::sanitize::line(self.as_str(), 64))
                }
            }
        },
    ]
}
