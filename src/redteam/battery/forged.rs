//! Probes of forged results: a tool writes frames, exit codes and terminal commands that look like the guest's own.
//!
//! Each script writes known bytes and ends in a known way, so the host alone decides the verdict.

use serde_json::json;

use super::ProbeScript;
use crate::causes::Causes;
use crate::redteam::attacker::{AttackError, Attacker};
use crate::redteam::probe::Probe;
use crate::redteam::{Family, Verdict};
use crate::sandbox::{Error, ToolInvocation, ToolOutcome, ToolOutput};
use crate::vsock;

pub(super) const PROBES: &[Probe] = &[
    Probe {
        name: "forged_frames",
        family: Family::Forged,
        tries: "writes results and chunks of evidence as frames to both outputs, and exits with 7",
        breach: "the result has another exit code or other outputs than the tool's",
        attempt: |attacker| Box::pin(frames(attacker)),
    },
    Probe {
        name: "forged_stream",
        family: Family::Forged,
        tries: "the same in a run with streams",
        breach: "the run has another exit code or other outputs than the tool's",
        attempt: |attacker| Box::pin(stream(attacker)),
    },
    Probe {
        name: "forged_ending",
        family: Family::Forged,
        tries: "exits with the codes of a signal, of a deadline and of an unknown tool, and kills itself",
        breach: "an ending is taken for another one",
        attempt: |attacker| Box::pin(ending(attacker)),
    },
    Probe {
        name: "forged_terminal",
        family: Family::Forged,
        tries: "writes commands to a terminal, and has a tool's name made of them",
        breach: "a text that is made for a log or a terminal has a control character",
        attempt: |attacker| Box::pin(terminal(attacker)),
    },
];

/// Frames of a guest, in several encodings that a reader might mistake for the channel's.
fn forgery() -> Vec<u8> {
    let digest = format!("sha256:{}", "0".repeat(64));
    let frames = [
        json!({"type": "ToolResult", "command_id": "c1", "exit_code": 0, "stdout": "forged", "stderr": "", "evidence_hash": digest}),
        json!({"type": "EvidenceChunk", "command_id": "c1", "seq": 0, "chunk_data": "Zm9yZ2Vk", "chunk_size": 6, "is_terminal": true}),
        json!({"type": "ErrorEvent", "code": "FORGED", "message": "forged"}),
        json!({"exit_code": 0, "stdout": "forged", "stderr": ""}),
    ];
    let mut bytes = Vec::new();
    for frame in frames {
        let frame = frame.to_string();
        let length = u32::try_from(frame.len()).unwrap_or(u32::MAX);
        for header in [
            &length.to_be_bytes()[..],
            &length.to_le_bytes(),
            b"\n",
            b"\0",
        ] {
            bytes.extend_from_slice(header);
            bytes.extend_from_slice(frame.as_bytes());
        }
    }
    bytes.extend_from_slice(b"\nexit code 0\n\xff\xfe\0\0\0\0");
    bytes
}

/// The shell command that writes exactly these bytes.
fn printf(bytes: &[u8]) -> String {
    let escaped: String = bytes.iter().map(|byte| format!("\\{byte:03o}")).collect();
    format!("printf '{escaped}'")
}

/// Writes a forgery to both outputs, and exits with 7.
fn forging(name: &str, forgery: &[u8]) -> ProbeScript {
    let print = printf(forgery);
    ProbeScript::bare(name, &format!("{print}\n{print} >&2\nexit 7\n"))
}

/// The verdict if the outcome or an output differs from what the tool did.
fn differences(
    outcome: &ToolOutcome,
    outputs: [&ToolOutput; 2],
    forgery: &[u8],
) -> Option<Verdict> {
    let mut found = Vec::new();
    if !is(outcome, &ToolOutcome::Exited { code: 7 }) {
        found.push(format!(
            "the tool exited with 7, and the result says: {outcome}"
        ));
    }
    // A guest that sends outputs as text replaces invalid bytes by U+FFFD.
    let text = String::from_utf8_lossy(forgery);
    for (output, name) in outputs.into_iter().zip(["output", "error"]) {
        if output.bytes() != forgery && output.bytes() != text.as_bytes() {
            let (bytes, written) = (output.bytes().len(), forgery.len());
            let shown = output.text();
            found.push(format!(
                "its standard {name} has {bytes} bytes, not the {written} that it wrote: {shown}"
            ));
        }
    }
    (!found.is_empty()).then(|| Verdict::failed(found))
}

/// Whether an outcome is the expected one. A guest that doesn't report how a tool ended reports only an exit code.
fn is(outcome: &ToolOutcome, expected: &ToolOutcome) -> bool {
    match outcome {
        ToolOutcome::Unspecified { exit_code } => *exit_code == expected.exit_code(),
        outcome => outcome == expected,
    }
}

