//! [`GuestQuery`], which asks the guest for a reading, and its answer [`GuestResponse`].

use std::num::NonZeroU32;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, de};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::MAX_PROCESSES;
use super::closed::{Closed, at_most, uuid_v4};

/// Asks the guest for a reading. If the reading can't be taken, the guest answers with an
/// [`ErrorEvent`](super::ErrorEvent) instead of a [`GuestResponse`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GuestQuery {
    /// The id that the host has chosen for this query: a random UUID (version 4). A UUID of another version is
    /// [malformed](super#malformed-frames). The answer repeats the id.
    #[serde(deserialize_with = "uuid_v4")]
    pub query_id: Uuid,
    /// Which reading the host asks for. A name that this build doesn't know is [malformed](super#malformed-frames).
    pub query_kind: QueryKind,
    /// When the host asked, by the host's clock. On the wire: RFC 3339. `chv-guest` doesn't use it.
    pub ts: Timestamp,
}

/// The readings that a guest can give. [`QueryResult`] has the readings themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum QueryKind {
    /// The number of open descriptors of all processes that aren't sockets.
    OpenFdCount,
    /// The memory in use, in bytes.
    MemUsage,
    /// The running processes, at most [`MAX_PROCESSES`] (100).
    ProcessList,
}

impl QueryKind {
    /// The variant's name, which is also its name on the wire, such as `MemUsage`.
    pub const fn name(self) -> &'static str {
        match self {
            QueryKind::OpenFdCount => "OpenFdCount",
            QueryKind::MemUsage => "MemUsage",
            QueryKind::ProcessList => "ProcessList",
        }
    }
}

/// The guest's answer to a [`GuestQuery`].
///
/// On the wire `query_kind` and `result` are two fields of the frame. Here the variant of `result` is the kind, so the
/// two can't disagree. A frame whose `result` isn't that of its `query_kind` is [malformed](super#malformed-frames).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GuestResponse {
    /// The [`GuestQuery::query_id`] of the query that this answers. The host closes the channel if no such query waits
    /// for an answer or has timed out. A UUID of another version than 4 is [malformed](super#malformed-frames).
    pub query_id: Uuid,
    /// The reading, and with its variant the kind of the query. If it isn't the kind that the host asked for, the host
    /// closes the channel.
    #[serde(flatten)]
    pub result: QueryResult,
    /// When the guest answered, by the guest's clock. On the wire: RFC 3339. The host doesn't use it.
    pub ts: Timestamp,
}

/// A reading of the guest, by the kind of query that asked for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "query_kind", content = "result")]
pub enum QueryResult {
    /// The number of open descriptors that aren't sockets.
    OpenFdCount(OpenFdCount),
    /// The memory in use.
    MemUsage(MemUsage),
    /// The running processes.
    ProcessList(ProcessList),
}

impl QueryResult {
    /// About how many bytes the reading's texts and lists occupy in memory.
    pub(super) fn weight(&self) -> usize {
        match self {
            QueryResult::OpenFdCount(_) | QueryResult::MemUsage(_) => 0,
            QueryResult::ProcessList(list) => {
                let processes = list.processes.iter();
                processes
                    .map(|process| size_of::<GuestProcess>() + process.name.len())
                    .sum()
            }
        }
    }

    /// The kind of query that this answers.
    pub fn kind(&self) -> QueryKind {
        match self {
            QueryResult::OpenFdCount(_) => QueryKind::OpenFdCount,
            QueryResult::MemUsage(_) => QueryKind::MemUsage,
            QueryResult::ProcessList(_) => QueryKind::ProcessList,
        }
    }
}

/// The number of open descriptors in the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpenFdCount {
    /// The sum over all processes of the guest of descriptors that aren't sockets. Sockets don't count, since a restore
    /// ends vsock connections and the host opens new ones.
    pub open_fd_count: u64,
}

/// The memory in use in the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemUsage {
    /// The memory in use, in bytes. `chv-guest` reports `MemTotal` minus `MemAvailable` of `/proc/meminfo`.
    pub bytes_used: u64,
    /// The memory that the guest's kernel manages, in bytes: `MemTotal` of `/proc/meminfo`.
    pub bytes_total: u64,
}

/// The running processes of the guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProcessList {
    /// At most [`MAX_PROCESSES`] (100); a longer list is [malformed](super#malformed-frames). `chv-guest` leaves out
    /// kernel threads, sorts the processes by pid, and sends the first 100.
    #[serde(deserialize_with = "processes")]
    pub processes: Vec<GuestProcess>,
}

/// A process of the guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GuestProcess {
    /// The process's name as `/proc/<pid>/stat` has it, without its parentheses. `chv-guest` sends at most 64
    /// characters. A process chooses its own name.
    pub name: String,
    /// The process id inside the guest. 0 is [malformed](super#malformed-frames).
    pub pid: NonZeroU32,
}

fn processes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<GuestProcess>, D::Error> {
    let list = at_most::<MAX_PROCESSES, Closed<GuestProcess>, D>(deserializer)?;
    Ok(list.into_iter().map(|Closed(process)| process).collect())
}

impl<'de> Deserialize<'de> for GuestResponse {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        /// The frame with its result still undecoded. The kind says how to decode the result, and may stand after it.
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Unread<'a> {
            #[serde(deserialize_with = "uuid_v4")]
            query_id: Uuid,
            query_kind: QueryKind,
            #[serde(borrow)]
            result: &'a RawValue,
            ts: Timestamp,
        }

        fn read<'a, T: Deserialize<'a>, E: de::Error>(result: &'a RawValue) -> Result<T, E> {
            let Closed(reading) = serde_json::from_str(result.get()).map_err(E::custom)?;
            Ok(reading)
        }

        let unread = Unread::deserialize(deserializer)?;
        let result = match unread.query_kind {
            QueryKind::OpenFdCount => QueryResult::OpenFdCount(read(unread.result)?),
            QueryKind::MemUsage => QueryResult::MemUsage(read(unread.result)?),
            QueryKind::ProcessList => QueryResult::ProcessList(read(unread.result)?),
        };
        Ok(GuestResponse {
            query_id: unread.query_id,
            result,
            ts: unread.ts,
        })
    }
}
