//! What a tool did: how it ended, and what it wrote.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::guest::protocol::{
    EXIT_DEADLINE, EXIT_GUEST_ERROR, EXIT_SIGNALLED, EXIT_UNKNOWN_TOOL, ResultDetails,
    ToolOutcomeKind, ToolResult,
};
use crate::sanitize;
use crate::vsock::ToolAnswer;

/// 128 and the number of SIGINT.
const EXIT_CANCELLED: i32 = 130;

/// How long the guest's reason may be, in characters.
const MAX_REASON: usize = 4096;

/// What a tool did.
///
/// It serialises as `{exit_code, stdout, stderr, evidence_hash}`: the [`exit_code`](Self::exit_code), the streams as
/// [text](ToolOutput::text), and the last field only where there is evidence. What is read back from that has the outcome
/// [`Unspecified`](ToolOutcome::Unspecified), streams whose total isn't known, and a `took` of zero.
///
/// `Debug` shows the lengths of what the tool wrote, and none of it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ToolExecution {
    /// How it ended.
    pub outcome: ToolOutcome,
    /// What it wrote to its standard output.
    pub stdout: ToolOutput,
    /// What it wrote to its standard error. For an outcome that the guest decided, the guest's words.
    pub stderr: ToolOutput,
    /// From the dispatch until the result was believed, as the host measured it.
    pub took: Duration,
    /// The last link of the evidence chain over its output, where the guest makes one.
    pub evidence_hash: Option<String>,
}

impl ToolExecution {
    /// One that ended like this and wrote this, for tests and for other implementations of
    /// [`Sandbox`](super::Sandbox). It took no time and has no evidence; both are fields to set.
    ///
    /// ```
    /// use chv_sandbox::sandbox::{ToolExecution, ToolOutcome};
    ///
    /// let execution = ToolExecution::new(ToolOutcome::Exited { code: 0 }, "hello\n", "");
    /// assert!(execution.is_success());
    /// assert_eq!(execution.stdout.text(), "hello\n");
    /// ```
    pub fn new(
        outcome: ToolOutcome,
        stdout: impl Into<ToolOutput>,
        stderr: impl Into<ToolOutput>,
    ) -> ToolExecution {
        ToolExecution {
            outcome,
            stdout: stdout.into(),
            stderr: stderr.into(),
            took: Duration::ZERO,
            evidence_hash: None,
        }
    }

    /// What the channel's answer tells.
    pub(super) fn answered(answer: ToolAnswer, took: Duration) -> ToolExecution {
        let ToolAnswer { result, output } = answer;
        let execution = match result.details.zip(output) {
            Some((details, output)) => ToolExecution::new(
                ToolOutcome::told(&result, details),
                ToolOutput::of(output.stdout, Some(details.stdout_total)),
                ToolOutput::of(output.stderr, Some(details.stderr_total)),
            ),
            None => ToolExecution::new(
                ToolOutcome::Unspecified {
                    exit_code: result.exit_code,
                },
                ToolOutput::of(result.stdout.into_bytes(), None),
                ToolOutput::of(result.stderr.into_bytes(), None),
            ),
        };
        ToolExecution {
            took,
            evidence_hash: result.evidence_hash,
            ..execution
        }
    }

    /// The exit code on the wire: see [`ToolOutcome::exit_code`].
    pub fn exit_code(&self) -> i32 {
        self.outcome.exit_code()
    }

    /// Whether the tool ended by itself with the exit code 0.
    pub fn is_success(&self) -> bool {
        self.outcome.is_success()
    }
}

/// How a tool ended.
///
/// The guest says so where it has the extension `result/1`. It is never guessed from an exit code: of an older guest
/// it is [`Unspecified`](ToolOutcome::Unspecified). `Debug` shows the length of a reason and not its text.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ToolOutcome {
    /// It ended by itself.
    Exited {
        /// Its exit code, 0 to 255.
        code: i32,
    },
    /// A signal killed it that the guest did not send for its deadline.
    Signalled {
        /// The signal's number.
        signal: i32,
    },
    /// The guest killed it at its deadline.
    DeadlineExceeded,
    /// Its caller [cancelled](super::RunningTool::cancel) it, or sent the signal that ended it. Only of a tool with streams.
    Cancelled,
    /// The guest has no tool of this name.
    NoSuchTool,
    /// The guest did not start it: parameters that don't fit the tool, a deadline beyond the guest's longest, or too many
    /// tools that run already. An invocation that the host doesn't send is [`Error::ToolRefused`](super::Error::ToolRefused).
    Refused {
        /// The guest's words, as a [line](crate::sanitize::line) of at most 4,096 characters. `stderr` has them unchanged.
        reason: String,
    },
    /// The guest could not start it, or not follow it to its end.
    GuestFailed {
        /// The guest's words, likewise.
        reason: String,
    },
    /// The guest has no extension `result/1` and tells an exit code alone.
    Unspecified {
        /// The tool's own exit code, 128 and a signal's number, or the guest's: 127 no such tool, 137 killed at the
        /// deadline, 254 refused or failed. A tool can exit with each of them, too.
        exit_code: i32,
    },
}

