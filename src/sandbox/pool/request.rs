//! What a pool's handles ask of its task, and what they get.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::PooledSandbox;
use crate::golden::LoadedGolden;
use crate::sandbox::{ChvSandbox, Error, Reset};

/// A sandbox of the pool. It is in one place at a time: with the task, with a caller, or being worked on.
pub(super) struct Member {
    pub(super) number: u64,
    pub(super) sandbox: Arc<ChvSandbox>,
    /// Of which golden snapshot it is, by the number of the replacement.
    pub(super) generation: u64,
}

pub(super) enum Request {
    Acquire(oneshot::Sender<Result<PooledSandbox, Error>>),
    Release {
        member: Member,
        reply: Option<oneshot::Sender<Result<Reset, Error>>>,
    },
    Replace {
        golden: Arc<LoadedGolden>,
        reply: oneshot::Sender<Result<(), Error>>,
    },
    Drain(oneshot::Sender<()>),
    Shutdown(oneshot::Sender<()>),
}
