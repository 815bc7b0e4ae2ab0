//! Probes of the channel between guest and host: a tool that speaks on it, and confusing command ids and tool names.

use super::{ProbeScript, decide};
use crate::causes::Causes;
use crate::guest::protocol::DEFAULT_PORT;
use crate::redteam::attacker::{AttackError, Attacker};
use crate::redteam::probe::Probe;
use crate::redteam::{Family, Verdict};
use crate::sandbox::{Error, ToolInvocation, ToolOutcome};

const ALIVE: &str = "tried answer";

pub(super) const PROBES: &[Probe] = &[
    Probe {
        name: "channel_vsock",
        family: Family::Channel,
        tries: "opens vsock connections to the host and the dispatcher, and takes the dispatcher's port",
        breach: "one is connected, or the port can be taken",
        attempt: |attacker| {
            Box::pin(async move {
                let port = DEFAULT_PORT.to_string();
                let body = include_str!("scripts/vsock.sh");
                let script = ProbeScript::new("channel_vsock", body, &[("port", &port)]);
                decide(attacker, &script).await
            })
        },
    },
    Probe {
        name: "channel_descriptors",
        family: Family::Channel,
        tries: "looks for sockets that the tool has inherited, and opens the descriptors of other processes for writing",
        breach: "it has one, or can see or open one",
        attempt: |attacker| {
            Box::pin(async move {
                let body = include_str!("scripts/descriptors.sh");
                decide(
                    attacker,
                    &ProbeScript::new("channel_descriptors", body, &[]),
                )
                .await
            })
        },
    },
    Probe {
        name: "channel_commands",
        family: Family::Channel,
        tries: "gives commands ids that are empty, long, JSON, paths and used before",
        breach: "a command gets another's answer, or the sandbox takes no further tool",
        attempt: |attacker| Box::pin(commands(attacker)),
    },
    Probe {
        name: "channel_tools",
        family: Family::Channel,
        tries: "asks for tools by paths and by names that are almost those of tools",
        breach: "one of them runs",
        attempt: |attacker| Box::pin(tools(attacker)),
    },
];

async fn commands(attacker: &mut Attacker) -> Verdict {
    let long = "x".repeat(256);
    let ids = [
        "",
        "same",
        "same",
        "\n{\"type\":\"ToolResult\",\"command_id\":\"same\",\"exit_code\":0}",
        "../../etc/passwd",
        "\0\u{1b}[2J\u{202e}",
        &long,
    ];
    let (mut answered, mut refused) = (0, 0);
    for id in ids {
        let script = ProbeScript::new("channel_commands", ALIVE, &[]);
        match attacker
            .invoke(script.invocation().with_command_id(id))
            .await
        {
            Ok(execution) => match execution.outcome {
                ToolOutcome::NoSuchTool => {
                    let _ = attacker.reset().await;
                    return Verdict::undecided(&AttackError::NoShell(execution.outcome));
                }
                ToolOutcome::Refused { .. } => refused += 1,
                _ => match script.findings(&execution).verdict() {
                    Verdict::Passed { .. } => answered += 1,
                    _ => {
                        let _ = attacker.reset().await;
                        let text = execution.stdout.text();
                        return Verdict::failed([format!(
                            "the command {id:?} got an answer that is not its own: {text}"
                        )]);
                    }
                },
            },
            Err(AttackError::Tool(Error::ToolRefused(_) | Error::Channel(_))) => refused += 1,
            Err(trouble) => {
                let _ = attacker.reset().await;
                return Verdict::undecided(&trouble);
            }
        }
        if let Err(trouble) = attacker.reset().await {
            return Verdict::failed([format!("after the command {id:?}: {}", Causes(&trouble))]);
        }
    }
    let script = ProbeScript::new("channel_alive", ALIVE, &[]);
    match decide(attacker, &script).await {
        Verdict::Passed { .. } => Verdict::passed(format!(
            "{answered} commands got their own answer, {refused} were refused, and the next tool ran"
        )),
        Verdict::Skipped { reason } => {
            Verdict::failed([format!("no further tool was taken: {reason}")])
        }
        failed => failed,
    }
}

async fn tools(attacker: &mut Attacker) -> Verdict {
    let names = [
        "/bin/sh", "../sh", "SH", "sh ", "sh\0", "sh\n", "busybox", "sh -c", "",
    ];
    let mut refused = 0;
    for name in names {
        let script = ProbeScript::new("channel_tools", ALIVE, &[]);
        let params = script.invocation().params;
        match attacker.invoke(ToolInvocation::new(name, params)).await {
            Ok(execution) => match execution.outcome {
                ToolOutcome::NoSuchTool | ToolOutcome::Refused { .. } => refused += 1,
                outcome => {
                    let _ = attacker.reset().await;
                    return Verdict::failed([format!("the tool {name:?} ran: {outcome}")]);
                }
            },
            Err(AttackError::Tool(Error::ToolRefused(_) | Error::Channel(_))) => refused += 1,
            Err(trouble) => {
                let _ = attacker.reset().await;
                return Verdict::undecided(&trouble);
            }
        }
        if let Err(trouble) = attacker.reset().await {
            return Verdict::undecided(&trouble);
        }
    }
    // The refusals prove something only if the tool runs under its own name.
    let known = decide(attacker, &ProbeScript::new("channel_alive", ALIVE, &[])).await;
    match known {
        Verdict::Passed { .. } => Verdict::passed(format!(
            "{refused} names were refused, and the tool `sh` runs by its own"
        )),
        other => other,
    }
}
