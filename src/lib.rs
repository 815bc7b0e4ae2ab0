#![doc = include_str!("guide/front_page.md")]
#![doc = include_str!("guide/life_cycle.svg")]
#![doc = include_str!("guide/after_life_cycle.md")]
#![doc = include_str!("guide/reset.svg")]
#![doc = include_str!("guide/after_reset.md")]
#![doc = include_str!("guide/trust_boundary.svg")]
#![doc = include_str!("guide/after_trust_boundary.md")]
//! - [`doctor`]: what a host lacks to run sandboxes, and how to get it.
//! - [`blocking`]: sandboxes and pools for programs without an async runtime.
//! - [`sandbox`]: the sandbox as an agent sees it: boot, run a tool, reset with proof, shut down.
//! - [`golden`]: golden snapshots, to which every reset returns, with the baselines that prove it.
//! - [`machine`]: one VMM with its VM, its channel and its disks.
//! - [`vmm`]: the VMM process: started, watched, stopped, and cleared away when an earlier agent left it.
//! - [`vsock`]: the channel to the guest.
//! - [`client`]: sends requests of the API over the api-socket and says what came of them.
//! - [`overlay`]: the disk's bytes: their digest, and putting them back.
//! - [`api`]: the requests and types of the API, as values.
//! - [`guest`]: what host and guest share, and the dispatcher that runs inside the guest.
//! - [`archive`]: trees of files as tar streams, for transfers into and out of a guest.
//! - [`digest`]: SHA-256 digests.
//! - [`limits`]: how long each step of a sandbox, a machine, a VMM and a channel may take.
//! - [`broadcast`]: a channel for events that is bounded in bytes.
//! - [`causes`]: shows an error with its causes.
//! - [`sanitize`]: makes text of a guest or a VMM safe for an error, a log line or a terminal.
//! - [`socket`]: addresses of sockets, with a name or without one.
//!
//! Pages without code: [`threat_model`] says who is trusted, and what keeps the rest in its place; [`measurements`] says what
//! it all costs.
//!
//! Beside these:
//!
//! - [`spec`]: the contract of the API as data, from which `api` is generated.
//! - [`replay`]: recorded exchanges with a VMM, for tests where there is no KVM.
//! - [`compat`]: what changed between two contracts, or between a contract and a running server, and what it breaks.
//! - [`latency`]: measures what acquiring, using and resetting a sandbox takes on a host.
//! - [`redteam`]: attacks a sandbox with a battery of probes, and reports what held.
//! - [`host_facts`]: what a report says of its host.
//! - [`image`]: packs a bootable image from a distribution's kernel files.

pub mod api;
pub mod archive;
pub mod blocking;
pub mod broadcast;
pub mod causes;
pub mod client;
#[cfg(feature = "compat")]
pub mod compat;
pub mod digest;
pub mod doctor;
mod duration;
mod files;
#[cfg(any(test, fuzzing))]
mod fuzzing;
pub mod golden;
pub mod guest;
#[cfg(any(feature = "latency", feature = "redteam"))]
pub mod host_facts;
#[cfg(feature = "image")]
pub mod image;
#[cfg(any(feature = "latency", feature = "redteam"))]
mod interruption;
#[cfg(feature = "latency")]
pub mod latency;
pub mod limits;
pub mod machine;
#[doc = include_str!("guide/measurements.md")]
pub mod measurements {}
mod mutex;
mod offload;
pub mod overlay;
#[cfg(feature = "redteam")]
pub mod redteam;
#[cfg(feature = "replay")]
pub mod replay;
#[cfg(any(feature = "latency", feature = "redteam"))]
mod report_json;
pub mod sandbox;
pub mod sanitize;
pub mod socket;
#[cfg(feature = "spec")]
pub mod spec;
#[doc = include_str!("guide/threat_model.md")]
pub mod threat_model {}
pub mod vmm;
pub mod vsock;

#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub use fuzzing::run as fuzz;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