impl ToolOutcome {
    /// The outcome's name in the protocol: `exited`, `signalled`, `deadline_exceeded`, `cancelled`, `no_such_tool`, `refused`,
    /// `guest_failed`; `unspecified` where the guest did not say.
    pub fn name(&self) -> &'static str {
        match self {
            ToolOutcome::Exited { .. } => "exited",
            ToolOutcome::Signalled { .. } => "signalled",
            ToolOutcome::DeadlineExceeded => "deadline_exceeded",
            ToolOutcome::Cancelled => "cancelled",
            ToolOutcome::NoSuchTool => "no_such_tool",
            ToolOutcome::Refused { .. } => "refused",
            ToolOutcome::GuestFailed { .. } => "guest_failed",
            ToolOutcome::Unspecified { .. } => "unspecified",
        }
    }

    fn told(result: &ToolResult, details: ResultDetails) -> ToolOutcome {
        let exit_code = result.exit_code;
        let reason = || sanitize::line(&result.stderr, MAX_REASON);
        match details.outcome {
            ToolOutcomeKind::Exited => ToolOutcome::Exited { code: exit_code },
            ToolOutcomeKind::Signalled => ToolOutcome::Signalled {
                signal: exit_code - EXIT_SIGNALLED,
            },
            ToolOutcomeKind::DeadlineExceeded => ToolOutcome::DeadlineExceeded,
            ToolOutcomeKind::NoSuchTool => ToolOutcome::NoSuchTool,
            ToolOutcomeKind::Refused => ToolOutcome::Refused { reason: reason() },
            ToolOutcomeKind::GuestFailed => ToolOutcome::GuestFailed { reason: reason() },
        }
    }

    /// The exit code on the wire: the tool's own, 128 and the signal's number, 137 for a deadline, 130 for one that was
    /// cancelled, as a shell has it of one that was interrupted, 127 for no such tool, 254 for a refusal or a failure of the guest.
    pub fn exit_code(&self) -> i32 {
        match self {
            ToolOutcome::Exited { code } => *code,
            ToolOutcome::Signalled { signal } => EXIT_SIGNALLED.saturating_add(*signal),
            ToolOutcome::DeadlineExceeded => EXIT_DEADLINE,
            ToolOutcome::Cancelled => EXIT_CANCELLED,
            ToolOutcome::NoSuchTool => EXIT_UNKNOWN_TOOL,
            ToolOutcome::Refused { .. } | ToolOutcome::GuestFailed { .. } => EXIT_GUEST_ERROR,
            ToolOutcome::Unspecified { exit_code } => *exit_code,
        }
    }

    /// Whether the tool ended by itself with the exit code 0. No other ending has this code, so it holds for an
    /// [`Unspecified`](ToolOutcome::Unspecified) one, too.
    pub fn is_success(&self) -> bool {
        matches!(
            self,
            ToolOutcome::Exited { code: 0 } | ToolOutcome::Unspecified { exit_code: 0 }
        )
    }
}

impl fmt::Display for ToolOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ToolOutcome::Exited { code } => write!(f, "exited with code {code}"),
            ToolOutcome::Signalled { signal } => write!(f, "killed by signal {signal}"),
            ToolOutcome::DeadlineExceeded => f.write_str("killed at its deadline"),
            ToolOutcome::Cancelled => f.write_str("cancelled"),
            ToolOutcome::NoSuchTool => f.write_str("the guest has no such tool"),
            ToolOutcome::Refused { reason } => write!(f, "refused by the guest: {reason}"),
            ToolOutcome::GuestFailed { reason } => write!(f, "the guest failed: {reason}"),
            ToolOutcome::Unspecified { exit_code } => {
                write!(
                    f,
                    "exit code {exit_code}, and the guest does not say of what"
                )
            }
        }
    }
}

