//! Probes of network access, which a sandbox must not have.

use super::{ProbeScript, decide};
use crate::redteam::Family;
use crate::redteam::probe::Probe;

pub(super) const PROBES: &[Probe] = &[
    Probe {
        name: "network_interfaces",
        family: Family::Network,
        tries: "lists network interfaces and routes",
        breach: "there is one beside loopback",
        attempt: |attacker| {
            Box::pin(async move {
                let body = include_str!("scripts/interfaces.sh");
                decide(attacker, &ProbeScript::new("network_interfaces", body, &[])).await
            })
        },
    },
    Probe {
        name: "network_connect",
        family: Family::Network,
        tries: "opens TCP connections to gateways of usual virtual networks, a metadata service and a public address",
        breach: "one is connected",
        attempt: |attacker| {
            Box::pin(async move {
                let script =
                    ProbeScript::new("network_connect", include_str!("scripts/connect.sh"), &[]);
                decide(attacker, &script).await
            })
        },
    },
    Probe {
        name: "network_dns",
        family: Family::Network,
        tries: "asks for the address of a name",
        breach: "there is an answer",
        attempt: |attacker| {
            Box::pin(async move {
                let script = ProbeScript::new("network_dns", include_str!("scripts/dns.sh"), &[]);
                decide(attacker, &script).await
            })
        },
    },
];
