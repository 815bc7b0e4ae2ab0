//! Every integration test, in one binary, so that it links once.

mod api;
#[path = "../codegen/mod.rs"]
mod codegen;
mod guest;
mod idle_kernel;
mod image;
mod overlay;
mod spec;
mod vmm;
mod vsock;

mod client;