impl fmt::Debug for ToolOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let with_reason = |f: &mut fmt::Formatter<'_>, name, reason: &str| {
            let length = format_args!("{} bytes", reason.len());
            f.debug_struct(name).field("reason", &length).finish()
        };
        match self {
            ToolOutcome::Exited { code } => f.debug_struct("Exited").field("code", code).finish(),
            ToolOutcome::Signalled { signal } => {
                f.debug_struct("Signalled").field("signal", signal).finish()
            }
            ToolOutcome::DeadlineExceeded => f.write_str("DeadlineExceeded"),
            ToolOutcome::Cancelled => f.write_str("Cancelled"),
            ToolOutcome::NoSuchTool => f.write_str("NoSuchTool"),
            ToolOutcome::Refused { reason } => with_reason(f, "Refused", reason),
            ToolOutcome::GuestFailed { reason } => with_reason(f, "GuestFailed", reason),
            ToolOutcome::Unspecified { exit_code } => {
                let mut unspecified = f.debug_struct("Unspecified");
                unspecified.field("exit_code", exit_code).finish()
            }
        }
    }
}

/// What a tool wrote to one stream, up to the guest's limit of 1 MiB, or the one of
/// [`collect_output`](super::RunningTool::collect_output).
///
/// `Debug` shows how much it is, and none of it.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ToolOutput {
    bytes: Vec<u8>,
    /// Never less than there are bytes.
    total: Option<u64>,
}

impl ToolOutput {
    /// All that a tool wrote.
    pub fn whole(bytes: impl Into<Vec<u8>>) -> ToolOutput {
        ToolOutput::cut(bytes, 0)
    }

    /// The beginning of what a tool wrote, after which `dropped` bytes came.
    pub fn cut(bytes: impl Into<Vec<u8>>, dropped: u64) -> ToolOutput {
        let bytes = bytes.into();
        let total = dropped.saturating_add(bytes.len() as u64);
        ToolOutput::of(bytes, Some(total))
    }

    /// What is known of a stream whose total isn't.
    pub fn of_unknown_total(bytes: impl Into<Vec<u8>>) -> ToolOutput {
        ToolOutput::of(bytes.into(), None)
    }

    pub(super) fn of(bytes: Vec<u8>, total: Option<u64>) -> ToolOutput {
        ToolOutput { bytes, total }
    }

    /// The bytes that the guest kept. Without the extension `result/1` those of the text that it sent, in which U+FFFD
    /// stands for what was no UTF-8.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The same, moved out.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// The bytes as text. U+FFFD stands for each sequence of bytes that is not UTF-8.
    pub fn text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.bytes)
    }

    /// How many bytes there were, kept and dropped. `None` from a guest without the extension `result/1`.
    pub fn total(&self) -> Option<u64> {
        self.total
    }

    /// Whether bytes were dropped. `None` where the total isn't known.
    pub fn is_cut(&self) -> Option<bool> {
        self.total.map(|total| total > self.bytes.len() as u64)
    }
}

impl From<Vec<u8>> for ToolOutput {
    fn from(bytes: Vec<u8>) -> Self {
        ToolOutput::whole(bytes)
    }
}

impl From<String> for ToolOutput {
    fn from(text: String) -> Self {
        ToolOutput::whole(text)
    }
}

impl From<&str> for ToolOutput {
    fn from(text: &str) -> Self {
        ToolOutput::whole(text)
    }
}

impl fmt::Debug for ToolOutput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kept = self.bytes.len();
        match self.total {
            Some(total) => write!(f, "ToolOutput({kept} bytes of {total})"),
            None => write!(f, "ToolOutput({kept} bytes of an unknown total)"),
        }
    }
}

/// An execution on the wire.
#[derive(Serialize, Deserialize)]
#[serde(rename = "ToolExecution", deny_unknown_fields)]
struct Wire<'a> {
    exit_code: i32,
    stdout: Cow<'a, str>,
    stderr: Cow<'a, str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    evidence_hash: Option<Cow<'a, str>>,
}

impl Serialize for ToolExecution {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let wire = Wire {
            exit_code: self.exit_code(),
            stdout: self.stdout.text(),
            stderr: self.stderr.text(),
            evidence_hash: self.evidence_hash.as_deref().map(Cow::Borrowed),
        };
        wire.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for ToolExecution {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let wire = Wire::deserialize(deserializer)?;
        Ok(ToolExecution {
            evidence_hash: wire.evidence_hash.map(Cow::into_owned),
            ..ToolExecution::new(
                ToolOutcome::Unspecified {
                    exit_code: wire.exit_code,
                },
                ToolOutput::of_unknown_total(wire.stdout.into_owned()),
                ToolOutput::of_unknown_total(wire.stderr.into_owned()),
            )
        })
    }
}

#[cfg(test)]
mod tests;
