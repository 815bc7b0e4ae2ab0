//! [`ToolResult`], the frame that tells how a tool ended.

use std::ops::RangeInclusive;

use serde::{Deserialize, Deserializer, Serialize};

use super::json_text;

/// The most bytes that a guest keeps of each of a tool's two output streams: 1 MiB. A guest with
/// [`Extension::Result`](super::Extension::Result) may not keep more: if its chunks hold more than twice this number,
/// the command fails with [`EvidenceError::TooMuch`](crate::vsock::EvidenceError::TooMuch).
///
/// JSON writes a control character with six bytes, so two streams of this size always fit a frame of 16 MiB.
pub const MAX_OUTPUT: usize = 1 << 20;

/// The exit code for a tool that is not on the guest's list.
pub const EXIT_UNKNOWN_TOOL: i32 = 127;
/// The exit code of a tool that was killed at its deadline; stderr is then `deadline_exceeded`. A tool that SIGKILL
/// ended for another reason has the same exit code ([`EXIT_SIGNALLED`] plus 9); only the
/// [outcome](ResultDetails::outcome) tells the two apart.
pub const EXIT_DEADLINE: i32 = 137;
/// The exit code if the guest didn't start the tool, or couldn't follow it to its end; stderr then says why.
pub const EXIT_GUEST_ERROR: i32 = 254;
/// The exit code of a tool that a signal killed is this number, 128, plus the signal's number.
pub const EXIT_SIGNALLED: i32 = 128;

/// How a tool ended, and what it wrote.
///
/// It can be deserialised from JSON text only, not from a `Value`. This keeps its output from taking more memory than
/// the text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Fields")]
pub struct ToolResult {
    /// The [`ToolDispatch::command_id`](super::ToolDispatch::command_id) of the command that this answers. If no such
    /// command waits for its result or has timed out, the host closes the channel.
    pub command_id: String,
    /// The tool's own exit code, or one that the guest sets: [`EXIT_UNKNOWN_TOOL`], [`EXIT_DEADLINE`],
    /// [`EXIT_GUEST_ERROR`], or [`EXIT_SIGNALLED`] plus a signal's number. [`details`](ToolResult::details) tells
    /// the two apart.
    pub exit_code: i32,
    /// The part of the tool's standard output that the guest kept, decoded as UTF-8 with U+FFFD in place of invalid
    /// bytes.
    pub stdout: String,
    /// The part of the tool's standard error that the guest kept, decoded likewise; or the guest's own text, see
    /// [`ResultDetails`].
    pub stderr: String,
    /// The last link of the evidence chain as the guest computed it, in the form of
    /// [`EvidenceChain::last_link`](super::EvidenceChain::last_link); `None` (absent or null) if the guest kept none.
    /// Decoding accepts any text. If it isn't the link that the host computed, the command fails with
    /// [`EvidenceError::WrongLink`](crate::vsock::EvidenceError::WrongLink).
    pub evidence_hash: Option<String>,
    /// The fields that [`Extension::Result`](super::Extension::Result) adds. On the wire they stand beside the others,
    /// either all five or none; a result with some of them is [malformed](super#malformed-frames). `None` if the guest
    /// or the host doesn't know the extension. Details from a guest that hasn't listed it close the channel.
    #[serde(flatten)]
    pub details: Option<ResultDetails>,
}

/// The outcome of a tool and the sizes of its output, which the exit code and the texts of a [`ToolResult`] don't tell.
///
/// The chunks of the command hold the kept bytes of standard output, then those of standard error. Each stream's text
/// in the result is its kept bytes decoded as UTF-8, with U+FFFD in place of invalid bytes. The guest drops output
/// beyond the kept bytes: the total minus the kept bytes is the number of dropped bytes.
///
/// For every outcome but [`Exited`](ToolOutcomeKind::Exited) and [`Signalled`](ToolOutcomeKind::Signalled) the guest
/// replaces the tool's standard error with a text of its own. The kept bytes are then those of this text, and
/// everything that the tool wrote to its standard error was dropped.
///
/// Decoding accepts any numbers. If the kept bytes are more than the total, or aren't those of the chunks, the command
/// fails with an [`EvidenceError`](crate::vsock::EvidenceError).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct ResultDetails {
    /// How the tool ended.
    pub outcome: ToolOutcomeKind,
    /// The size of standard output in bytes, kept and dropped.
    pub stdout_total: u64,
    /// The number of bytes of standard output that the chunks hold: the first ones, at most [`MAX_OUTPUT`].
    pub stdout_kept: u64,
    /// The size of standard error in bytes, kept and dropped. A text of the guest counts as kept.
    pub stderr_total: u64,
    /// The number of bytes of standard error, or of the guest's text, that the chunks hold: the first ones, at most
    /// [`MAX_OUTPUT`].
    pub stderr_kept: u64,
}