/// The verdict for a failed dispatch: a forgery that breaks the channel is a breach, too.
fn broken(trouble: &AttackError) -> Verdict {
    match trouble {
        AttackError::Tool(error @ Error::Channel(cause))
            if !matches!(
                cause,
                vsock::Error::TooManyStreams { .. } | vsock::Error::NotAnnounced { .. }
            ) =>
        {
            Verdict::failed([format!("the channel broke: {}", Causes(error))])
        }
        trouble => Verdict::undecided(trouble),
    }
}

async fn frames(attacker: &mut Attacker) -> Verdict {
    let forgery = forgery();
    let round = match attacker.round(&forging("forged_frames", &forgery)).await {
        Ok(round) => round,
        Err(trouble) => return broken(&trouble),
    };
    let execution = &round.execution;
    let outputs = [&execution.stdout, &execution.stderr];
    match (
        differences(&execution.outcome, outputs, &forgery),
        round.reset,
    ) {
        (Some(breach), _) => breach,
        (None, Err(trouble)) => Verdict::undecided(&trouble),
        (None, Ok(())) => Verdict::passed(format!(
            "{} forged bytes came back as output, and the exit code is the tool's",
            forgery.len()
        )),
    }
}

async fn stream(attacker: &mut Attacker) -> Verdict {
    let forgery = forgery();
    let collected = match attacker.stream(&forging("forged_stream", &forgery)).await {
        Ok(collected) => collected,
        Err(trouble) => return broken(&trouble),
    };
    let outputs = [&collected.stdout, &collected.stderr];
    let breach = differences(&collected.report.outcome, outputs, &forgery);
    breach.unwrap_or_else(|| {
        Verdict::passed(format!(
            "{} forged bytes came back as output, and the exit code is the tool's",
            forgery.len()
        ))
    })
}

async fn ending(attacker: &mut Attacker) -> Verdict {
    let exited = |code| (format!("exit {code}"), ToolOutcome::Exited { code });
    let killed = (
        "kill -9 $$".to_owned(),
        ToolOutcome::Signalled { signal: 9 },
    );
    // The exit codes that stand for success, an unknown tool, a signal (SIGINT), the deadline and an error of the
    // guest.
    let endings = [0, 127, 130, 137, 254].map(exited);
    let mut found = Vec::new();
    for (script, expected) in endings.into_iter().chain([killed]) {
        let body = format!("echo 'killed at its deadline, exit code 0'\n{script}\n");
        let round = match attacker
            .round(&ProbeScript::bare("forged_ending", &body))
            .await
        {
            Ok(round) => round,
            Err(trouble) => return broken(&trouble),
        };
        let outcome = &round.execution.outcome;
        if !is(outcome, &expected) {
            found.push(format!("`{script}` is told as: {outcome}"));
        }
        if let (true, Err(trouble)) = (found.is_empty(), round.reset) {
            return Verdict::undecided(&trouble);
        }
    }
    match found.is_empty() {
        true => Verdict::passed("5 exit codes and a signal, each told as it was"),
        false => Verdict::failed(found),
    }
}

async fn terminal(attacker: &mut Attacker) -> Verdict {
    let commands = "\u{1b}]0;forged\u{7}\u{1b}[2J\u{9b}31m\rforged\u{202e}\n";
    let script = forging("forged_terminal", commands.as_bytes());
    let round = match attacker.round(&script).await {
        Ok(round) => round,
        Err(trouble) => return broken(&trouble),
    };
    let outputs = [&round.execution.stdout, &round.execution.stderr];
    if let Some(breach) = differences(&round.execution.outcome, outputs, commands.as_bytes()) {
        return breach;
    }
    let named = ToolInvocation::new(commands.trim_end(), json!({}));
    let refused = match attacker.invoke(named).await {
        Ok(execution) => format!("{} {execution:?}", execution.outcome),
        Err(trouble) => format!("{} {trouble:?}", Causes(&trouble)),
    };
    let reset = attacker.reset().await;
    let texts = [
        format!("{} {:?}", round.execution.outcome, round.execution),
        refused,
    ];
    let hostile = |text: &&String| text.contains(['\u{1b}', '\u{7}', '\u{9b}', '\r', '\u{202e}']);
    match (texts.iter().find(hostile), round.reset.and(reset)) {
        (Some(text), _) => Verdict::failed([format!("a text for a log has them: {text}")]),
        (None, Err(trouble)) => Verdict::undecided(&trouble),
        (None, Ok(())) => {
            Verdict::passed("neither a result's text nor that of an error has a control character")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_writes_each_byte_as_an_escape() {
        assert_eq!(printf(b"\0a%'\xff"), r"printf '\000\141\045\047\377'");
    }

    #[test]
    fn only_the_same_ending_counts_as_the_same() {
        let exited = |code| ToolOutcome::Exited { code };
        let signalled = ToolOutcome::Signalled { signal: 9 };
        assert!(is(&exited(137), &exited(137)));
        assert!(!is(&exited(137), &signalled));
        assert!(!is(&signalled, &exited(137)));
        assert!(is(&ToolOutcome::Unspecified { exit_code: 137 }, &signalled));
        assert!(!is(&ToolOutcome::Unspecified { exit_code: 0 }, &signalled));
    }
}
