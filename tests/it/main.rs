//! Every integration test, in one binary, so that it links once.

mod cassettes;
#[path = "../codegen/mod.rs"]
mod codegen;

mod idle_kernel;

mod player;
mod recorder;
mod relay;
mod scenarios;
