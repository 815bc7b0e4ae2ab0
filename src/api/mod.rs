//! The API of the VMM as values: types and request builders, without any input or output.
//!
//! Everything under `generated` is written by the generator in `tests/codegen/` from the contracts in
//! `api-spec/`. A [`Request`] is sent by [`client`](crate::client).

mod operation;
mod request;

pub use operation::Operation;
pub use request::{DecodeError, Method, Request};
