//! Every integration test, in one binary, so that it links once.

mod api;
mod cassettes;
mod client;
#[path = "../codegen/mod.rs"]
mod codegen;
mod contracts;
mod demo;
mod guest;
mod idle_kernel;
mod image;
mod overlay;
mod player;
mod real;
mod recorder;
mod relay;
mod sandbox;
mod scenarios;
mod spec;
mod tidy;
mod vmm;
mod vsock;
