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

/// The first frame of a connection that runs one tool with [streams](super#streams).
///
/// The guest answers with [`Opened`], after which records follow, or with an [`ErrorEvent`](super::ErrorEvent), after
/// which it closes the connection. If the guest doesn't have the tool or refuses it, it answers with [`Opened`], too,
/// and sends the [`RunEnd`] at once.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpenRun {
    /// The id that the host has chosen for this run. It differs from those of all other runs and commands in flight
    /// ([`ToolDispatch`](super::ToolDispatch)). `chv-guest` answers an id of more than 256 bytes, and the id of a
    /// running tool, with an [`ErrorEvent`](super::ErrorEvent).
    pub command_id: String,
    /// The name of a tool on the guest's allow-list. If the guest has no such tool, the run ends with
    /// [`RunOutcome::NoSuchTool`].
    pub tool: ToolName,
    /// The tool's parameters: a JSON object, or null for none. The tool's declaration in the guest maps them to
    /// arguments. Decoding accepts any JSON; with parameters that the tool doesn't accept, the run ends with
    /// [`RunOutcome::Refused`].
    pub params: Value,
    /// How long the tool may run, in milliseconds from the arrival of this frame. Afterwards the guest kills it and
    /// every process that it started. With more than 3,600,000 (one hour) the run ends in `chv-guest` with
    /// [`RunOutcome::Refused`].
    pub deadline_ms: u64,
    /// Where the tool's standard input comes from. If the tool doesn't accept [`StdinMode::Piped`], the run ends with
    /// [`RunOutcome::Refused`].
    pub stdin: StdinMode,
    /// Environment variables beside or in place of those that the guest sets, by name. With a variable that the image's
    /// tools file doesn't allow for this tool, and with more than [`MAX_ENVIRONMENT`] (32 KiB) of names and values, the
    /// run ends with [`RunOutcome::Refused`].
    pub env: BTreeMap<String, String>,
    /// The tool's working directory, an absolute path below the tools' root without `..`; `None` (absent or null) for
    /// the tool's default. The run ends with [`RunOutcome::Refused`] if the image's tools file doesn't let the host
    /// choose it for this tool, or if the tool can't enter it.
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

/// Where a tool's standard input comes from. On the wire: `none` or `piped`; another name is
/// [malformed](super#malformed-frames).
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
///
/// The guest answers with [`Opened`], after which records follow, or with an [`ErrorEvent`](super::ErrorEvent), after
/// which it closes the connection. If it refuses the path or fails later, the [`TransferEnd`] says why, and no file of
/// the transfer is left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpenPush {
    /// The id that the host has chosen for this transfer: a random UUID (version 4). A UUID of another version is
    /// [malformed](super#malformed-frames). The guest doesn't repeat the id.
    #[serde(deserialize_with = "uuid_v4")]
    pub transfer_id: Uuid,
    /// The path that the guest creates, as the tools see it: the guest's directory for files, or a path inside that
    /// directory, either absolute or relative to it. The transfer fails with the code `SANDBOX_FILE_NAME` if the path
    /// is another one or has a `..`, if it exists already, or if its parent directory doesn't exist.
    pub path: String,
    /// How many entries and bytes the tar stream may have. With more the transfer fails with the code
    /// `SANDBOX_FILE_LIMIT`.
    #[serde(deserialize_with = "closed")]
    pub limits: TransferLimits,
}

/// The first frame of a connection that transfers files out of the guest. It is answered as [`OpenPush`] is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpenPull {
    /// The id that the host has chosen for this transfer, as in [`OpenPush::transfer_id`].
    #[serde(deserialize_with = "uuid_v4")]
    pub transfer_id: Uuid,
    /// The path of the file or directory that the guest sends, in the form of [`OpenPush::path`]. The transfer fails
    /// with the code `SANDBOX_FILE_NAME` if nothing is there, or if the path leads through a symbolic link.
    pub path: String,
    /// How many entries and bytes the tar stream may have. With more the transfer fails with the code
    /// `SANDBOX_FILE_LIMIT`.
    #[serde(deserialize_with = "closed")]
    pub limits: TransferLimits,
}

/// The guest's answer to an [`OpenRun`], [`OpenPush`] or [`OpenPull`]: records follow on this connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Opened {}

/// The body of a [`Signal`](crate::guest::record::RecordKind::Signal) record: the signal that is sent to the tool and
/// every process that it started. On the wire it is the JSON string `"terminate"` or `"kill"`. If a host sends another
/// one, `chv-guest` kills the tool and closes the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunSignal {
    /// SIGTERM, which the tool may handle.
    Terminate,
    /// SIGKILL, which ends the tool.
    Kill,
}

