//! Warming: tools run before the snapshot is taken ([`WarmTool`]), so that the files that they read are in the memory
//! of every restored guest.
//!
//! A guest that has just booted has its interpreter and libraries only on its disk. If it were snapshotted then, the
//! first tool after each reset would read them from the disk again. A tool that ran before the snapshot has brought
//! them into the guest's page cache, which is part of the snapshot.
//!
//! The guest gives each tool a temporary layer for the files that it writes. Before it reports the result, it removes
//! the layer and ends the processes that the tool left running ([`Extension::Warm`]). The mint does not rely on the
//! guest for that: the digests of the writable disks before the first tool and after the last one must be equal. Before
//! each of the two digests, the guest is told to write its pending data to the disks. The baseline of open descriptors
//! is counted after the last tool.
//!
//! The memory of the layers stays in the snapshot as the guest's free memory, so the snapshot grows by as much as the
//! tools wrote.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::time::{Instant, interval};
use uuid::Uuid;

use super::{MintConfig, MintError, MintStep, SETTLE_INTERVAL};
use crate::golden::Error;
use crate::guest::protocol::{Extension, ToolDispatch, ToolName, ToolOutcomeKind, ToolResult};
use crate::machine::{DiskRole, Machine};
use crate::offload::blocking;
use crate::overlay::{self, AccessPolicy, Digest};
use crate::sanitize::{self, Quoted};

/// How much of a failed tool's output is kept, in characters of each stream.
const TAIL: usize = 2048;

/// A tool that runs in the guest before the snapshot is taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WarmTool {
    /// The tool's name in the guest's list.
    pub tool: ToolName,
    /// The tool's parameters. The manifest records them in plain text, so they must not contain a secret.
    pub params: Value,
    /// How long the tool may run, in milliseconds. This project's dispatcher accepts at most one hour.
    pub deadline_ms: u64,
}

/// How a tool that should warm the guest failed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WarmFailure {
    /// How the tool ended; `None` if the guest's dispatcher does not report it.
    pub outcome: Option<ToolOutcomeKind>,
    /// The tool's exit code, or the code that the guest's dispatcher gives for a tool that did not exit by itself.
    pub exit_code: i32,
    /// The end of the tool's standard output, at most 2,048 characters.
    pub stdout: String,
    /// The end of the tool's standard error or of the dispatcher's message, at most 2,048 characters.
    pub stderr: String,
}

impl WarmFailure {
    /// Returns `None` if the tool succeeded.
    fn of(result: &ToolResult) -> Option<WarmFailure> {
        let outcome = result.details.map(|details| details.outcome);
        let succeeded = result.exit_code == 0
            && outcome.is_none_or(|outcome| outcome == ToolOutcomeKind::Exited);
        (!succeeded).then(|| WarmFailure {
            outcome,
            exit_code: result.exit_code,
            stdout: tail(&result.stdout),
            stderr: tail(&result.stderr),
        })
    }
}

impl fmt::Display for WarmFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.outcome {
            Some(ToolOutcomeKind::DeadlineExceeded) => f.write_str("exceeded its deadline")?,
            Some(ToolOutcomeKind::NoSuchTool) => f.write_str("is not on the guest's list")?,
            Some(ToolOutcomeKind::Refused) => f.write_str("was refused by the guest")?,
            Some(ToolOutcomeKind::GuestFailed) => f.write_str("failed in the guest")?,
            Some(ToolOutcomeKind::Signalled) => f.write_str("was killed by a signal")?,
            Some(ToolOutcomeKind::Exited) | None => {
                write!(f, "ended with the exit code {}", self.exit_code)?;
            }
        }
        for (name, text) in [("stdout", &self.stdout), ("stderr", &self.stderr)] {
            let text = sanitize::lines(text);
            if !text.trim().is_empty() {
                write!(f, "; its {name} ended with:\n{}", Quoted(text.trim_end()))?;
            }
        }
        Ok(())
    }
}

fn tail(text: &str) -> String {
    let skipped = text.chars().count().saturating_sub(TAIL);
    text.chars().skip(skipped).collect()
}

/// Runs the tools and checks that they left nothing on a disk. The guest must have been given `nonce` before.
pub(super) async fn warm(
    machine: &Machine,
    config: &MintConfig,
    nonce: &str,
) -> Result<(), MintError> {
    let can_warm = machine.channel().map(|it| it.announces(Extension::Warm));
    if can_warm != Some(true) {
        let extension = Extension::Warm.name();
        return Err(MintError::CannotWarm { extension });
    }
    let before = rested(machine, config.settle).await?;
    for (at, tool) in config.warm.iter().enumerate() {
        config.progress.begin(MintStep::Warm {
            tool: tool.tool.clone(),
            number: at + 1,
            of: config.warm.len(),
        });
        run(machine, tool).await?;
    }
    // On an imprint the guest writes its pending data to the disks. The nonce stays the same.
    machine.imprint(nonce).await.map_err(MintError::Boot)?;
    for ((role, before), (_, after)) in before.into_iter().zip(digests(machine).await?) {
        if before != after {
            return Err(MintError::WarmLeft {
                role,
                before,
                after,
            });
        }
    }
    Ok(())
}

async fn run(machine: &Machine, warm: &WarmTool) -> Result<(), MintError> {
    let dispatch = ToolDispatch {
        command_id: Uuid::new_v4().to_string(),
        tool: warm.tool.clone(),
        params: warm.params.clone(),
        deadline_ms: warm.deadline_ms,
    };
    let tool = warm.tool.clone();
    let answer = match machine.warm(dispatch).await {
        Ok(answer) => answer,
        Err(source) => {
            let source = Box::new(source);
            return Err(MintError::WarmUnanswered { tool, source });
        }
    };
    match WarmFailure::of(&answer.result) {
        None => Ok(()),
        Some(failure) => Err(MintError::Warm {
            tool,
            failure: Box::new(failure),
        }),
    }
}

/// Returns the digests of the writable disks once they are the same twice in a row. A file system that was just mounted
/// may still write for a while.
async fn rested(machine: &Machine, limit: Duration) -> Result<Vec<(DiskRole, Digest)>, MintError> {
    let deadline = Instant::now() + limit;
    let mut ticks = interval(SETTLE_INTERVAL);
    ticks.tick().await;
    let mut last = digests(machine).await?;
    loop {
        ticks.tick().await;
        let now = digests(machine).await?;
        let changed = last.iter().zip(&now).find(|(last, now)| last != now);
        match changed {
            None => return Ok(now),
            Some(((role, _), _)) if Instant::now() > deadline => {
                let role = *role;
                return Err(MintError::RestlessDisk { role, limit });
            }
            Some(_) => last = now,
        }
    }
}

/// Returns the present digests of the writable disks.
async fn digests(machine: &Machine) -> Result<Vec<(DiskRole, Digest)>, MintError> {
    let mut digests = Vec::new();
    for disk in machine.disks().iter().filter(|disk| !disk.readonly) {
        let role = disk.role;
        let Some(path) = machine.disk_path(role) else {
            continue;
        };
        // The VMM may write to the file, so it is read and not mapped.
        let hashed = blocking(move || overlay::sha256(&path, AccessPolicy::ReadOnly));
        let proof = hashed.await.map_err(Error::Digest);
        digests.push((role, proof.map_err(MintError::Digest)?.digest));
    }
    Ok(digests)
}
