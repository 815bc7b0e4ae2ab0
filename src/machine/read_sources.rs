//! Reads two of the three sources of a resumed VM: the guest, and the VMM's API.

use std::sync::Arc;
use std::time::Instant;

use super::{Error, GuestReading, Machine, Reading};
use crate::api::types::VmState;
use crate::client::{Deadlines, ErrorKind};
use crate::vsock::Channel;

impl Machine {
    /// Sends the guest its requests after a revert, within the limit `settle`: its greeting, the renewal of the random
    /// seed and the clock, and the count of its open descriptors.
    pub(super) async fn read_guest(&mut self) -> Result<Reading<GuestReading>, Error> {
        match self.query_guest().await {
            Ok(guest) => Ok(Reading::Answered(guest)),
            Err(Error::Channel(error)) if error.is_silence() => {
                Ok(Reading::Silent(Arc::new(Error::Channel(error))))
            }
            Err(error) => Err(error),
        }
    }

    pub(super) async fn query_guest(&mut self) -> Result<GuestReading, Error> {
        let until = Instant::now() + self.limits.settle;
        let seed = fresh_seed().map_err(Error::file("read", "the random pool"))?;
        if self.channel.as_ref().is_none_or(Channel::is_poisoned) {
            self.connect(until).await?;
        }
        let limit = until.saturating_duration_since(Instant::now());
        let answers = self.open()?.query_after_restore(&seed, limit).await;
        let answers = answers.map_err(Error::Channel)?;
        Ok(GuestReading {
            hello: answers.hello,
            renewed: answers.renewed,
            clock: answers.clock,
            open_fd_count: answers.open_fd_count,
        })
    }

    /// Asks the VMM for the VM's state, within the limit `settle` too.
    pub(super) async fn read_vm_state(&self) -> Result<Reading<VmState>, Error> {
        let client = self.client().clone().with_deadlines(Deadlines {
            probe: self.limits.settle,
            ..Deadlines::from(self.limits)
        });
        let info = client.vm_info().await;
        let action = "report the VM's state";
        match info {
            Ok(info) => Ok(Reading::Answered(info.state)),
            Err(source) if matches!(source.kind(), ErrorKind::Deadline { .. }) => {
                Ok(Reading::Silent(Arc::new(Error::Api { action, source })))
            }
            Err(source) => Err(self.explain(action, source).await),
        }
    }
}

/// Reads 32 bytes of the host's random pool, which are enough to reseed the guest's generator in full. The pool never
/// blocks once the host has booted.
fn fresh_seed() -> std::io::Result<[u8; 32]> {
    let mut seed = [0; 32];
    let mut filled = 0;
    while filled < seed.len() {
        filled +=
            rustix::rand::getrandom(&mut seed[filled..], rustix::rand::GetRandomFlags::empty())?;
    }
    Ok(seed)
}
