//! How long a call may take, by its class ([`Deadlines`]).

use std::time::Duration;

use crate::api::Operation;
use crate::limits::TimeLimits;

/// The time limits of the three classes of calls. A limit covers the whole call: the wait for earlier calls of the same
/// client, a new connection where one is needed, and the exchange.
///
/// A client's defaults are longer than those of a machine's client, which are its [`TimeLimits`]: a client sends every
/// operation to any VM, also to one with slow devices that no sandbox has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadlines {
    /// `vmm.ping`, `vm.info`, `vm.counters`. The server answers these from memory, on its only thread, so the restore
    /// or the boot of another client may delay them. Default: [`TimeLimits::vmm_probe`]'s.
    pub probe: Duration,
    /// Calls that change the VM or its devices. Default: 90 s, because a vhost-user device whose socket is missing
    /// holds the server for up to 60 s.
    pub lifecycle: Duration,
    /// Calls that move the guest's memory: snapshot, restore, coredump and migration. Set it to what the guest's memory
    /// takes at the disk's speed. Default: [`TimeLimits::vmm_transfer`]'s.
    pub transfer: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Deadlines {
            lifecycle: Duration::from_secs(90),
            ..Deadlines::from(TimeLimits::default())
        }
    }
}

/// The deadlines of a machine's calls.
impl From<TimeLimits> for Deadlines {
    fn from(limits: TimeLimits) -> Self {
        Deadlines {
            probe: limits.vmm_probe,
            lifecycle: limits.vmm_lifecycle,
            transfer: limits.vmm_transfer,
        }
    }
}

impl Deadlines {
    /// The limit of `operation`, no longer than [`TimeLimits::LONGEST`].
    pub fn of(&self, operation: Operation) -> Duration {
        let limit = match operation {
            Operation::VmmPing | Operation::VmInfo | Operation::VmCounters => self.probe,
            Operation::VmSnapshot
            | Operation::VmRestore
            | Operation::VmCoredump
            | Operation::VmSendMigration
            | Operation::VmReceiveMigration => self.transfer,
            _ => self.lifecycle,
        };
        limit.min(TimeLimits::LONGEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_and_those_of_a_machine() {
        let seconds = |deadlines: Deadlines| {
            [deadlines.probe, deadlines.lifecycle, deadlines.transfer].map(|limit| limit.as_secs())
        };
        assert_eq!(seconds(Deadlines::default()), [5, 90, 300]);
        assert_eq!(seconds(TimeLimits::default().into()), [5, 10, 300]);
    }

    #[test]
    fn no_call_has_more_than_the_longest_limit() {
        let endless = Deadlines {
            probe: Duration::MAX,
            lifecycle: Duration::MAX,
            transfer: Duration::MAX,
        };
        for operation in [Operation::VmmPing, Operation::VmBoot, Operation::VmRestore] {
            assert_eq!(endless.of(operation), TimeLimits::LONGEST);
        }
    }
}
