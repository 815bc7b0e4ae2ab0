//! [`Request`]: what the handles of a pool send to its task.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::PooledSandbox;
use crate::golden::LoadedGolden;
use crate::sandbox::{ChvSandbox, Error, Reset};

/// A sandbox of the pool. Its owner is the pool's task while it is idle, a caller, or the task that boots, resets or
/// discards it.
pub(super) struct Member {
    /// The number in the pool, from 1.
    pub(super) number: u64,
    pub(super) sandbox: Arc<ChvSandbox>,
    /// The number of the sandbox's golden snapshot: how many replacements came before it.
    pub(super) generation: u64,
}

/// A request, with the sender of its answer.
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