/// How a tool ended, as a [`ToolResult`] carries it. On the wire the names are in snake case, such as `no_such_tool`.
///
/// Each outcome goes with certain exit codes. A result with another exit code, and one with an unknown outcome, is
/// [malformed](super#malformed-frames).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToolOutcomeKind {
    /// It ended by itself, with an exit code of 0 to 255.
    Exited,
    /// A signal killed it. The exit code is 129 to 192: [`EXIT_SIGNALLED`] plus the signal's number.
    Signalled,
    /// The guest killed it at its deadline. The exit code is [`EXIT_DEADLINE`].
    DeadlineExceeded,
    /// The guest has no tool of this name. The exit code is [`EXIT_UNKNOWN_TOOL`].
    NoSuchTool,
    /// The guest didn't start the tool, because the request isn't allowed or because as many tools run as the guest
    /// runs at the same time (32 in `chv-guest`). The exit code is [`EXIT_GUEST_ERROR`].
    Refused,
    /// The guest couldn't start the tool, couldn't follow it to its end, or couldn't make or remove the throwaway layer
    /// of a [warm run](super#warm-runs). The exit code is [`EXIT_GUEST_ERROR`].
    GuestFailed,
}

impl ToolOutcomeKind {
    /// The exit codes that a result with this outcome may have. With any other exit code the frame is malformed.
    pub(crate) const fn exit_codes(self) -> RangeInclusive<i32> {
        /// The largest signal number on Linux.
        const MAX_SIGNAL: i32 = 64;
        match self {
            ToolOutcomeKind::Exited => 0..=255,
            ToolOutcomeKind::Signalled => EXIT_SIGNALLED + 1..=EXIT_SIGNALLED + MAX_SIGNAL,
            ToolOutcomeKind::DeadlineExceeded => EXIT_DEADLINE..=EXIT_DEADLINE,
            ToolOutcomeKind::NoSuchTool => EXIT_UNKNOWN_TOOL..=EXIT_UNKNOWN_TOOL,
            ToolOutcomeKind::Refused | ToolOutcomeKind::GuestFailed => {
                EXIT_GUEST_ERROR..=EXIT_GUEST_ERROR
            }
        }
    }
}

/// The fields of a result as they stand on the wire, before their combination is checked.
#[derive(Deserialize)]
#[serde(rename = "ToolResult", deny_unknown_fields)]
struct Fields {
    command_id: String,
    exit_code: i32,
    #[serde(deserialize_with = "json_text::deserialize")]
    stdout: String,
    #[serde(deserialize_with = "json_text::deserialize")]
    stderr: String,
    #[serde(default)]
    evidence_hash: Option<String>,
    #[serde(default, deserialize_with = "present")]
    outcome: Option<ToolOutcomeKind>,
    #[serde(default, deserialize_with = "present")]
    stdout_total: Option<u64>,
    #[serde(default, deserialize_with = "present")]
    stdout_kept: Option<u64>,
    #[serde(default, deserialize_with = "present")]
    stderr_total: Option<u64>,
    #[serde(default, deserialize_with = "present")]
    stderr_kept: Option<u64>,
}

/// Reads a field that may be missing but must not be null.
fn present<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// The details of a result contradict each other.
#[derive(Debug, thiserror::Error)]
enum Contradiction {
    #[error(
        "a result has all of outcome, stdout_total, stdout_kept, stderr_total and stderr_kept, or none"
    )]
    Incomplete,
    #[error("the outcome {outcome:?} has an exit code of {} to {}, not {exit_code}", outcome.exit_codes().start(), outcome.exit_codes().end())]
    ExitCode {
        outcome: ToolOutcomeKind,
        exit_code: i32,
    },
}

impl TryFrom<Fields> for ToolResult {
    type Error = Contradiction;

