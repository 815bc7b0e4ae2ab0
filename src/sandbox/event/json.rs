//! The JSON object of an [`Event`] for an audit log.

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::json;

use super::Event;
use crate::causes::Causes;
use crate::duration::micros;
use crate::sandbox::{Error, SandboxState};
use crate::vmm;
use crate::vsock::ChannelEventKind;

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
                let verdict = outcome.verdict().name();
                (
                    "reset",
                    json!({ "verdict": verdict, "state": state, "report": report }),
                )
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
                let took_us = micros(*took);
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
            Event::Confinement(layers) => ("confinement", json!({ "layers": layers })),
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
            Event::VmmReplaced(why) => ("vmm_replaced", json!({ "error": error(why) })),
            Event::GoldenChanged => ("golden_changed", json!({})),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_shown_with_its_reason_or_error() {
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
