//! [`Event`]: what the subscribers of a sandbox or a pool get.

mod json;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::transfer::TransferEnded;
use super::{Error, ResetOutcome, SandboxState, StreamEvidence, ToolOutcome};
use crate::broadcast::Weight;
use crate::causes::Causes;
use crate::client::MonitorEvent;
use crate::vsock::ChannelEventKind;
use crate::{vmm, vsock};

/// Something that happened in a sandbox or a pool. See [`Sandbox::subscribe`](super::Sandbox::subscribe) and
/// [`Pool::subscribe`](super::Pool::subscribe).
///
/// `Display` and `Debug` show an event as one line of text, and an error in it with its whole chain of causes. Apart
/// from what an error quotes, the line has nothing that the guest wrote.
///
/// `Serialize` makes one JSON object for an audit log. Its field `event` is the event's name in snake case, such as
/// `tool_ended`. A frame of the guest appears with its type and its channel, a tool with its outcome: neither the
/// parameters of a tool nor its output is shown. Later versions may add fields and events.
///
/// | `event` | other fields |
/// |---|---|
/// | `state` | `state` ([`WireState`](super::WireState)); `needs_reset` ([`ResetReason`](super::ResetReason)), `error`, or `halted`: true |
/// | `reset` | `verdict` ([`ResetVerdict`](super::ResetVerdict)), `state` ([`ResetState`](super::ResetState)), `report` ([`ResetReport`](super::ResetReport)) |
/// | `channel` | `channel` (its number), `kind` (`frame`, `late_arrival`, `guest_error` or `closed`), `detail` (a frame's type or a code) |
/// | `tool_started` | `command_id`, `tool` |
/// | `tool_ended` | `command_id`, `took_us`; `outcome` and `exit_code`, or `error`; of a run with streams also `stdout_total`, `stderr_total`, `cut`, `to_guest_hash`, `to_host_hash` |
/// | `files_pushed`, `files_pulled` | `transfer_id`, `path`, `took_us`; `entries`, `bytes` and `sha256`, or `error` |
/// | `confinement` | `layers` ([`LayerReport`](crate::vmm::LayerReport)s) |
/// | `vmm` | `source`, `name` |
/// | `vmm_ended`, `spare_ended` | `pid`, `exit` |
/// | `acquired`, `released` | `sandbox` (its number in the pool) |
/// | `spare_ready`, `golden_changed` | - |
/// | `spare_failed`, `spare_refused`, `vmm_replaced` | `error` |
/// | `evidence_kept` | `folder` |
/// | `lost` | `source`, `count` |
///
/// An `error` has a `code` ([codes](Error#codes)) and a `message` with the whole chain of causes. Times are in
/// microseconds.
///
/// ```
/// use chv_sandbox::sandbox::Event;
///
/// let line = serde_json::to_string(&Event::Acquired { sandbox: 7 })?;
/// assert_eq!(line, r#"{"event":"acquired","sandbox":7}"#);
/// # Ok::<_, serde_json::Error>(())
/// ```
///
/// An audit writes each event as it comes:
///
/// ```
/// use chv_sandbox::broadcast::{Receiver, RecvError};
/// use chv_sandbox::sandbox::Event;
///
/// // Takes what `subscribe` returned, and not the sandbox: the events end when the sandbox is dropped.
/// async fn audit(mut events: Receiver<Event>) -> serde_json::Result<()> {
///     loop {
///         match events.recv().await {
///             Ok(event) => println!("{}", serde_json::to_string(&event)?),
///             Err(RecvError::Lagged(count)) => eprintln!("{count} events were lost"),
///             Err(RecvError::Closed) => return Ok(()),
///         }
///     }
/// }
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub enum Event {
    /// The sandbox's state changed to this one.
    State(SandboxState),
    /// A reset was made. Its [verdict](ResetOutcome::verdict) says whether it was verified.
    Reset(Arc<ResetOutcome>),
    /// The guest sent a frame, answered a request too late, or reported an error; or a channel was closed.
    Channel(vsock::ChannelEvent),
    /// A tool was begun: it is sent to the guest next.
    ToolStarted {
        /// The command id of the invocation.
        command_id: String,
        /// The tool's name.
        tool: String,
    },
    /// A tool has ended, or its caller stopped waiting for it.
    ToolEnded {
        /// The command id of the invocation.
        command_id: String,
        /// How the tool ended, or why that isn't known. [`NeedsReset`](Error::NeedsReset) if the caller stopped
        /// waiting.
        result: Result<ToolOutcome, Error>,
        /// From the start of the tool to this event.
        took: Duration,
        /// The byte counts and the evidence of a run with streams that has ended. `None` of other tools.
        evidence: Option<StreamEvidence>,
    },
    /// A [push](super::Sandbox::push) has ended, with success or not.
    FilesPushed(TransferEnded),
    /// A [pull](super::Sandbox::pull) has ended, with success or not.
    FilesPulled(TransferEnded),
    /// A boot has started a VMM with these layers of confinement.
    Confinement(Vec<vmm::LayerReport>),
    /// An event of the VMM's event monitor. It is the VMM's own claim, so no state follows from it.
    Vmm(MonitorEvent),
    /// The process of the VMM that served has ended by itself.
    VmmEnded(vmm::Ended),
    /// A pool handed out a sandbox.
    Acquired {
        /// The sandbox's number in the pool.
        sandbox: u64,
    },
    /// A sandbox was given back to its pool, which resets or discards it.
    Released {
        /// The sandbox's number in the pool.
        sandbox: u64,
    },
    /// A spare was prepared and waits for a reset.
    SpareReady,
    /// A spare could not be prepared. The preparation is repeated after a pause. A reset that finds no spare starts a
    /// VMM itself.
    SpareFailed(Error),
    /// The VMM of a spare ended while it waited. Another spare is prepared.
    SpareEnded(vmm::Ended),
    /// A spare has changed since it was prepared, or could not be resumed. It is killed, and the reset goes on without
    /// it.
    SpareRefused(Error),
    /// With the strategy [`InPlace`](super::Strategy::InPlace), the VMM gave no answer in time. It was killed with its
    /// guest, and a new VMM takes its place.
    VmmReplaced(Error),
    /// A disk of the golden snapshot that the VM still reads was opened for writing, changed or replaced on the host.
    /// The sandbox takes no tool until it is reset.
    GoldenChanged,
    /// The evidence of an unverified reset was stored in this directory.
    EvidenceKept(std::path::PathBuf),
    /// Events came faster than they could be passed on, or held too many bytes, and were dropped.
    Lost {
        /// Where the events came from: `vmm` or `channel`; `sandbox` from an iterator of [`blocking`](crate::blocking).
        source: &'static str,
        /// The number of dropped events.
        count: u64,
    },
}

