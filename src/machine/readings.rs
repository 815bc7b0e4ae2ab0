//! What a machine reads from its three sources, and what each step cost.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;

use super::{DiskProof, Error, MemoryReading};
use crate::api::types::VmState;
use crate::guest::protocol::Renewed;
use crate::vmm::{Identity, IdentityError};
use crate::vsock::{ClockSkew, GuestHello};

/// What a source said, or that it said nothing in time.
///
/// Silence is not an answer: it never counts as agreeing, and is not the same as disagreeing.
#[derive(Clone, Debug)]
pub enum Reading<T> {
    /// The source answered.
    Answered(T),
    /// It didn't, for this reason.
    Silent(Arc<Error>),
}

impl<T> Reading<T> {
    /// The answer, if there is one.
    pub fn answered(&self) -> Option<&T> {
        match self {
            Reading::Answered(answer) => Some(answer),
            Reading::Silent(_) => None,
        }
    }
}

/// Everything that a revert learns about the machine afterwards.
#[derive(Clone, Debug)]
pub struct Readings {
    /// Each disk, proved.
    pub disks: Vec<DiskProof>,
    /// How the guest got its memory.
    pub memory: MemoryReading,
    /// What the guest said.
    pub guest: Reading<GuestReading>,
    /// The VM's state as the API has it.
    pub vm_state: Reading<VmState>,
    /// Who answered on the api-socket, looked at after the last answer; `None` where there is no process to look into.
    pub vmm: Option<Result<Identity, Arc<IdentityError>>>,
}

/// What the guest says after a revert.
#[derive(Clone, Debug)]
pub struct GuestReading {
    /// Its greeting; `None` from a guest that is older than the greeting.
    pub hello: Option<GuestHello>,
    /// What became of its random pool and its clock, and its nonce; `None` where it can't do that.
    pub renewed: Option<Renewed>,
    /// How far its clock is from the host's after that; `None` where it says nothing of its clock.
    pub clock: Option<ClockSkew>,
    /// Its open descriptors, over all processes, without sockets.
    pub open_fd_count: u64,
}

/// One step and its time.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Step {
    /// Its name.
    pub name: &'static str,
    /// How long it took, in microseconds.
    pub micros: u64,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:.1} ms", self.name, self.micros as f64 / 1000.0)
    }
}

/// A stopwatch with a lap for each step.
#[derive(Debug)]
pub struct Steps {
    done: Vec<Step>,
    began: Instant,
    since: Instant,
}

impl Steps {
    /// Starts it.
    pub fn start() -> Self {
        let now = Instant::now();
        Steps {
            done: Vec::with_capacity(10),
            began: now,
            since: now,
        }
    }

    /// The step `name` ends here.
    pub fn end(&mut self, name: &'static str) {
        let now = Instant::now();
        let micros = now.duration_since(self.since).as_micros() as u64;
        tracing::debug!(step = name, micros, "done");
        self.done.push(Step { name, micros });
        self.since = now;
    }

    /// The steps so far, in order.
    pub fn so_far(&self) -> &[Step] {
        &self.done
    }

    /// How long it has run, in microseconds.
    pub fn micros(&self) -> u64 {
        self.began.elapsed().as_micros() as u64
    }
}
