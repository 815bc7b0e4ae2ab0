//! Probes of the host's files and devices, and of the confinement of a tool.

use super::{ProbeScript, decide};
use crate::redteam::Family;
use crate::redteam::probe::Probe;

pub(super) const PROBES: &[Probe] = &[
    Probe {
        name: "host_files",
        family: Family::Host,
        tries: "looks for file systems of the host, mounts shares, and goes above the root",
        breach: "a share of the host is mounted or can be mounted, or there is something above the root",
        attempt: |attacker| {
            Box::pin(async move {
                let script =
                    ProbeScript::new("host_files", include_str!("scripts/host_files.sh"), &[]);
                decide(attacker, &script).await
            })
        },
    },
    Probe {
        name: "host_devices",
        family: Family::Host,
        tries: "opens devices of disks, memory and virtualisation, makes nodes, and writes to PCI devices",
        breach: "one of them can be opened",
        attempt: |attacker| {
            Box::pin(async move {
                let script =
                    ProbeScript::new("host_devices", include_str!("scripts/host_devices.sh"), &[]);
                decide(attacker, &script).await
            })
        },
    },
    Probe {
        name: "process_escape",
        family: Family::Host,
        tries: "reads and signals the guest's first process, writes to its kernel's controls, makes a namespace, changes the root",
        breach: "one of these succeeds, or the tool is root or has a capability",
        attempt: |attacker| {
            Box::pin(async move {
                let body = include_str!("scripts/process_escape.sh");
                decide(attacker, &ProbeScript::new("process_escape", body, &[])).await
            })
        },
    },
];
