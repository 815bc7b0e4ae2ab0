//! The API of the VMM as values: types and request builders, without any input or output.
//!
//! There is one function an operation ([`vm_info`], [`vm_add_disk`]), which builds a [`Request`]; it is sent by
//! [`client`](crate::client). Everything under `generated` is written by the generator in `tests/codegen/` from the
//! contracts in `api-spec/`, after the corrections beside them.
//!
//! There is one set of types for all supported releases, [`SUPPORTED`]: what any of them knows is here, and where not all
//! do, its documentation says which ("Since v52.0."). The same as data is in [`support`]; what a request needs of a
//! release is said by [`Request::requirements`].
//!
//! A type's required fields are plain, its optional ones are `Option` and are not sent when `None`. A newer server never
//! breaks reading: fields that a type doesn't have are kept as text in its `unknown` ([`UnknownFields`]), and a value
//! that an enum doesn't have is its `Unknown`.

#[rustfmt::skip]
mod generated;
mod open_object;
mod operation;
mod raw;
mod release;
mod request;
mod requirements;
pub mod support;

pub use generated::*;
pub use operation::UnknownOperation;
pub use raw::{RawJson, UnknownFields};
pub use release::{ParseReleaseError, Release};
pub use request::{DecodeError, Method, Request};
pub use requirements::Requirement;
