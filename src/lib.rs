//! Boots, drives, resets and verifies microVM sandboxes on Cloud Hypervisor by talking to the VMM's own
//! REST API on its api-socket.

pub mod api;
pub mod client;
pub mod golden;
pub mod guest;
#[cfg(feature = "image")]
pub mod image;
pub mod machine;
pub mod overlay;
#[cfg(feature = "replay")]
pub mod replay;
pub mod sandbox;
#[cfg(feature = "spec")]
pub mod spec;
pub mod vmm;
pub mod vsock;
