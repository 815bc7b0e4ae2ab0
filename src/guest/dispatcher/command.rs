//! One command, from its dispatch to its result.

use std::io;
use std::time::Duration;

use super::evidence::{Ending, Evidence};
use super::run::{self, Outcome};
use super::toolbox::Refused;
use super::{MAX_DEADLINE_MS, Shared};
use crate::causes::Causes;
use crate::guest::frame::LengthError;
use crate::guest::protocol::{ToolDispatch, ToolOutcomeKind};

impl Shared {
    /// Runs a tool to its end and makes the frames that say so, `detailed` or not. Those that the host gets before go to
    /// `send`, which knows what to do when they can't be sent.
    pub(super) fn run(
        &self,
        dispatch: &ToolDispatch,
        detailed: bool,
        mut send: impl FnMut(&[u8]),
    ) -> Result<Vec<u8>, LengthError> {
        let mut evidence = Evidence::new(&dispatch.command_id, detailed);
        let line = match self
            .toolbox
            .command_line(dispatch.tool.as_str(), &dispatch.params)
        {
            Ok(line) => line,
            Err(Refused::UnknownTool) => {
                let reason = format!("the tool {:?} is not known", dispatch.tool.as_str());
                return evidence.refuse(ToolOutcomeKind::NoSuchTool, reason);
            }
            Err(Refused::Params(reason)) => {
                return evidence.refuse(ToolOutcomeKind::Refused, reason);
            }
        };
        if dispatch.deadline_ms > MAX_DEADLINE_MS {
            let reason = format!("the deadline is above {MAX_DEADLINE_MS} ms");
            return evidence.refuse(ToolOutcomeKind::Refused, reason);
        }
        let deadline = Duration::from_millis(dispatch.deadline_ms);
        let (outcome, mut output) = run::run(&line, deadline, &self.confinement, |stdout| {
            if let Some(frames) = evidence.grown(stdout)? {
                send(&frames);
            }
            Ok(())
        });
        self.sync();
        let ending = match outcome {
            Outcome::Exited(code) => Ending::exited(code),
            Outcome::Signalled(signal) => Ending::signalled(signal),
            Outcome::DeadlineExceeded => {
                output.stderr.replace("deadline_exceeded".to_owned());
                Ending::of_guest(ToolOutcomeKind::DeadlineExceeded)
            }
            Outcome::Failed(error) => {
                let reason = format!("{} could not be run: {error}", line.program);
                output.stderr.replace(reason);
                Ending::of_guest(ToolOutcomeKind::GuestFailed)
            }
        };
        evidence.finish(ending, output)
    }

    /// Brings what the tools wrote to the disk, where the host's digest finds it: before the host knows that a tool has
    /// ended, and before a snapshot.
    pub(super) fn sync(&self) {
        let Some(root) = &self.synced else { return };
        let synced: io::Result<()> =
            std::fs::File::open(root).and_then(|root| Ok(rustix::fs::syncfs(&root)?));
        if let Err(error) = synced {
            tracing::warn!(error = %Causes(&error), "the tools' file system could not be synced");
        }
    }
}
