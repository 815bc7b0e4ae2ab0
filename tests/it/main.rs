//! Every integration test, in one binary, so that it links once.

mod api;
mod blocking;
mod budget;
mod cassettes;
mod cli;
mod client;
#[path = "../codegen/mod.rs"]
mod codegen;
mod compat;
mod compat_cli;
mod contracts;
mod demo;
mod examples;
mod expected;
mod from_fixtures;
mod guest;
mod hash_cli;
mod image;
mod latency;
mod machine;
mod overlay;
mod player;
mod probe;
mod qcow2;
mod qcow2_image;
mod real;
mod recorder;
mod redteam;
mod relay;
mod replay_sandbox;
mod sandbox;
mod spec;
mod tidy;
mod verity;
mod vmm;
mod vsock;