/// The body of the last record of a run with streams.
///
/// The host compares it with the records that came and those that it sent. If they disagree, the run fails with
/// [`Protocol`](crate::vsock::Error::Protocol) for the totals and `cut`, and with
/// [`Evidence`](crate::vsock::Error::Evidence) for the links and `records_taken`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunEnd {
    /// How the tool ended.
    pub outcome: RunOutcome,
    /// The number of bytes that the guest has read of the tool's standard output, sent or not.
    pub stdout_total: u64,
    /// The number of bytes that the guest has read of the tool's standard error, sent or not.
    pub stderr_total: u64,
    /// Whether the tool wrote more than its limit of output, so that fewer bytes were sent than the totals say.
    pub cut: bool,
    /// The last link of the [chain](super::RunChain) of the records that the guest has received and processed:
    /// `sha256:` and 64 lower-case hexadecimal digits. A text that is no digest is refused by
    /// [`decode`](JsonRecord::decode).
    #[serde(deserialize_with = "digest")]
    pub to_guest_hash: String,
    /// The last link of the chain of the records that the guest has sent, without this one, in the same form.
    #[serde(deserialize_with = "digest")]
    pub to_host_hash: String,
    /// How many records the guest has received and processed; those that come after the tool's end are not processed.
    pub records_taken: u64,
}

/// How a run with streams ended. On the wire it is an object whose `kind` is the variant's name in snake case, such as
/// `{"kind": "exited", "code": 0}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum RunOutcome {
    /// The tool ended by itself. This includes a tool that handled a signal and then exited.
    Exited {
        /// The tool's exit code, 0 to 255.
        code: u8,
    },
    /// A signal killed the tool that neither the guest sent at the deadline nor the host sent in a record.
    Signalled {
        /// The signal's number on Linux, such as 11 for SIGSEGV.
        signal: u8,
    },
    /// The guest killed the tool at its deadline.
    DeadlineExceeded {},
    /// A signal that the host sent killed the tool.
    Cancelled {},
    /// The guest has no tool of this name.
    NoSuchTool {},
    /// The guest didn't start the tool, because the request isn't allowed or because as many tools run as the guest
    /// runs at the same time (32 in `chv-guest`).
    Refused {
        /// Why the guest refused, in words, as the guest sent it. `chv-guest` sends at most 1,000 characters.
        reason: String,
    },
    /// The guest couldn't start the tool, or couldn't follow it to its end.
    GuestFailed {
        /// The error in words, as the guest sent it. `chv-guest` sends at most 1,000 characters.
        reason: String,
    },
}

/// The body of the last record of a transfer. After a push the guest sends it once all files are on the disk.
///
/// After a success the host compares the totals and the digest with its own. If they differ, the transfer fails with
/// [`TransferError::Disagreement`](crate::sandbox::TransferError::Disagreement).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TransferEnd {
    /// The error's stable code; `None` (absent or null) after a success. `chv-guest` sends a code of the
    /// [list](crate::archive#what-is-refused), or `SANDBOX_VSOCK_PROTOCOL_ERROR` if the host sent a record that isn't
    /// allowed. A sandbox takes a code that it doesn't know for `SANDBOX_FILE_IO`.
    #[serde(default)]
    pub code: Option<String>,
    /// The error in words, as the guest sent it; `None` (absent or null) after a success. `chv-guest` sends at most
    /// 4,096 characters.
    #[serde(default)]
    pub message: Option<String>,
    /// The number of files, directories and symbolic links, including the transferred file or directory itself; after a
    /// failure those that were begun.
    pub entries: u64,
    /// The size of all files together, in bytes; after a failure the bytes that were packed or extracted.
    pub bytes: u64,
    /// The SHA-256 of the tar stream; after a failure the SHA-256 of no bytes.
    pub sha256: Digest,
}

fn closed<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    let Closed(object) = Closed::deserialize(deserializer)?;
    Ok(object)
}

/// The body of a [record](super#streams) that is JSON: [`RunSignal`], [`RunEnd`] or [`TransferEnd`].
///
/// Another crate can implement this trait, but nothing in this crate reads or writes a record of another type.
pub trait JsonRecord: Sized + Serialize {
    /// Reads the body of a record, without the record's header. The body's length isn't checked:
    /// [`RecordHeader`](crate::guest::record::RecordHeader) has refused more than 64 KiB before.
    ///
    /// # Errors
    ///
    /// [`DecodeError::NotAFrame`] if the body isn't UTF-8 or isn't JSON, if something follows the JSON, or if it isn't
    /// the JSON of this type. The objects are [closed](super#malformed-frames) as those of frames are. The other
    /// variants don't occur.
    fn decode(body: &[u8]) -> Result<Self, DecodeError>;

    /// The value as the body of a record.
    ///
    /// # Panics
    ///
    /// If the value can't be serialised as JSON. The types of this crate always can.
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

/// The most bytes of environment variables that a host may set for a run, names and values together: 32 KiB. With more
/// the run ends with [`RunOutcome::Refused`].
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
