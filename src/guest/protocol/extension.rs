//! [`Hello`] and the [`Extension`]s of the protocol: what was added after its first version, and the frames [`Imprint`]
//! and [`Renew`] that came with them.
//!
//! A host uses an extension only with a guest whose own hello lists it. A guest from before the hello answers it with
//! an [`ErrorEvent`](super::ErrorEvent); the host then goes on without extensions.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use uuid::Uuid;

use super::PROTOCOL_VERSION;
use super::closed::{at_most, uuid_v4};
use super::tool::base64_bytes;
use crate::sanitize;

/// The most extensions that a hello may list; with more it is malformed.
const MAX_EXTENSIONS: usize = 64;

/// The sender's version, build and [extensions](super#extensions). The host sends it as the first frame of the channel,
/// and the guest answers with its own. A guest from before the hello answers with an
/// [`ErrorEvent`](super::ErrorEvent); the host then uses no extension.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hello {
    /// The version of the protocol that the sender speaks. This build sends [`PROTOCOL_VERSION`], which is 1. Decoding
    /// accepts any number, and neither side of this crate refuses one: what a peer can do is in `extensions`.
    pub protocol: u32,
    /// The sender's [`BUILD_ID`](crate::guest::BUILD_ID). Decoding accepts any text and makes it a
    /// [line](crate::sanitize::line) of at most 128 characters.
    #[serde(deserialize_with = "build_id")]
    pub build_id: String,
    /// The [names](Extension::name) of the extensions that the sender knows, at most 64; a hello with more is
    /// [malformed](super#malformed-frames). The receiver ignores names that it doesn't know.
    #[serde(deserialize_with = "extensions")]
    pub extensions: Vec<String>,
    /// The [nonce](super#the-nonce) of the last [`Imprint`] that this guest got; `None` (absent or null) if it got none
    /// since its boot. A host of this crate sends none, and `chv-guest` ignores one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nonce: Option<String>,
}

impl Hello {
    /// The hello of this build, with every extension of [`Extension::ALL`] and no nonce.
    pub fn of_this_build() -> Hello {
        Hello {
            protocol: PROTOCOL_VERSION,
            build_id: crate::guest::BUILD_ID.to_owned(),
            extensions: Extension::ALL
                .map(|extension| extension.name().to_owned())
                .to_vec(),
            nonce: None,
        }
    }

    /// About how many bytes the hello's texts occupy in memory.
    pub(super) fn weight(&self) -> usize {
        let names = self.extensions.iter();
        let names: usize = names.map(|name| size_of::<String>() + name.len()).sum();
        names + self.build_id.len() + self.nonce.as_ref().map_or(0, String::len)
    }

    /// Whether the sender lists the name of `extension`.
    pub fn supports(&self, extension: Extension) -> bool {
        self.extensions.iter().any(|name| name == extension.name())
    }

    /// Whether the sender names the same [`BUILD_ID`](crate::guest::BUILD_ID) as this build has.
    pub fn is_same_build(&self) -> bool {
        self.build_id == crate::guest::BUILD_ID
    }
}

/// An [extension](super#extensions): an optional part of the protocol that was added after its first version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Extension {
    /// [`Imprint`]: the guest keeps a [nonce](super#the-nonce) in memory, and writes all of its pending data to the
    /// disk.
    Nonce,
    /// [`Renew`]: the guest reseeds its kernel's random pool.
    Reseed,
    /// [`Renew`]: the guest sets its clock.
    Clock,
    /// [`EvidenceChunk`](super::EvidenceChunk): the guest sends evidence for every command, and a result without
    /// evidence is an error. A guest without this extension may send chunks or not.
    Evidence,
    /// [`ResultDetails`](super::ResultDetails): a result tells how the tool ended and how much it wrote. A guest sends
    /// the details only to a host whose hello lists this extension. The details count the bytes in the chunks, so a
    /// result with details needs evidence, too, of at most twice [`MAX_OUTPUT`](super::MAX_OUTPUT) bytes.
    Result,
    /// [`OpenRun`](super::OpenRun): the guest runs tools with streams, each on a connection of its own.
    Run,
    /// [`OpenPush`](super::OpenPush) and [`OpenPull`](super::OpenPull): the guest transfers files, each transfer on a
    /// connection of its own.
    Files,
    /// [`WarmDispatch`](super::Frame::WarmDispatch): the guest makes [warm runs](super#warm-runs), in which it discards
    /// what a tool writes.
    Warm,
}

impl Extension {
    /// Every extension that this build knows.
    pub const ALL: [Extension; 8] = [
        Extension::Nonce,
        Extension::Reseed,
        Extension::Clock,
        Extension::Evidence,
        Extension::Result,
        Extension::Run,
        Extension::Files,
        Extension::Warm,
    ];

