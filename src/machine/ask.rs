//! What the guest and the VMM say of a VM that was resumed.

use std::sync::Arc;
use std::time::Instant;

use super::{Error, GuestReading, Machine, Reading};
use crate::api::types::VmState;
use crate::client::{Deadlines, ErrorKind};
use crate::vsock::Channel;

impl Machine {
    /// Asks the guest, within the settling time: who it is, to renew what a snapshot shares, and its count.
    pub(super) async fn read_guest(&mut self) -> Result<Reading<GuestReading>, Error> {
        match self.ask_guest().await {
            Ok(guest) => Ok(Reading::Answered(guest)),
            Err(Error::Channel(error)) if error.is_silence() => {
                Ok(Reading::Silent(Arc::new(Error::Channel(error))))
            }
            Err(error) => Err(error),
        }
    }

    pub(super) async fn ask_guest(&mut self) -> Result<GuestReading, Error> {
        let until = Instant::now() + self.limits.settle;
        let seed = fresh_seed().map_err(Error::file("read", "the random pool"))?;
        if self.channel.as_ref().is_none_or(Channel::is_poisoned) {
            self.connect(until).await?;
        }
        let limit = until.saturating_duration_since(Instant::now());
        let awakened = self.open()?.awaken(&seed, limit).await;
        let awakened = awakened.map_err(Error::Channel)?;
        Ok(GuestReading {
            hello: awakened.hello,
            renewed: awakened.renewed,
            clock: awakened.clock,
            open_fd_count: awakened.open_fd_count,
        })
    }

    /// Asks the VMM, within the settling time as well.
    pub(super) async fn read_vm_state(&self) -> Result<Reading<VmState>, Error> {
        let client = self.client().clone().with_deadlines(Deadlines {
            probe: self.limits.settle,
            ..Deadlines::from(self.limits)
        });
        let info = client.vm_info().await;
        let action = "tell the VM's state";
        match info {
            Ok(info) => Ok(Reading::Answered(info.state)),
            Err(source) if matches!(source.kind(), ErrorKind::Deadline { .. }) => {
                Ok(Reading::Silent(Arc::new(Error::Api { action, source })))
            }
            Err(source) => Err(self.explain(action, source).await),
        }
    }
}

/// 32 bytes of the host's random pool, which never blocks once the host is up: enough for the guest's generator to be
/// reseeded in full.
fn fresh_seed() -> std::io::Result<[u8; 32]> {
    let mut seed = [0; 32];
    let mut filled = 0;
    while filled < seed.len() {
        filled +=
            rustix::rand::getrandom(&mut seed[filled..], rustix::rand::GetRandomFlags::empty())?;
    }
    Ok(seed)
}
