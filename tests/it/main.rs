//! Every integration test, in one binary, so that it links once.

mod api;
mod cassettes;
#[path = "../codegen/mod.rs"]
mod codegen;

mod guest;
mod idle_kernel;

mod player;
mod recorder;
mod relay;
mod scenarios;
mod image;
mod overlay;
mod spec;
mod vmm;
mod vsock;

mod client;
