//! The frames that open a run with streams or a transfer of files ([`OpenRun`], [`OpenPush`], [`OpenPull`]), and the
//! JSON records of these connections ([`RunSignal`], [`RunEnd`], [`TransferEnd`]).

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use uuid::Uuid;

use super::closed::{Closed, uuid_v4};
use super::reset::digest;
use super::{DecodeError, ToolName};
use crate::archive::TransferLimits;
use crate::digest::Digest;

/// The first frame of a connection that runs one tool with streams.
///
/// The guest answers with [`Opened`], after which records follow, or with an [`ErrorEvent`](super::ErrorEvent), after
/// which it closes the connection. If the guest doesn't have the tool or refuses it, it answers with [`Opened`], too,
/// and sends the [`RunEnd`] at once.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpenRun {
    /// Identifies this run.
    pub command_id: String,
    /// The name of a tool on the guest's allow-list.
    pub tool: ToolName,
    /// The tool's parameters: a JSON object, or null for none. The tool's declaration in the guest maps them to
    /// arguments.
    pub params: Value,
    /// How long the tool may run, in milliseconds. Afterwards the guest kills it.
    pub deadline_ms: u64,
    /// Where the tool's standard input comes from.
    pub stdin: StdinMode,
    /// Environment variables beside those that the guest sets. The guest refuses a variable that the image's tools file
    /// doesn't allow for this tool, and more than [`MAX_ENVIRONMENT`] bytes.
    pub env: BTreeMap<String, String>,
    /// The tool's working directory. The guest refuses it unless the image's tools file lets the host choose it for
    /// this tool.
    #[serde(default)]
    pub cwd: Option<String>,
}

impl fmt::Debug for OpenRun {
    /// Without the values of the environment, which may be secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenRun")
            .field("command_id", &self.command_id)
            .field("tool", &self.tool)
            .field("params", &self.params)
            .field("deadline_ms", &self.deadline_ms)
            .field("stdin", &self.stdin)
            .field("env", &self.env.keys())
            .field("cwd", &self.cwd)
            .finish()
    }
}

/// Where a tool's standard input comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StdinMode {
    /// Standard input is empty.
    #[default]
    None,
    /// Standard input is what the host sends in [`Stdin`](crate::guest::record::RecordKind::Stdin) records.
    Piped,
}

/// The first frame of a connection that transfers files into the guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpenPush {
    /// Identifies this transfer, a random UUID (version 4).
    #[serde(deserialize_with = "uuid_v4")]
    pub transfer_id: Uuid,
    /// The path that is created, as the tools see it: the guest's directory for files, or a path inside that directory,
    /// either absolute or relative to it.
    pub path: String,
    /// How many entries and bytes the stream may have.
    #[serde(deserialize_with = "closed")]
    pub limits: TransferLimits,
}

/// The first frame of a connection that transfers files out of the guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpenPull {
    /// Identifies this transfer, a random UUID (version 4).
    #[serde(deserialize_with = "uuid_v4")]
    pub transfer_id: Uuid,
    /// The path that is sent, as in [`OpenPush::path`].
    pub path: String,
    /// How many entries and bytes the stream may have.
    #[serde(deserialize_with = "closed")]
    pub limits: TransferLimits,
}

/// The guest's answer to an [`OpenRun`], [`OpenPush`] or [`OpenPull`]: records follow on this connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Opened {}

/// The body of a [`Signal`](crate::guest::record::RecordKind::Signal) record: the signal that is sent to the tool and
/// every process that it started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunSignal {
    /// SIGTERM, which the tool may handle.
    Terminate,
    /// SIGKILL, which ends the tool.
    Kill,
}

