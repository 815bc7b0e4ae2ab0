//! [`probes`]: all probes, with one file for each family.

mod channel;
mod exhaustion;
mod forged;
mod host;
mod markers;
mod network;
mod resets;
mod substrate;
mod time_bomb;

use super::Verdict;
use super::attacker::Attacker;
use super::probe::Probe;
use super::probe_script::ProbeScript;

pub(super) use markers::Rounds;

/// All probes, in the order in which they are tried. Those that exhaust the guest come late, and the check of all
/// resets comes last.
pub fn probes() -> impl Iterator<Item = &'static Probe> {
    [
        markers::PROBES,
        host::PROBES,
        network::PROBES,
        channel::PROBES,
        forged::PROBES,
        time_bomb::PROBES,
        exhaustion::PROBES,
        substrate::PROBES,
        resets::PROBES,
    ]
    .into_iter()
    .flatten()
}

/// Runs a script that decides the verdict alone, and resets.
async fn decide(attacker: &mut Attacker, script: &ProbeScript) -> Verdict {
    let round = match attacker.round(script).await {
        Ok(round) => round,
        Err(trouble) => return Verdict::undecided(&trouble),
    };
    match (script.findings(&round.execution).verdict(), round.reset) {
        (Verdict::Passed { .. }, Err(trouble)) => Verdict::undecided(&trouble),
        (verdict, _) => verdict,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_probe_has_a_name_of_its_own_which_is_no_family() {
        let names: BTreeSet<&str> = probes().map(|probe| probe.name).collect();
        assert_eq!(names.len(), probes().count());
        let families: BTreeSet<&str> = probes().map(|probe| probe.family.name()).collect();
        assert!(names.is_disjoint(&families));
        for probe in probes() {
            assert!(!probe.tries.is_empty() && !probe.breach.is_empty());
        }
    }
}
