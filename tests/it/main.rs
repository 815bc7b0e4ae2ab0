//! Every integration test, in one binary, so that it links once. The folders mirror those of `src/`.
//!
//! Three areas have no counterpart there: `examples` runs the programs of the folder `examples/`, `real` holds the
//! tests that need a real VMM, and `tidy` checks the sources themselves. `codegen` is the generator of
//! `src/api/generated/`.

mod api;
mod blocking;
mod cli;
mod client;
#[path = "../codegen/mod.rs"]
mod codegen;
mod compat;
mod examples;
mod golden;
mod guest;
mod image;
mod latency;
mod machine;
mod overlay;
mod real;
mod redteam;
mod replay;
mod sandbox;
mod spec;
mod tidy;
mod vmm;
mod vsock;
