#![doc = include_str!("guide/front_page.md")]
//!
#![doc = include_str!("guide/life_cycle.svg")]
//!
#![doc = include_str!("guide/after_life_cycle.md")]
//!
#![doc = include_str!("guide/reset.svg")]
//!
#![doc = include_str!("guide/after_reset.md")]
//!
#![doc = include_str!("guide/trust_boundary.svg")]
//!
#![doc = include_str!("guide/after_trust_boundary.md")]
//!
//! - [`doctor`]: finds what a host lacks to run sandboxes, and the commands that get it.
//! - [`blocking`]: sandboxes and pools for programs without an async runtime.
//! - [`sandbox`]: boots, runs tools, resets with a proof, shuts down; pools.
//! - [`golden`]: golden snapshots, to which every reset returns, with the baselines that prove it.
//! - [`machine`]: one VMM with its VM, its channel and its disks.
//! - [`vmm`]: starts, confines, watches and ends the VMM's process, and removes what an earlier agent left.
//! - [`vsock`]: the channel to the guest.
//! - [`client`]: the client of the VMM's REST API.
//! - [`overlay`]: digests of disks, and filling disks anew.
//! - [`api`]: the requests and types of the API, without I/O.
//! - [`guest`]: the protocol between host and guest, and the dispatcher that runs in the guest.
//! - [`archive`]: trees of files as tar streams, for transfers into a guest and out of it.
//! - [`digest`]: SHA-256 digests.
//! - [`limits`]: the time limit of each step.
//! - [`broadcast`]: a channel for events that is bounded in bytes.
//! - [`causes`]: shows an error with its causes.
//! - [`sanitize`]: makes text of a guest or a VMM safe to show.
//! - [`socket`]: addresses of sockets, with a name or without one.
//!
//! Beside these:
//!
//! - [`spec`]: the contract of the API as data, from which `api` is generated.
//! - [`replay`]: recorded exchanges with a VMM, and sandboxes on them, for tests without KVM.
//! - [`compat`]: compares two contracts, or a contract with a running VMM.
//! - [`latency`]: measures what a sandbox takes on a host.
//! - [`redteam`]: attacks a sandbox with a set of probes.
//! - [`host_facts`]: what a report says of its host.
//! - [`image`]: packs a bootable image.
//!
//! Pages without code: [`threat_model`], [`measurements`] and [`test_coverage`].

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
mod hex;
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
#[doc = include_str!("guide/test_coverage.md")]
pub mod test_coverage {}
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
