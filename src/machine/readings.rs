//! [`Readings`]: the values that a machine reads from the three sources after a revert. [`Steps`] measures the time of
//! each step.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;

use super::{DiskProof, Error, MemoryReading};
use crate::api::types::VmState;
use crate::duration::micros;
use crate::guest::protocol::Renewed;
use crate::vmm::{Identity, IdentityError};
use crate::vsock::{ClockSkew, GuestHello};

/// The answer of a source, or the reason why it gave none in time.
///
/// A silent source never counts as agreeing with a baseline, and is reported as another result than a disagreement.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Reading<T> {
    /// The source gave this answer.
    Answered(T),
    /// The source gave no answer in time, for this reason.
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

/// The readings after a revert.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Readings {
    /// The proof of each disk, in the VM's order.
    pub disks: Vec<DiskProof>,
    /// How the guest got its memory.
    pub memory: MemoryReading,
    /// The guest's answers.
    pub guest: Reading<GuestReading>,
    /// The VM's state as the VMM's API reports it.
    pub vm_state: Reading<VmState>,
    /// The identity of the process that answers on the api-socket, proved after the last answer. `None` if another
    /// program runs the VMM, as its process can't be examined.
    pub vmm: Option<Result<Identity, Arc<IdentityError>>>,
}

/// The guest's answers after a revert.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct GuestReading {
    /// The guest's greeting; `None` from a dispatcher that is older than the greeting.
    pub hello: Option<GuestHello>,
    /// Whether the guest reseeded its random pool and set its clock, with its nonce; `None` if its dispatcher can't do
    /// that.
    pub renewed: Option<Renewed>,
    /// How far the guest's clock is from the host's after that; `None` if its dispatcher does not report its clock.
    pub clock: Option<ClockSkew>,
    /// The number of open descriptors of all the guest's processes, without sockets.
    pub open_fd_count: u64,
}

/// One step of an operation, with its duration.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Step {
    /// The step's name, such as `restore`.
    pub name: &'static str,
    /// The step's duration, in microseconds.
    pub micros: u64,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:.1} ms", self.name, self.micros as f64 / 1000.0)
    }
}

/// Measures the duration of each step of an operation.
#[derive(Debug)]
pub struct Steps {
    done: Vec<Step>,
    began: Instant,
    since: Instant,
}

impl Steps {
    /// Starts measuring the first step.
    pub fn start() -> Self {
        let now = Instant::now();
        Steps {
            done: Vec::with_capacity(10),
            began: now,
            since: now,
        }
    }

    /// Ends the present step, names it `name`, and starts the next one.
    pub fn end(&mut self, name: &'static str) {
        let now = Instant::now();
        let micros = micros(now.duration_since(self.since));
        tracing::debug!(step = name, micros, "a step is done");
        self.done.push(Step { name, micros });
        self.since = now;
    }

    /// The steps that have ended, in order.
    pub fn so_far(&self) -> &[Step] {
        &self.done
    }

    /// The time since [`start`](Self::start), in microseconds.
    pub(crate) fn micros(&self) -> u64 {
        micros(self.began.elapsed())
    }
}