    /// The extension's name in a [`Hello`], such as `nonce` or `result/1`. Names are compared byte by byte; a number at
    /// the end is a part of the name.
    pub const fn name(self) -> &'static str {
        match self {
            Extension::Nonce => "nonce",
            Extension::Reseed => "reseed",
            Extension::Clock => "clock",
            Extension::Evidence => "evidence",
            Extension::Result => "result/1",
            Extension::Run => "run/1",
            Extension::Files => "files/1",
            Extension::Warm => "warm/1",
        }
    }
}

/// Asks the guest to keep a [nonce](super#the-nonce) in memory, in place of an earlier one. A host sends it before it
/// takes the [golden snapshot](crate::golden).
///
/// A guest that was restored from the snapshot has the nonce, and a guest that has rebooted has none. The guest also
/// writes its pending data to the disk, since every restored guest would write it otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Imprint {
    /// The id that the host has chosen for this request: a random UUID (version 4). A UUID of another version is
    /// [malformed](super#malformed-frames). [`Imprinted`] repeats the id.
    #[serde(deserialize_with = "uuid_v4")]
    pub request_id: Uuid,
    /// The nonce, any text. Decoding accepts every length. `chv-guest` answers a nonce of more than 256 bytes with an
    /// [`ErrorEvent`](super::ErrorEvent), and keeps the nonce that it had.
    pub nonce: String,
}

/// The guest's answer to an [`Imprint`]: it keeps the nonce, and has written its pending data to the disk. If writing
/// fails, `chv-guest` logs the error and sends the same answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Imprinted {
    /// The [`Imprint::request_id`] of the request that this answers. The host closes the channel if no such request
    /// waits for an answer or has timed out. A UUID of another version than 4 is [malformed](super#malformed-frames).
    #[serde(deserialize_with = "uuid_v4")]
    pub request_id: Uuid,
}

/// Asks a restored guest to reseed its random pool and to set its clock. Otherwise all guests that were restored from
/// one snapshot would have the same random numbers and the snapshot's time. The guest tries both, and [`Renewed`] tells
/// which succeeded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Renew {
    /// The id that the host has chosen for this request: a random UUID (version 4). A UUID of another version is
    /// [malformed](super#malformed-frames). [`Renewed`] repeats the id.
    #[serde(deserialize_with = "uuid_v4")]
    pub request_id: Uuid,
    /// Fresh randomness for the guest kernel's pool.
    pub seed: Seed,
    /// The host's time, in nanoseconds since 1970-01-01 UTC. The guest sets its clock to it.
    pub unix_nanos: u64,
}

/// The guest's answer to a [`Renew`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Renewed {
    /// The [`Renew::request_id`] of the request that this answers. The host closes the channel if no such request waits
    /// for an answer or has timed out. A UUID of another version than 4 is [malformed](super#malformed-frames).
    #[serde(deserialize_with = "uuid_v4")]
    pub request_id: Uuid,
    /// The [nonce](super#the-nonce) of the last [`Imprint`] that this guest got; `None` (absent or null) if it got none
    /// since its boot.
    #[serde(default)]
    pub nonce: Option<String>,
    /// Whether the guest's kernel took the seed and reseeded its random pool. `chv-guest` logs the error otherwise.
    pub reseeded: bool,
    /// Whether the guest's clock was set to [`Renew::unix_nanos`]. `chv-guest` logs the error otherwise.
    pub clock_set: bool,
    /// How far the guest's clock was behind [`Renew::unix_nanos`] when the request came, in milliseconds; negative if
    /// it was ahead.
    pub clock_offset_ms: i64,
    /// The guest's time after it has tried to set its clock, in nanoseconds since 1970-01-01 UTC. `None` (absent or
    /// null) from a guest whose build is older than this field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unix_nanos: Option<u64>,
}

/// 32 random bytes. On the wire: base64 with the standard alphabet and padding; another text, and another number of
/// bytes, is [malformed](super#malformed-frames). `Debug` doesn't show the bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct Seed(pub [u8; 32]);

impl fmt::Debug for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seed(..)")
    }
}

impl Serialize for Seed {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        base64_bytes::serialize(&self.0, serializer)
    }
}

impl<'de> Deserialize<'de> for Seed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = base64_bytes::deserialize(deserializer)?;
        bytes
            .try_into()
            .map(Seed)
            .map_err(|_| de::Error::custom("a seed has 32 bytes"))
    }
}

fn build_id<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let id = String::deserialize(deserializer)?;
    Ok(sanitize::line(&id, 128))
}

fn extensions<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    at_most::<MAX_EXTENSIONS, String, D>(deserializer)
}