impl Weight for Event {
    fn weight(&self) -> usize {
        let held = match self {
            Event::Channel(event) => event.weight(),
            Event::Vmm(event) => event.weight(),
            Event::VmmEnded(ended) | Event::SpareEnded(ended) => ended.log_tail.len(),
            Event::ToolStarted { command_id, tool } => command_id.len() + tool.len(),
            Event::ToolEnded {
                command_id,
                evidence,
                ..
            } => {
                let links = evidence
                    .as_ref()
                    .map_or(0, |it| it.to_guest_hash.len() + it.to_host_hash.len());
                command_id.len() + links
            }
            Event::FilesPushed(moved) | Event::FilesPulled(moved) => moved.path.len(),
            // This process made the other events itself. They hold some KiB at most.
            _ => 0,
        };
        size_of::<Event>() + held
    }
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Event({self})")
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::State(SandboxState::Failed { error }) => {
                write!(f, "state failed: {}", Causes(error))
            }
            Event::State(SandboxState::NeedsReset { reason }) => {
                write!(f, "state ready, no tool until a reset: {reason}")
            }
            Event::State(SandboxState::Halted { .. }) => {
                f.write_str("state failed: halted after an unverified reset")
            }
            Event::State(state) => write!(f, "state {state}"),
            Event::Reset(outcome) => {
                write!(f, "reset {}: {}", outcome.report.strategy, outcome.verdict())
            }
            Event::Channel(event) => {
                let channel = event.origin.channel;
                match &event.kind {
                    ChannelEventKind::Frame(frame) => write!(f, "frame {}", frame.name())?,
                    ChannelEventKind::LateArrival(frame) => write!(f, "late {}", frame.name())?,
                    ChannelEventKind::GuestError(_) => f.write_str("error of the guest")?,
                    ChannelEventKind::Closed(reason) => write!(f, "closed, {}", reason.code())?,
                }
                write!(f, " on channel {channel}")
            }
            Event::ToolStarted { command_id, tool } => {
                write!(f, "tool {tool:?} started as {command_id:?}")
            }
            Event::ToolEnded {
                command_id, result, ..
            } => match result {
                Ok(outcome) => write!(f, "tool {command_id:?} {}", outcome.name()),
                Err(error) => write!(f, "tool {command_id:?} failed: {}", Causes(error)),
            },
            Event::FilesPushed(moved) => write!(f, "push to {moved}"),
            Event::FilesPulled(moved) => write!(f, "pull of {moved}"),
            Event::Confinement(layers) => {
                f.write_str("confinement of the VMM")?;
                let mut separator = ": ";
                for layer in layers {
                    write!(f, "{separator}{layer}")?;
                    separator = "; ";
                }
                Ok(())
            }
            Event::Vmm(event) => write!(f, "VMM event {:?} {:?}", event.source, event.event),
            Event::VmmEnded(ended) => write!(f, "VMM {} ended, {}", ended.pid, ended.exit),
            Event::Acquired { sandbox } => write!(f, "sandbox {sandbox} acquired"),
            Event::Released { sandbox } => write!(f, "sandbox {sandbox} released"),
            Event::SpareReady => f.write_str("a spare is ready"),
            Event::SpareFailed(error) => {
                write!(f, "a spare could not be prepared: {}", Causes(error))
            }
            Event::SpareEnded(ended) => {
                write!(f, "the VMM {} of a spare ended, {}", ended.pid, ended.exit)
            }
            Event::SpareRefused(error) => write!(f, "a spare was refused: {}", Causes(error)),
            Event::VmmReplaced(error) => {
                write!(f, "the VMM gave no answer and was killed: {}", Causes(error))
            }
            Event::GoldenChanged => f.write_str(
                "a disk of the golden snapshot that the VM reads was opened for writing or replaced",
            ),
            Event::EvidenceKept(folder) => write!(f, "evidence kept in {}", folder.display()),
            Event::Lost { source, count } => write!(f, "{count} events of the {source} lost"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use serde_json::json;

    use super::*;
    use crate::machine::{self, DiskRole};
    use crate::overlay;

    #[test]
    fn an_error_is_shown_with_its_causes() {
        let error = Error::ResetFailed(Arc::new(machine::Error::Disk {
            role: DiskRole::Overlay,
            source: overlay::Error::Io {
                operation: "open",
                path: "/overlay".into(),
                source: io::Error::other("no such file"),
            },
        }));
        let causes = "the sandbox could not be reverted: the overlay disk cannot be used: \
                      could not open \"/overlay\": no such file";
        let state = SandboxState::Failed {
            error: error.clone(),
        };
        for (event, before) in [
            (
                Event::SpareFailed(error.clone()),
                "a spare could not be prepared: ",
            ),
            (Event::SpareRefused(error.clone()), "a spare was refused: "),
            (
                Event::VmmReplaced(error),
                "the VMM gave no answer and was killed: ",
            ),
            (Event::State(state), "state failed: "),
        ] {
            assert_eq!(event.to_string(), format!("{before}{causes}"));
        }
    }

    #[test]
    fn neither_the_parameters_nor_the_output_of_a_tool_is_shown() {
        use crate::guest::protocol::{Frame, ToolResult};
        use crate::vsock::{ChannelEvent, Origin};

        let frame = Frame::ToolResult(ToolResult {
            command_id: "1".to_owned(),
            exit_code: 0,
            stdout: "hush".to_owned(),
            stderr: "hush".to_owned(),
            evidence_hash: None,
            details: None,
        });
        let origin = Origin {
            channel: 3,
            socket: Arc::from(std::path::Path::new("vsock.sock")),
            port: 1024,
        };
        let channel = Event::Channel(ChannelEvent {
            origin,
            kind: ChannelEventKind::Frame(Arc::new(frame)),
        });
        let reason = "hush".to_owned();
        let ended = Event::ToolEnded {
            command_id: "1".to_owned(),
            result: Ok(ToolOutcome::Refused { reason }),
            took: Duration::from_millis(2),
            evidence: None,
        };
        for (event, expected) in [
            (
                channel,
                json!({ "event": "channel", "channel": 3, "kind": "frame", "detail": "ToolResult" }),
            ),
            (
                ended,
                json!({
                    "event": "tool_ended", "command_id": "1", "took_us": 2000,
                    "outcome": "refused", "exit_code": 254
                }),
            ),
        ] {
            assert_eq!(serde_json::to_value(&event).unwrap(), expected);
            let shown = format!("{event} {event:?}");
            assert!(!shown.contains("hush"), "{shown}");
        }
    }
}