/// The body of the last record of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunEnd {
    /// How the tool ended.
    pub outcome: RunOutcome,
    /// The number of bytes that the tool wrote to its standard output.
    pub stdout_total: u64,
    /// The number of bytes that the tool wrote to its standard error.
    pub stderr_total: u64,
    /// Whether the tool reached its limit of output, so that fewer bytes were sent than the totals say.
    pub cut: bool,
    /// The last link of the [chain](super::RunChain) of the records that the guest has received and processed.
    #[serde(deserialize_with = "digest")]
    pub to_guest_hash: String,
    /// The last link of the chain of the records that the guest has sent, without this one.
    #[serde(deserialize_with = "digest")]
    pub to_host_hash: String,
    /// How many records the guest has received and processed.
    pub records_taken: u64,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum RunOutcome {
    /// The tool ended by itself. This includes a tool that handled a signal and then exited.
    Exited {
        /// The tool's exit code.
        code: u8,
    },
    /// A signal killed the tool that neither the guest sent at the deadline nor the host sent in a record.
    Signalled {
        /// The signal's number.
        signal: u8,
    },
    /// The guest killed the tool at its deadline.
    DeadlineExceeded {},
    /// A signal that the host sent killed the tool.
    Cancelled {},
    /// The guest has no tool of this name.
    NoSuchTool {},
    /// The guest didn't start the tool, because the request isn't allowed or too many tools run.
    Refused {
        /// Why the guest refused.
        reason: String,
    },
    /// The guest couldn't start the tool, or couldn't follow it to its end.
    GuestFailed {
        /// The error in words.
        reason: String,
    },
}

/// The body of the last record of a transfer. After a push the guest sends it once all files are on the disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TransferEnd {
    /// The error's stable code; `None` after a success.
    #[serde(default)]
    pub code: Option<String>,
    /// The error in words; `None` after a success.
    #[serde(default)]
    pub message: Option<String>,
    /// The number of files, directories and symbolic links.
    pub entries: u64,
    /// The size of all files together, in bytes.
    pub bytes: u64,
    /// The SHA-256 of the tar stream; after a failure the SHA-256 of no bytes.
    pub sha256: Digest,
}

fn closed<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    let Closed(object) = Closed::deserialize(deserializer)?;
    Ok(object)
}

/// The body of a record that is JSON: [`RunSignal`], [`RunEnd`] or [`TransferEnd`].
pub trait JsonRecord: Sized + Serialize {
    /// Reads the body of a record.
    ///
    /// # Errors
    ///
    /// [`DecodeError::NotAFrame`] if the body isn't JSON, or breaks another rule of the protocol.
    fn decode(body: &[u8]) -> Result<Self, DecodeError>;

    /// The value as the body of a record.
    fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a record has string keys and no fallible serialiser")
    }
}

impl JsonRecord for RunSignal {
    fn decode(body: &[u8]) -> Result<RunSignal, DecodeError> {
        Ok(serde_json::from_slice(body)?)
    }
}

impl JsonRecord for RunEnd {
    fn decode(body: &[u8]) -> Result<RunEnd, DecodeError> {
        let Closed(end) = serde_json::from_slice(body)?;
        Ok(end)
    }
}

impl JsonRecord for TransferEnd {
    fn decode(body: &[u8]) -> Result<TransferEnd, DecodeError> {
        let Closed(end) = serde_json::from_slice(body)?;
        Ok(end)
    }
}

