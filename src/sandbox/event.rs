//! What a sandbox tells those who listen.

use std::sync::Arc;

use super::{ResetOutcome, SandboxState};
use crate::{machine, vmm, vsock};

/// Something that happened in a sandbox.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// The sandbox stands somewhere else.
    State(SandboxState),
    /// A reset ended; whether it passed stands in its state.
    Reset(Arc<ResetOutcome>),
    /// A raw frame of the guest with its channel, an answer that came too late, an error of the guest, or the
    /// end of a channel.
    Channel(vsock::ChannelEvent),
    /// The VMM says something happened. A hint, never a state.
    Vmm(vmm::Event),
    /// The VMM ended.
    VmmEnded(vmm::Ended),
    /// A spare waits for the next reset.
    SpareReady,
    /// A spare could not be prepared. It is tried again after a while; a reset that finds no spare starts a new VMM.
    SpareFailed(Arc<machine::Error>),
    /// What is left of a sandbox that diverged was kept there.
    EvidenceKept(std::path::PathBuf),
}
