//! How long a call may take, by its class.

use std::time::Duration;

use crate::api::Operation;

/// The time limits of the three classes of calls. Each covers a whole call: its turn behind earlier calls of the
/// same client, a new connection where one is needed, and the exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadlines {
    /// `vmm.ping`, `vm.info`, `vm.counters`: answered from memory. 5 seconds by default, because the server
    /// answers on one thread and a restore or a boot of another client may be before it.
    pub probe: Duration,
    /// Calls that change the VM or its devices. 90 seconds by default, because a vhost-user device on a socket
    /// that is missing holds the server for up to 60 seconds.
    pub lifecycle: Duration,
    /// Calls that move the guest's memory: snapshot, restore, coredump and migration. 5 minutes by default;
    /// allow for the guest's memory at the disk's speed.
    pub transfer: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Deadlines {
            probe: Duration::from_secs(5),
            lifecycle: Duration::from_secs(90),
            transfer: Duration::from_secs(300),
        }
    }
}

impl Deadlines {
    /// The limit of `operation`.
    pub fn of(&self, operation: Operation) -> Duration {
        match operation {
            Operation::VmmPing | Operation::VmInfo | Operation::VmCounters => self.probe,
            Operation::VmSnapshot
            | Operation::VmRestore
            | Operation::VmCoredump
            | Operation::VmSendMigration
            | Operation::VmReceiveMigration => self.transfer,
            _ => self.lifecycle,
        }
    }
}