    fn try_from(fields: Fields) -> Result<Self, Contradiction> {
        let totals = (fields.stdout_total, fields.stderr_total);
        let kept = (fields.stdout_kept, fields.stderr_kept);
        let details = match (fields.outcome, totals, kept) {
            (None, (None, None), (None, None)) => None,
            (
                Some(outcome),
                (Some(stdout_total), Some(stderr_total)),
                (Some(stdout_kept), Some(stderr_kept)),
            ) => Some(ResultDetails {
                outcome,
                stdout_total,
                stdout_kept,
                stderr_total,
                stderr_kept,
            }),
            _ => return Err(Contradiction::Incomplete),
        };
        let exit_code = fields.exit_code;
        if let Some(ResultDetails { outcome, .. }) = details
            && !outcome.exit_codes().contains(&exit_code)
        {
            return Err(Contradiction::ExitCode { outcome, exit_code });
        }
        Ok(ToolResult {
            command_id: fields.command_id,
            exit_code,
            stdout: fields.stdout,
            stderr: fields.stderr,
            evidence_hash: fields.evidence_hash,
            details,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::guest::protocol::{DecodeError, Frame};

    const OUTCOMES: [(&str, ToolOutcomeKind, i32); 6] = [
        ("exited", ToolOutcomeKind::Exited, 3),
        ("signalled", ToolOutcomeKind::Signalled, 143),
        ("deadline_exceeded", ToolOutcomeKind::DeadlineExceeded, 137),
        ("no_such_tool", ToolOutcomeKind::NoSuchTool, 127),
        ("refused", ToolOutcomeKind::Refused, 254),
        ("guest_failed", ToolOutcomeKind::GuestFailed, 254),
    ];

    fn body(outcome: &str, exit_code: i32) -> Value {
        json!({
            "type": "ToolResult", "command_id": "c1", "exit_code": exit_code, "stdout": "", "stderr": "e",
            "evidence_hash": null, "outcome": outcome, "stdout_total": 0, "stdout_kept": 0,
            "stderr_total": u64::MAX, "stderr_kept": 1,
        })
    }

    #[track_caller]
    fn refusal(body: &Value) -> String {
        match Frame::decode(body.to_string().as_bytes()) {
            Err(DecodeError::NotAFrame { reason }) => reason,
            other => panic!("{body}: {other:?}"),
        }
    }

    #[test]
    fn without_details_the_frame_is_the_old_one() {
        let result = ToolResult {
            command_id: "c1".to_owned(),
            exit_code: -7,
            stdout: "out\n".to_owned(),
            stderr: "\u{1b}".to_owned(),
            evidence_hash: None,
            details: None,
        };
        assert_eq!(
            serde_json::to_string(&Frame::ToolResult(result)).unwrap(),
            r#"{"type":"ToolResult","command_id":"c1","exit_code":-7,"stdout":"out\n","stderr":"\u001b","evidence_hash":null}"#
        );
    }

    #[test]
    fn every_outcome_has_its_name_and_crosses_the_wire() {
        for (name, outcome, exit_code) in OUTCOMES {
            let body = body(name, exit_code);
            let frame = Frame::decode(body.to_string().as_bytes()).unwrap();
            assert_eq!(serde_json::to_value(&frame).unwrap(), body);
            let Frame::ToolResult(result) = frame else {
                panic!("{frame:?}")
            };
            let expected = ResultDetails {
                outcome,
                stdout_total: 0,
                stdout_kept: 0,
                stderr_total: u64::MAX,
                stderr_kept: 1,
            };
            assert_eq!(result.details, Some(expected));
        }
    }

    #[test]
    fn details_come_whole_or_not_at_all() {
        let fields = [
            "outcome",
            "stdout_total",
            "stdout_kept",
            "stderr_total",
            "stderr_kept",
        ];
        for present in 1..(1 << fields.len()) - 1 {
            let mut partial = body("exited", 0);
            for (at, field) in fields.iter().enumerate() {
                if present & (1 << at) == 0 {
                    partial.as_object_mut().unwrap().remove(*field);
                }
            }
            let reason = refusal(&partial);
            assert!(reason.starts_with("a result has all of"), "{reason}");
        }
        for field in fields {
            let mut null = body("exited", 0);
            null[field] = Value::Null;
            let said = match field {
                "outcome" => "expected value",
                _ => "invalid type: null",
            };
            assert!(refusal(&null).contains(said), "{field}");
        }
    }

    #[test]
    fn values_of_another_kind_are_refused() {
        for (field, value, said) in [
            ("outcome", json!("exploded"), "unknown variant `exploded`"),
            ("outcome", json!("Exited"), "unknown variant `Exited`"),
            ("outcome", json!(0), "expected value"),
            ("stdout_total", json!(-1), "invalid value: integer `-1`"),
            ("stdout_kept", json!(0.5), "invalid type: floating point"),
            ("stderr_kept", json!("1"), "invalid type: string"),
            ("stderr_total", json!(1e30), "invalid type: floating point"),
        ] {
            let mut wrong = body("exited", 0);
            wrong[field] = value;
            let reason = refusal(&wrong);
            assert!(reason.contains(said), "{field}: {reason}");
        }
    }

    #[test]
    fn an_outcome_goes_with_its_exit_codes_only() {
        for (name, outcome, _) in OUTCOMES {
            for exit_code in [
                i32::MIN,
                -1,
                0,
                1,
                127,
                128,
                129,
                137,
                192,
                193,
                254,
                255,
                256,
            ] {
                let body = body(name, exit_code);
                match outcome.exit_codes().contains(&exit_code) {
                    true => assert!(Frame::decode(body.to_string().as_bytes()).is_ok(), "{body}"),
                    false => assert!(refusal(&body).contains("has an exit code of"), "{body}"),
                }
            }
        }
        assert_eq!(ToolOutcomeKind::Exited.exit_codes(), 0..=255);
        assert_eq!(ToolOutcomeKind::Signalled.exit_codes(), 129..=192);
        assert_eq!(ToolOutcomeKind::DeadlineExceeded.exit_codes(), 137..=137);
        assert_eq!(ToolOutcomeKind::NoSuchTool.exit_codes(), 127..=127);
        assert_eq!(ToolOutcomeKind::Refused.exit_codes(), 254..=254);
        assert_eq!(ToolOutcomeKind::GuestFailed.exit_codes(), 254..=254);
    }
}
