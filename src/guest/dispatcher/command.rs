//! Runs the tool of one [`ToolDispatch`], from the dispatch to its result.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::capture::Output;
use super::confinement::{Prepared, StartError};
use super::evidence::{Ending, Evidence};
use super::running::{Ended, Running};
use super::toolbox::{Call, Refused, RunOptions};
use super::{MAX_DEADLINE_MS, Shared};
use crate::causes::Causes;
use crate::guest::frame::LengthError;
use crate::guest::protocol::{ToolDispatch, ToolName, ToolOutcomeKind};

/// Where the files that a tool writes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WriteTarget {
    /// To the disk that the host hashes.
    Disk,
    /// To a [layer](super::throwaway) in memory, which is removed before the host gets the result.
    Throwaway,
}

impl Shared {
    /// Runs a tool to its end. Returns the frames that are sent at its end: the last chunks and the result, with
    /// [`ResultDetails`](crate::guest::protocol::ResultDetails) if `detailed`. Chunks that are sent while the tool runs
    /// go to `send`, which handles its own errors.
    pub(super) fn run(
        &self,
        dispatch: &ToolDispatch,
        target: WriteTarget,
        detailed: bool,
        mut send: impl FnMut(&[u8]),
    ) -> Result<Vec<u8>, LengthError> {
        let mut evidence = Evidence::new(&dispatch.command_id, detailed);
        let call = match self.call(
            &dispatch.tool,
            &dispatch.params,
            &RunOptions::default(),
            dispatch.deadline_ms,
        ) {
            Ok(call) => call,
            Err(Refused::UnknownTool) => {
                let reason = format!("the tool {:?} is not known", dispatch.tool.as_str());
                return evidence.refuse(ToolOutcomeKind::NoSuchTool, reason);
            }
            Err(Refused::Because(reason)) => {
                return evidence.refuse(ToolOutcomeKind::Refused, reason);
            }
        };
        let deadline = Instant::now() + Duration::from_millis(dispatch.deadline_ms);
        let mut output = Output::default();
        let mut follow =
            |confinement: &Arc<Prepared>| match Running::start(&call, deadline, confinement) {
                Ok(tool) => output.follow(tool, deadline, |stdout| {
                    if let Some(frames) = evidence.grown(stdout)? {
                        send(&frames);
                    }
                    Ok(())
                }),
                Err(StartError::Directory(error) | StartError::Other(error)) => Err(error),
            };
        let ended = match target {
            WriteTarget::Disk => follow(&self.confinement),
            WriteTarget::Throwaway => self.on_throwaway_layer(follow),
        };
        self.sync();
        let ending = match ended {
            Ok(Some(Ended::Exited(code))) => Ending::exited(code.into()),
            Ok(Some(Ended::Signalled(signal))) => Ending::signalled(signal.into()),
            Ok(None) => {
                output.stderr.replace("deadline_exceeded".to_owned());
                Ending::of_guest(ToolOutcomeKind::DeadlineExceeded)
            }
            Err(error) => {
                let reason = format!("{} could not be run: {error}", call.name());
                output.stderr.replace(reason);
                Ending::of_guest(ToolOutcomeKind::GuestFailed)
            }
        };
        evidence.finish(ending, output)
    }

    /// The call that a host's request asks for, if the toolbox and the deadline allow it.
    pub(super) fn call(
        &self,
        tool: &ToolName,
        params: &Value,
        wishes: &RunOptions<'_>,
        deadline_ms: u64,
    ) -> Result<Call, Refused> {
        let call = self.toolbox.call(tool.as_str(), params, wishes)?;
        match deadline_ms <= MAX_DEADLINE_MS {
            true => Ok(call),
            false => Err(Refused::Because(format!(
                "the deadline is above {MAX_DEADLINE_MS} ms"
            ))),
        }
    }

    /// Syncs the tools' file system. This is done before the host learns that a tool has ended, and before a snapshot,
    /// so that the disk, which the host digests, has everything that the tools wrote.
    pub(super) fn sync(&self) {
        let Some(root) = &self.root else { return };
        let synced: io::Result<()> =
            std::fs::File::open(root).and_then(|root| Ok(rustix::fs::syncfs(&root)?));
        if let Err(error) = synced {
            tracing::warn!(error = %Causes(&error), "the tools' file system could not be synced");
        }
    }
}
