//! [`ToolExecution`]: how a tool ended ([`ToolOutcome`]) and what it wrote ([`ToolOutput`]).

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

/// The exit code of a cancelled tool: 128 plus the number of SIGINT, as a shell has it.
const EXIT_CANCELLED: i32 = 130;

/// The longest reason of the guest that is kept, in characters.
const MAX_REASON: usize = 4096;

/// The result of [`Sandbox::execute_tool`](super::Sandbox::execute_tool): how a tool ended, and what it wrote.
///
/// It serialises as `{exit_code, stdout, stderr, evidence_hash}`: the [`exit_code`](Self::exit_code), the streams as
/// [text](ToolOutput::text), and `evidence_hash` only if there is one. This shape doesn't hold everything: an execution
/// that is deserialised from it has the outcome [`Unspecified`](ToolOutcome::Unspecified), streams of unknown total,
/// and a `took` of zero.
///
/// `Debug` shows the lengths of the streams, not their content.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ToolExecution {
    /// How the tool ended.
    pub outcome: ToolOutcome,
    /// What the tool wrote to its standard output.
    pub stdout: ToolOutput,
    /// What the tool wrote to its standard error. If the guest decided the outcome, such as a refusal, the guest's
    /// message.
    pub stderr: ToolOutput,
    /// From the dispatch until the result was checked, as the host measured it.
    pub took: Duration,
    /// The last link of the evidence chain over the output, `sha256:` and 64 hexadecimal digits. `None` from a guest
    /// that makes no evidence.
    pub evidence_hash: Option<String>,
}

impl ToolExecution {
    /// An execution with this outcome and output, for tests and for other implementations of
    /// [`Sandbox`](super::Sandbox). Its `took` is zero and it has no evidence; both fields can be set afterwards.
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

    /// The execution that the guest's answer describes.
    pub(super) fn answered(answer: ToolAnswer, took: Duration) -> ToolExecution {
        let ToolAnswer { result, output } = answer;
        let execution = match result.details.zip(output) {
            Some((details, output)) => ToolExecution::new(
                ToolOutcome::of_answer(&result, details),
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

    /// Whether the tool ended by itself with the exit code 0: see [`ToolOutcome::is_success`].
    pub fn is_success(&self) -> bool {
        self.outcome.is_success()
    }
}

/// How a tool ended, as the guest says.
///
/// A guest with the extension [`result/1`](crate::guest::protocol::Extension::Result) says it explicitly. An older
/// guest sends an exit code alone, from which no outcome is guessed: it is [`Unspecified`](ToolOutcome::Unspecified).
/// `Debug` shows the length of a reason, not its text.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ToolOutcome {
    /// The tool ended by itself.
    Exited {
        /// The tool's exit code, 0 to 255.
        code: i32,
    },
    /// A signal killed the tool. The guest didn't send it because of the deadline.
    Signalled {
        /// The signal's number.
        signal: i32,
    },
    /// The guest killed the tool at its deadline.
    DeadlineExceeded,
    /// The caller [cancelled](super::RunningTool::cancel) the tool, or sent the signal that ended it. Only a tool with
    /// streams has this outcome.
    Cancelled,
    /// The guest has no tool of this name.
    NoSuchTool,
    /// The guest did not start the tool: the parameters don't fit the tool, the deadline is longer than the guest
    /// allows, or too many tools already run. (If the *host* doesn't send an invocation, the call fails with
    /// [`Error::ToolRefused`](super::Error::ToolRefused).)
    Refused {
        /// The guest's reason, as one [line](crate::sanitize::line) of at most 4,096 characters. `stderr` of a
        /// [`ToolExecution`] has it unchanged.
        reason: String,
    },
    /// The guest could not start the tool, or could not follow it to its end.
    GuestFailed {
        /// The guest's reason, as in [`Refused`](ToolOutcome::Refused).
        reason: String,
    },
    /// The guest lacks the extension [`result/1`](crate::guest::protocol::Extension::Result) and sent an exit code
    /// alone.
    Unspecified {
        /// Either the tool's own exit code, or 128 plus the number of a signal, or a code of the guest: 127 no such
        /// tool, 137 killed at the deadline, 254 refused or failed. A tool can exit with each of these codes, so they
        /// can't be told apart.
        exit_code: i32,
    },
}

impl ToolOutcome {
    /// The outcome's name in the protocol: `exited`, `signalled`, `deadline_exceeded`, `cancelled`, `no_such_tool`,
    /// `refused`, `guest_failed`; `unspecified` where the guest did not say.
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

    fn of_answer(result: &ToolResult, details: ResultDetails) -> ToolOutcome {
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

    /// The exit code on the wire.
    ///
    /// | outcome | exit code |
    /// |---|---|
    /// | [`Exited`](Self::Exited) | the tool's own |
    /// | [`Signalled`](Self::Signalled) | 128 plus the signal's number |
    /// | [`DeadlineExceeded`](Self::DeadlineExceeded) | 137 |
    /// | [`Cancelled`](Self::Cancelled) | 130 |
    /// | [`NoSuchTool`](Self::NoSuchTool) | 127 |
    /// | [`Refused`](Self::Refused), [`GuestFailed`](Self::GuestFailed) | 254 |
    /// | [`Unspecified`](Self::Unspecified) | the one that the guest sent |
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

    /// Whether the tool ended by itself with the exit code 0. No other ending has the exit code 0, so an
    /// [`Unspecified`](ToolOutcome::Unspecified) outcome with that code counts as success too.
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
                    "ended with exit code {exit_code}, and the guest does not say how"
                )
            }
        }
    }
}

