//! The probe that checks the resets of all other probes.

use crate::redteam::attacker::Attacker;
use crate::redteam::probe::Probe;
use crate::redteam::{Family, ResetCounts, Verdict};

pub(super) const PROBES: &[Probe] = &[Probe {
    name: "every_reset",
    family: Family::Resets,
    tries: "counts the resets of the probes before it",
    breach: "one failed although nothing was tampered with",
    attempt: |attacker| Box::pin(std::future::ready(every_reset(attacker))),
}];

fn every_reset(attacker: &Attacker) -> Verdict {
    let ResetCounts {
        verified,
        unverified,
        failed,
    } = attacker.resets;
    if failed > 0 {
        let total = verified + unverified + failed;
        let count = format!("{failed} of {total} resets failed");
        return Verdict::failed([count].iter().chain(&attacker.failures));
    }
    match (verified, unverified) {
        (0, 0) => Verdict::skipped("no reset was made"),
        (_, 0) => Verdict::passed(format!(
            "{verified} resets were made, and each was verified"
        )),
        _ => Verdict::skipped(format!(
            "{unverified} resets were made and not verified: there are no baselines"
        )),
    }
}
