//! Every integration test, in one binary, so that it links once.

mod api;
#[path = "../codegen/mod.rs"]
mod codegen;
mod spec;
