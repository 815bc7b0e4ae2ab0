//! What a sandbox tells those who listen.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::json;

use super::transfer::FilesMoved;
use super::{Error, ResetOutcome, SandboxState, StreamEvidence, ToolOutcome};
use crate::broadcast::Weight;
use crate::causes::Causes;
use crate::client::MonitorEvent;
use crate::vsock::ChannelEventKind;
use crate::{vmm, vsock};

/// Something that happened in a sandbox.
///
/// Shown as text it is one line. An error is shown with its causes; apart from what those quote, the line holds nothing that
/// a guest wrote, so a list of many stays small. `Debug` shows the same line.
///
/// It serialises as one object for an audit, a line of JSON: `event` has its name, and the other fields say what belongs to
/// it. Of a frame of the guest it has the type and the channel, of a tool how it ended: never a parameter, and nothing that a
/// tool wrote. Further fields and further events may come.
///
/// ```
/// use chv_sandbox::sandbox::Event;
///
/// let line = serde_json::to_string(&Event::Acquired { sandbox: 7 })?;
/// assert_eq!(line, r#"{"event":"acquired","sandbox":7}"#);
/// # Ok::<_, serde_json::Error>(())
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub enum Event {
    /// The sandbox stands somewhere else.
    State(SandboxState),
    /// A reset ended; whether it passed stands in its state.
    Reset(Arc<ResetOutcome>),
    /// A raw frame of the guest with its channel, an answer that came too late, an error of the guest, or the
    /// end of a channel.
    Channel(vsock::ChannelEvent),
    /// A tool is sent to the guest.
    ToolStarted {
        /// The run's name.
        command_id: String,
        /// The tool's name.
        tool: String,
    },
    /// A tool has ended, or is not waited for any more. Of one whose caller went away, the result is
    /// [`NeedsReset`](Error::NeedsReset).
    ToolEnded {
        /// The run's name.
        command_id: String,
        /// How it ended, or why that isn't known.
        result: Result<ToolOutcome, Error>,
        /// How long it took.
        took: Duration,
        /// Of a run with streams that has ended: how much it wrote, and the links of its evidence.
        evidence: Option<StreamEvidence>,
    },
    /// Files were brought into the guest, or were not.
    FilesPushed(FilesMoved),
    /// Files were brought out of the guest, or were not.
    FilesPulled(FilesMoved),
    /// A VMM was started for the sandbox's boot, with these layers of a boundary around it.
    Boundary(Vec<vmm::LayerReport>),
    /// The VMM says something happened. A hint, never a state.
    Vmm(MonitorEvent),
    /// The VMM ended.
    VmmEnded(vmm::Ended),
    /// A pool handed out a sandbox.
    Acquired {
        /// Its number in the pool.
        sandbox: u64,
    },
    /// A sandbox was given back to its pool, and is reset or discarded.
    Released {
        /// Its number in the pool.
        sandbox: u64,
    },
    /// A spare waits for the next reset.
    SpareReady,
    /// A spare could not be prepared. It is tried again after a while; a reset that finds no spare takes another VMM.
    SpareFailed(Error),
    /// The VMM of a spare ended while it waited. Another spare is made.
    SpareEnded(vmm::Ended),
    /// A spare was not what it was when it was prepared, or could not be resumed: it is killed, and the reset goes on without
    /// it.
    SpareRefused(Error),
    /// The VMM gave no answer in time. It was killed with its guest, and another one is to serve.
    VmmGivenUp(Error),
    /// A file of the golden snapshot that the VM goes on to read was opened for writing, changed or replaced. The sandbox
    /// takes no tool until it is reset.
    HoldLost,
    /// What is left of a sandbox that diverged was kept there.
    EvidenceKept(std::path::PathBuf),
    /// Events came faster than they could be passed on, or held more bytes than are kept, and this many of them are gone
    /// for good.
    Lost {
        /// Whose they were: `vmm` or `channel`.
        source: &'static str,
        /// How many.
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
            // Of this process's own making, and bounded: some KiB at most.
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

impl Serialize for Event {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let error =
            |error: &Error| json!({ "code": error.code(), "message": Causes(error).to_string() });
        let ended =
            |ended: &vmm::Ended| json!({ "pid": ended.pid, "exit": ended.exit.to_string() });
        let (name, fields) = match self {
            Event::State(state) => {
                let mut fields = json!({ "state": state });
                match state {
                    SandboxState::NeedsReset { reason } => fields["needs_reset"] = json!(reason),
                    SandboxState::Failed { error: why } => fields["error"] = error(why),
                    SandboxState::Halted { .. } => fields["halted"] = json!(true),
                    _ => {}
                }
                ("state", fields)
            }
            Event::Reset(outcome) => {
                let (state, report) = (&outcome.state, &outcome.report);
                ("reset", json!({ "state": state, "report": report }))
            }
            Event::Channel(event) => {
                let (kind, detail) = match &event.kind {
                    ChannelEventKind::Frame(frame) => ("frame", frame.name()),
                    ChannelEventKind::LateArrival(frame) => ("late_arrival", frame.name()),
                    ChannelEventKind::GuestError(_) => ("guest_error", "ErrorEvent"),
                    ChannelEventKind::Closed(reason) => ("closed", reason.code()),
                };
                let channel = event.origin.channel;
                (
                    "channel",
                    json!({ "channel": channel, "kind": kind, "detail": detail }),
                )
            }
            Event::ToolStarted { command_id, tool } => (
                "tool_started",
                json!({ "command_id": command_id, "tool": tool }),
            ),
            Event::ToolEnded {
                command_id,
                result,
                took,
                evidence,
            } => {
                let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
                let mut fields = json!({ "command_id": command_id, "took_us": took_us });
                match result {
                    Ok(outcome) => {
                        fields["outcome"] = json!(outcome.name());
                        fields["exit_code"] = json!(outcome.exit_code());
                    }
                    Err(why) => fields["error"] = error(why),
                }
                if let Some(evidence) = evidence {
                    fields["stdout_total"] = json!(evidence.stdout_total);
                    fields["stderr_total"] = json!(evidence.stderr_total);
                    fields["cut"] = json!(evidence.is_cut);
                    fields["to_guest_hash"] = json!(evidence.to_guest_hash);
                    fields["to_host_hash"] = json!(evidence.to_host_hash);
                }
                ("tool_ended", fields)
            }
            Event::FilesPushed(moved) => ("files_pushed", moved.fields(error)),
            Event::FilesPulled(moved) => ("files_pulled", moved.fields(error)),
            Event::Boundary(layers) => ("boundary", json!({ "layers": layers })),
            Event::Vmm(event) => {
                let (source, event) = (&event.source, &event.event);
                ("vmm", json!({ "source": source, "name": event }))
            }
            Event::VmmEnded(vmm) => ("vmm_ended", ended(vmm)),
            Event::Acquired { sandbox } => ("acquired", json!({ "sandbox": sandbox })),
            Event::Released { sandbox } => ("released", json!({ "sandbox": sandbox })),
            Event::SpareReady => ("spare_ready", json!({})),
            Event::SpareFailed(why) => ("spare_failed", json!({ "error": error(why) })),
            Event::SpareEnded(vmm) => ("spare_ended", ended(vmm)),
            Event::SpareRefused(why) => ("spare_refused", json!({ "error": error(why) })),
            Event::VmmGivenUp(why) => ("vmm_given_up", json!({ "error": error(why) })),
            Event::HoldLost => ("hold_lost", json!({})),
            Event::EvidenceKept(folder) => ("evidence_kept", json!({ "folder": folder })),
            Event::Lost { source, count } => ("lost", json!({ "source": source, "count": count })),
        };
        let fields = fields.as_object().into_iter().flatten();
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("event", name)?;
        for (field, value) in fields {
            map.serialize_entry(field, value)?;
        }
        map.end()
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::State(SandboxState::Failed { error }) => {
                write!(f, "state failed: {}", Causes(error))
            }
            Event::State(SandboxState::NeedsReset { reason }) => {
                write!(f, "no tool until a reset: {reason}")
            }
            Event::State(state) => write!(f, "state {state}"),
            Event::Reset(outcome) => {
                let passed = outcome.state.verification_passed;
                let strategy = outcome.report.strategy;
                write!(f, "reset {strategy}, verification passed: {passed}")
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
            Event::Boundary(layers) => {
                f.write_str("boundary of the VMM")?;
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
            Event::SpareReady => f.write_str("a spare waits"),
            Event::SpareFailed(error) => write!(f, "no spare: {}", Causes(error)),
            Event::SpareEnded(ended) => {
                write!(f, "the VMM {} of a spare ended, {}", ended.pid, ended.exit)
            }
            Event::SpareRefused(error) => write!(f, "a spare is not used: {}", Causes(error)),
            Event::VmmGivenUp(error) => write!(f, "the VMM was given up: {}", Causes(error)),
            Event::HoldLost => f.write_str("a golden file that the VM reads was not left alone"),
            Event::EvidenceKept(folder) => write!(f, "evidence kept in {}", folder.display()),
            Event::Lost { source, count } => write!(f, "{count} events of the {source} lost"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

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
            (Event::SpareFailed(error.clone()), "no spare: "),
            (Event::SpareRefused(error.clone()), "a spare is not used: "),
            (Event::VmmGivenUp(error), "the VMM was given up: "),
            (Event::State(state), "state failed: "),
        ] {
            assert_eq!(event.to_string(), format!("{before}{causes}"));
        }
    }

    #[test]
    fn what_a_tool_is_told_and_wrote_is_not_shown() {
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

    #[test]
    fn a_state_says_what_belongs_to_it() {
        let needs_reset = Event::State(SandboxState::NeedsReset {
            reason: crate::sandbox::ResetReason::ToolRan,
        });
        assert_eq!(
            serde_json::to_value(&needs_reset).unwrap(),
            json!({ "event": "state", "state": "ready", "needs_reset": "tool_ran" })
        );
        let failed = Event::State(SandboxState::Failed {
            error: Error::ShutDown,
        });
        let error = json!({ "code": "SANDBOX_SHUT_DOWN", "message": "the sandbox was shut down meanwhile" });
        assert_eq!(
            serde_json::to_value(&failed).unwrap(),
            json!({ "event": "state", "state": "failed", "error": error })
        );
    }
}
