//! Probes of processes that act after their tool has ended, and after the reset.

use uuid::Uuid;

use super::{ProbeScript, decide};
use crate::redteam::attacker::Attacker;
use crate::redteam::probe::Probe;
use crate::redteam::{Family, Verdict};

const LATE_OUTPUT: &str = include_str!("scripts/late_output.sh");

/// Gives a process that was left behind the time to write.
const WAIT: &str = "sleep 2\ntried wait";

pub(super) const PROBES: &[Probe] = &[
    Probe {
        name: "time_bomb_process",
        family: Family::TimeBomb,
        tries: "leaves a process in a session of its own that ignores signals, and resets",
        breach: "it has acted, or acts, in the dispatch after the reset",
        attempt: |attacker| Box::pin(process(attacker)),
    },
    Probe {
        name: "time_bomb_output",
        family: Family::TimeBomb,
        tries: "leaves a process that goes on writing to the outputs of its tool, and resets",
        breach: "the next tool's output has something of it",
        attempt: |attacker| Box::pin(output(attacker)),
    },
];

async fn process(attacker: &mut Attacker) -> Verdict {
    let bomb = ProbeScript::new("time_bomb_process", include_str!("scripts/bomb.sh"), &[]);
    match decide(attacker, &bomb).await {
        Verdict::Passed { .. } => {}
        verdict => return verdict,
    }
    let body = include_str!("scripts/bomb_look.sh");
    decide(attacker, &ProbeScript::new("time_bomb_look", body, &[])).await
}

async fn output(attacker: &mut Attacker) -> Verdict {
    let late = format!("late-{}", Uuid::new_v4().simple());
    let bomb = ProbeScript::new("time_bomb_output", LATE_OUTPUT, &[("late", &late)]);
    // The process keeps its tool's outputs open, so the guest may wait for it until the deadline.
    let first = match attacker.dispatch(&bomb).await {
        Ok(execution) => bomb.findings(&execution).tried,
        Err(trouble) => return Verdict::undecided(&trouble),
    };
    if let Err(trouble) = attacker.reset().await {
        return Verdict::undecided(&trouble);
    }
    if first.is_empty() {
        return Verdict::skipped("the process did not begin");
    }
    let wait = ProbeScript::new("time_bomb_wait", WAIT, &[]);
    let round = match attacker.round(&wait).await {
        Ok(round) => round,
        Err(trouble) => return Verdict::undecided(&trouble),
    };
    let written = [&round.execution.stdout, &round.execution.stderr];
    if written.iter().any(|output| output.text().contains(&late)) {
        return Verdict::failed([format!(
            "the output of the next tool has {late}, which the tool before the reset writes"
        )]);
    }
    match (wait.findings(&round.execution).verdict(), round.reset) {
        (Verdict::Passed { .. }, Ok(())) => {
            Verdict::passed("the output of the next tool has nothing of the one before the reset")
        }
        (Verdict::Passed { .. }, Err(trouble)) => Verdict::undecided(&trouble),
        (verdict, _) => verdict,
    }
}
