//! Which VMM serves a sandbox after a reset: [`Strategy`].

use serde::{Deserialize, Serialize};

/// The most [spares](super::GoldenOrigin::spares) that a configuration may ask for. A larger number is taken for a
/// mistake.
pub const MAX_SPARES: u32 = 64;

/// Which VMM serves the sandbox after a reset. In TOML: `strategy = "fresh"` or `strategy = "in_place"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// Another VMM process: a spare that waits restored, prewarmed and paused, or, if there is none, an empty process
    /// that was started ahead. The VMM that served is killed before the VM of the other one is resumed. A guest that
    /// had taken over its VMM is gone with it.
    Fresh,
    /// The VMM process that served: its VM is deleted, and the snapshot is restored into the same process.
    ///
    /// Such a reset removes what is left of a *guest*. It can't detect a guest that has taken over its VMM: that VMM
    /// can give the expected answer to every check and keep its memory. Use it on VMMs that another program runs, in
    /// scaffold mode, and where there is too little memory for a second process.
    InPlace,
}
