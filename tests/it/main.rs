//! Every integration test, in one binary, so that it links once.

mod api;
#[path = "../codegen/mod.rs"]
mod codegen;
mod vsock;
mod idle_kernel;
mod image;
mod overlay;
mod guest;
mod spec;
mod vmm;

mod client;