/// The most bytes of environment variables that a host may set for a run, names and values together: 32 KiB.
pub const MAX_ENVIRONMENT: usize = 32 << 10;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[track_caller]
    fn round_trip<T: JsonRecord + PartialEq + fmt::Debug>(record: &T, body: &Value) {
        let encoded: Value = serde_json::from_slice(&record.encode()).unwrap();
        assert_eq!(encoded, *body);
        assert_eq!(T::decode(&record.encode()).as_ref(), Ok(record));
    }

    #[test]
    fn json_records_keep_their_wire_shape() {
        round_trip(&RunSignal::Terminate, &json!("terminate"));
        round_trip(&RunSignal::Kill, &json!("kill"));
        let outcomes = [
            (
                RunOutcome::Exited { code: 3 },
                json!({"kind": "exited", "code": 3}),
            ),
            (
                RunOutcome::Signalled { signal: 11 },
                json!({"kind": "signalled", "signal": 11}),
            ),
            (
                RunOutcome::DeadlineExceeded {},
                json!({"kind": "deadline_exceeded"}),
            ),
            (RunOutcome::Cancelled {}, json!({"kind": "cancelled"})),
            (RunOutcome::NoSuchTool {}, json!({"kind": "no_such_tool"})),
            (
                RunOutcome::Refused { reason: "r".into() },
                json!({"kind": "refused", "reason": "r"}),
            ),
            (
                RunOutcome::GuestFailed { reason: "r".into() },
                json!({"kind": "guest_failed", "reason": "r"}),
            ),
        ];
        for (outcome, on_the_wire) in outcomes {
            let end = RunEnd {
                outcome,
                stdout_total: 1,
                stderr_total: u64::MAX,
                cut: true,
                to_guest_hash: DIGEST.to_owned(),
                to_host_hash: DIGEST.to_owned(),
                records_taken: 2,
            };
            let body = json!({
                "outcome": on_the_wire, "stdout_total": 1, "stderr_total": u64::MAX, "cut": true,
                "to_guest_hash": DIGEST, "to_host_hash": DIGEST, "records_taken": 2,
            });
            round_trip(&end, &body);
        }
        let failed = TransferEnd {
            code: Some("SANDBOX_FILE_NAME".to_owned()),
            message: Some("m".to_owned()),
            entries: 1,
            bytes: 2,
            sha256: DIGEST.parse().unwrap(),
        };
        let body = json!({
            "code": "SANDBOX_FILE_NAME", "message": "m", "entries": 1, "bytes": 2, "sha256": DIGEST,
        });
        round_trip(&failed, &body);
    }

    #[test]
    fn anything_else_in_their_place_is_refused() {
        let outcome = json!({"kind": "exited", "code": 0});
        let good = json!({
            "outcome": outcome, "stdout_total": 0, "stderr_total": 0, "cut": false,
            "to_guest_hash": DIGEST, "to_host_hash": DIGEST, "records_taken": 0,
        });
        assert!(RunEnd::decode(good.to_string().as_bytes()).is_ok());
        for (field, value) in [
            ("surprise", json!(1)),
            ("outcome", json!("exited")),
            ("outcome", json!({"kind": "exited"})),
            ("outcome", json!({"kind": "exited", "code": 256})),
            ("outcome", json!({"kind": "exited", "code": -1})),
            ("outcome", json!({"kind": "exploded"})),
            ("outcome", json!({"kind": "cancelled", "code": 1})),
            ("stdout_total", json!(-1)),
            ("to_host_hash", json!("sha256:")),
            ("records_taken", json!(0.5)),
        ] {
            let mut bad = good.clone();
            bad[field] = value;
            assert!(RunEnd::decode(bad.to_string().as_bytes()).is_err(), "{bad}");
        }
        for field in good.as_object().unwrap().keys() {
            let mut bad = good.clone();
            bad.as_object_mut().unwrap().remove(field);
            assert!(RunEnd::decode(bad.to_string().as_bytes()).is_err(), "{bad}");
        }
        let array = Value::Array(good.as_object().unwrap().values().cloned().collect());
        assert!(RunEnd::decode(array.to_string().as_bytes()).is_err());
        assert!(RunEnd::decode(b"{}{}").is_err());
        for body in [&b"terminate"[..], b"\"stop\"", b"9", b"null", b""] {
            assert!(RunSignal::decode(body).is_err(), "{body:?}");
        }
    }

    #[test]
    fn the_values_of_the_environment_are_not_shown() {
        let open = OpenRun {
            command_id: "c1".to_owned(),
            tool: ToolName::new("sh").unwrap(),
            params: json!({}),
            deadline_ms: 1,
            stdin: StdinMode::None,
            env: BTreeMap::from([("TOKEN".to_owned(), "hunter2".to_owned())]),
            cwd: None,
        };
        let shown = format!("{open:?}");
        assert!(
            shown.contains("TOKEN") && !shown.contains("hunter2"),
            "{shown}"
        );
    }
}
