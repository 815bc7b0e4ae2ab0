//! Warming: tools that run before the snapshot, so that what they need is in the memory of every guest that is restored.
//!
//! A guest that was booted just now has its interpreter and its libraries on the disk only, and so has every guest that is
//! restored from it: the first tool after each reset reads them anew. A tool that has run before the snapshot has brought them
//! into the guest's page cache, and the snapshot has that.
//!
//! The guest gives each tool a layer of its own for what it writes, and removes it with whatever the tool left running before it
//! tells the result ([`Extension::Warm`]). Here that isn't taken on trust: the bytes of the writable disks before the first tool
//! and after the last have to be the same. Both times the guest has written out what it had to write. The descriptors that are
//! counted as a baseline are those after the last tool.
//!
//! The memory of the layers stays in the snapshot as free memory. It makes the snapshot larger by as much as the tools wrote.

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

/// A tool that runs before the snapshot is taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WarmTool {
    /// Which tool of the guest's list.
    pub tool: ToolName,
    /// Its parameters. They stand in the manifest, so no secret belongs among them.
    pub params: Value,
    /// How long it may run, in milliseconds; a guest of this project takes at most one hour.
    pub deadline_ms: u64,
}

/// How a tool that was to warm the guest failed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WarmFailure {
    /// How it ended; `None` from a guest that doesn't say.
    pub outcome: Option<ToolOutcomeKind>,
    /// Its exit code, or the guest's.
    pub exit_code: i32,
    /// The end of its standard output.
    pub stdout: String,
    /// The end of its standard error, or the guest's own words.
    pub stderr: String,
}

impl WarmFailure {
    /// `None` for a tool that succeeded.
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
                write!(f, "ended with {}", self.exit_code)?;
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

/// Runs the tools, in a guest on which `nonce` was imprinted, and checks that they left nothing on a disk.
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
    // The guest writes out what is still to be written.
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

/// The digests of the writable disks, once they are the same twice in a row: a file system that was mounted just now may
/// still have something to write of its own.
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

/// The digests of the writable disks as they are at the moment.
async fn digests(machine: &Machine) -> Result<Vec<(DiskRole, Digest)>, MintError> {
    let mut digests = Vec::new();
    for disk in machine.disks().iter().filter(|disk| !disk.readonly) {
        let role = disk.role;
        let Some(path) = machine.disk_path(role) else {
            continue;
        };
        // Of a file that the VMM writes to, no mapping is made.
        let hashed = blocking(move || overlay::sha256(&path, AccessPolicy::ReadOnly));
        let proof = hashed.await.map_err(Error::Digest);
        digests.push((role, proof.map_err(MintError::Digest)?.digest));
    }
    Ok(digests)
}
