//! Frames that ask the guest for a reading, and its answers.

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
    /// Names this query in its answer; a random UUID.
    #[serde(deserialize_with = "uuid_v4")]
    pub query_id: Uuid,
    /// Which reading.
    pub query_kind: QueryKind,
    /// When the host asked, by the host's clock.
    pub ts: Timestamp,
}

/// The readings that a guest can give.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum QueryKind {
    /// How many descriptors are open.
    OpenFdCount,
    /// How much memory is in use.
    MemUsage,
    /// Which processes run.
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
/// On the wire `query_kind` and `result` are fields of the frame; here the result's variant says the kind, so the two
/// can't disagree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GuestResponse {
    /// The query that this answers.
    pub query_id: Uuid,
    /// The kind and its reading.
    #[serde(flatten)]
    pub result: QueryResult,
    /// When the guest answered, by the guest's clock.
    pub ts: Timestamp,
}

/// A reading.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "query_kind", content = "result")]
pub enum QueryResult {
    /// How many descriptors are open.
    OpenFdCount(OpenFdCount),
    /// How much memory is in use.
    MemUsage(MemUsage),
    /// Which processes run.
    ProcessList(ProcessList),
}

impl QueryResult {
    /// About how many bytes its texts and lists hold.
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

/// How many descriptors are open in the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpenFdCount {
    /// The sum over all guest processes of descriptors that aren't sockets: a restore changes sockets by its
    /// nature.
    pub open_fd_count: u64,
}

/// How much memory is in use in the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemUsage {
    /// Bytes in use.
    pub bytes_used: u64,
    /// Bytes that the guest has.
    pub bytes_total: u64,
}

/// Which processes run in the guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProcessList {
    /// At most [`MAX_PROCESSES`].
    #[serde(deserialize_with = "processes")]
    pub processes: Vec<GuestProcess>,
}

/// A process of the guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GuestProcess {
    /// The name that the guest's kernel has for it.
    pub name: String,
    /// Its process id in the guest.
    pub pid: NonZeroU32,
}

fn processes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<GuestProcess>, D::Error> {
    let list = at_most::<MAX_PROCESSES, Closed<GuestProcess>, D>(deserializer)?;
    Ok(list.into_iter().map(|Closed(process)| process).collect())
}

impl<'de> Deserialize<'de> for GuestResponse {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        /// The frame before its kind says how to read its result, which may come first.
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
