//! Every integration test, in one binary, so that it links once.

#[path = "../codegen/mod.rs"]
mod codegen;

mod client;
