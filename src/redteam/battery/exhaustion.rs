//! Probes that exhaust memory, processes, disk and output. A tool may be killed for it, but the sandbox must be usable
//! after a reset.

use super::ProbeScript;
use crate::causes::Causes;
use crate::guest::protocol::MAX_OUTPUT;
use crate::redteam::attacker::{AttackError, Attacker};
use crate::redteam::probe::Probe;
use crate::redteam::{Family, Verdict};
use crate::sandbox::{Error, ToolExecution};

const AFTER: &str = include_str!("scripts/after.sh");

/// Far more than a host keeps of a tool's output.
const OUTPUT: &str = "tried output\nhead -c 67108864 /dev/zero | tr '\\0' x";

pub(super) const PROBES: &[Probe] = &[
    Probe {
        name: "exhaust_memory",
        family: Family::Exhaustion,
        tries: "holds more memory than the guest has",
        breach: "it can, or the sandbox is not reset, or a plain tool does not run after that",
        attempt: |attacker| {
            let body = include_str!("scripts/memory.sh");
            Box::pin(flood(attacker, "exhaust_memory", body))
        },
    },
    Probe {
        name: "exhaust_processes",
        family: Family::Exhaustion,
        tries: "starts 4,096 processes",
        breach: "it can, or the sandbox is not reset, or a plain tool does not run after that",
        attempt: |attacker| {
            let body = include_str!("scripts/processes.sh");
            Box::pin(flood(attacker, "exhaust_processes", body))
        },
    },
    Probe {
        name: "exhaust_disk",
        family: Family::Exhaustion,
        tries: "writes files until there is no space left",
        breach: "the sandbox is not reset, or a plain tool finds the files or can't write after that",
        attempt: |attacker| {
            let body = include_str!("scripts/disk.sh");
            Box::pin(flood(attacker, "exhaust_disk", body))
        },
    },
    Probe {
        name: "exhaust_output",
        family: Family::Exhaustion,
        tries: "writes 64 MiB to the standard output",
        breach: "the host keeps more than 1 MiB, the sandbox is not reset, or a plain tool does not run after that",
        attempt: |attacker| Box::pin(flood(attacker, "exhaust_output", OUTPUT)),
    },
];

async fn flood(attacker: &mut Attacker, name: &str, body: &str) -> Verdict {
    let script = ProbeScript::new(name, body, &[]);
    let ended = match attacker.dispatch(&script).await {
        Ok(execution) => judge(&script, &execution),
        // A tool that exhausts the guest may give no answer.
        Err(AttackError::Tool(error @ (Error::ToolTimeout { .. } | Error::Channel(_)))) => {
            Ok(format!("the tool gave no answer: {}", Causes(&error)))
        }
        Err(trouble) => {
            let _ = attacker.reset().await;
            return Verdict::undecided(&trouble);
        }
    };
    if let Err(trouble) = attacker.reset().await {
        return Verdict::failed([format!("after it: {}", Causes(&trouble))]);
    }
    let ended = match ended {
        Ok(ended) => ended,
        Err(verdict) => return verdict,
    };
    let after = ProbeScript::new("after", AFTER, &[]);
    match attacker.round(&after).await {
        Err(trouble) => Verdict::failed([format!("a plain tool after it: {}", Causes(&trouble))]),
        Ok(round) => match after.findings(&round.execution).verdict() {
            Verdict::Passed { .. } => match round.reset {
                Ok(()) => Verdict::passed(format!(
                    "{ended}; after the reset a plain tool ran and wrote"
                )),
                Err(trouble) => Verdict::undecided(&trouble),
            },
            Verdict::Skipped { reason } => {
                Verdict::failed([format!("a plain tool after it: {reason}")])
            }
            failed => failed,
        },
    }
}

/// How the exhausting tool ended, or the verdict if that decides it.
fn judge(script: &ProbeScript, execution: &ToolExecution) -> Result<String, Verdict> {
    for output in [&execution.stdout, &execution.stderr] {
        let kept = output.bytes().len();
        if kept > MAX_OUTPUT {
            let evidence = format!("{kept} bytes of an output were kept");
            return Err(Verdict::failed([evidence]));
        }
    }
    let findings = script.findings(execution);
    if !findings.breaches.is_empty() || !findings.cannot.is_empty() {
        return Err(findings.verdict());
    }
    match findings.tried.is_empty() {
        true => Err(Verdict::skipped(findings.unfinished())),
        false => Ok(format!("the tool ended: {}", execution.outcome)),
    }
}
