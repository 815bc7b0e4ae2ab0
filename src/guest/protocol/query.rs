//! [`GuestQuery`], which asks the guest for a reading, and its answer [`GuestResponse`].

use std::num::NonZeroU32;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, de};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::MAX_PROCESSES;
use super::closed::{Closed, at_most, uuid_v4};

/// Asks the guest for a reading.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GuestQuery {
    /// Identifies this query, a random UUID (version 4); the answer repeats it.
    #[serde(deserialize_with = "uuid_v4")]
    pub query_id: Uuid,
    /// Which reading is asked for.
    pub query_kind: QueryKind,
    /// When the host asked, by the host's clock.
    pub ts: Timestamp,
}

/// The readings that a guest can give.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum QueryKind {
    /// The number of open descriptors that aren't sockets.
    OpenFdCount,
    /// The memory in use.
    MemUsage,
    /// The running processes, at most [`MAX_PROCESSES`].
    ProcessList,
}

impl QueryKind {
    /// The kind's name on the wire.
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
/// two can't disagree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GuestResponse {
    /// The query that this answers.
    pub query_id: Uuid,
    /// The kind of the query and its reading.
    #[serde(flatten)]
    pub result: QueryResult,
    /// When the guest answered, by the guest's clock.
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
    /// The memory in use, in bytes.
    pub bytes_used: u64,
    /// The guest's whole memory, in bytes.
    pub bytes_total: u64,
}

/// The running processes of the guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProcessList {
    /// At most [`MAX_PROCESSES`]; a longer list is malformed.
    #[serde(deserialize_with = "processes")]
    pub processes: Vec<GuestProcess>,
}

/// A process of the guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GuestProcess {
    /// The process's name as the guest's kernel reports it.
    pub name: String,
    /// The process id inside the guest.
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
