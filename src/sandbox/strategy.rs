//! Which VMM serves a sandbox after a reset.

use serde::{Deserialize, Serialize};

/// More spares than this are a mistake.
pub const MAX_SPARES: u32 = 64;

/// Which VMM serves the sandbox after a reset. In TOML: `strategy = "fresh"` or `strategy = "in_place"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// Another VMM: a spare that waits restored, prewarmed and paused, or else a process that was started ahead and is
    /// empty. The VMM that served is killed before the other one is let run, so whatever a guest has made of it is gone.
    Fresh,
    /// The VMM that served: its VM is deleted and the snapshot restored into the same process.
    ///
    /// This is believed against what is left of a *guest*. A guest that has taken over its VMM can answer every question of a
    /// reset as it likes, and keep its memory: no check can find that. It is for VMMs that another program runs, for
    /// scaffold mode, and where the memory for a second process is lacking.
    InPlace,
}