impl fmt::Debug for ToolOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let with_reason = |f: &mut fmt::Formatter<'_>, name, reason: &str| {
            f.debug_struct(name)
                .field("reason", &format_args!("{} bytes", reason.len()))
                .finish()
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

/// What a tool wrote to one stream, cut at a limit: 1 MiB, which the guest keeps for
/// [`execute_tool`](super::Sandbox::execute_tool), or the limit that the caller gives to
/// [`collect_output`](super::RunningTool::collect_output).
///
/// `Debug` shows the length, not the content.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ToolOutput {
    bytes: Vec<u8>,
    /// Kept and dropped bytes together. Never less than the length of `bytes`.
    total: Option<u64>,
}

impl ToolOutput {
    /// Output of which nothing was dropped.
    pub fn whole(bytes: impl Into<Vec<u8>>) -> ToolOutput {
        ToolOutput::cut(bytes, 0)
    }

    /// Output that was cut: `bytes`, after which `dropped` further bytes came.
    pub fn cut(bytes: impl Into<Vec<u8>>, dropped: u64) -> ToolOutput {
        let bytes = bytes.into();
        let total = dropped.saturating_add(bytes.len() as u64);
        ToolOutput::of(bytes, Some(total))
    }

    /// Output of which it isn't known whether bytes were dropped.
    pub fn of_unknown_total(bytes: impl Into<Vec<u8>>) -> ToolOutput {
        ToolOutput::of(bytes.into(), None)
    }

    pub(super) fn of(bytes: Vec<u8>, total: Option<u64>) -> ToolOutput {
        ToolOutput { bytes, total }
    }

    /// The bytes that were kept. A guest without the extension [`result/1`](crate::guest::protocol::Extension::Result)
    /// sends text, in which U+FFFD stands for each sequence of bytes that was not UTF-8; then these are the bytes of
    /// that text.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The bytes that were kept, by value: see [`bytes`](Self::bytes).
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// The kept bytes as text. U+FFFD stands for each sequence of bytes that is not UTF-8.
    pub fn text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.bytes)
    }

    /// How many bytes the tool wrote, kept and dropped ones together. `None` from a guest without the extension
    /// [`result/1`](crate::guest::protocol::Extension::Result).
    pub fn total(&self) -> Option<u64> {
        self.total
    }

    /// Whether bytes were dropped. `None` if the total isn't known.
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

/// The wire's shape of a [`ToolExecution`].
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
