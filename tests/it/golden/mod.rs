//! Golden snapshots: minting, the manifest and its signature, and tampering that is found when one is opened or loaded.
//!
//! The tests use the stand-ins of [`sandbox`](crate::sandbox).

pub(crate) mod loaded;
pub(crate) mod manifest;
mod manifest_property;
mod mint;
