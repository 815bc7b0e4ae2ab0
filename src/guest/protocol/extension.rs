//! What came after the first protocol: identity and renewal of a restored guest, evidence that is owed, and results that
//! say how a tool ended.
//!
//! All of it stands behind [`Hello`]: a host relies on it only with a guest whose own hello lists the extension. A guest
//! that is older answers the hello with an [`ErrorEvent`](super::ErrorEvent), and the host goes on without.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use uuid::Uuid;

use super::PROTOCOL_VERSION;
use super::closed::{at_most, uuid_v4};
use super::tool::base64_bytes;
use crate::sanitize;

/// The most extensions that a hello may list.
const MAX_EXTENSIONS: usize = 64;

/// What the sender can do. The host opens with it, and the guest answers with its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hello {
    /// The version of the protocol.
    pub protocol: u32,
    /// The sender's [`BUILD_ID`](crate::guest::BUILD_ID). What a peer sends is made a
    /// [line](crate::sanitize::line) of at most 128 characters.
    #[serde(deserialize_with = "build_id")]
    pub build_id: String,
    /// The extensions that the sender knows, by name. Names that the other side doesn't know mean nothing to it.
    #[serde(deserialize_with = "extensions")]
    pub extensions: Vec<String>,
    /// The nonce that was imprinted on this guest. The host never sends one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nonce: Option<String>,
}

impl Hello {
    /// What this build can do.
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

    /// About how many bytes its texts hold.
    pub(super) fn weight(&self) -> usize {
        let names = self.extensions.iter();
        let names: usize = names.map(|name| size_of::<String>() + name.len()).sum();
        names + self.build_id.len() + self.nonce.as_ref().map_or(0, String::len)
    }

    /// Whether the sender knows `extension`.
    pub fn supports(&self, extension: Extension) -> bool {
        self.extensions.iter().any(|name| name == extension.name())
    }

    /// Whether the sender was built from the same guest sources as this build.
    pub fn is_same_build(&self) -> bool {
        self.build_id == crate::guest::BUILD_ID
    }
}

/// What a guest may be able to do beyond the first protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Extension {
    /// [`Imprint`]: keep a nonce in memory, and leave nothing that is still to be written to a disk.
    Nonce,
    /// [`Renew`]: reseed the kernel's random pool.
    Reseed,
    /// [`Renew`]: set the clock.
    Clock,
    /// [`EvidenceChunk`](super::EvidenceChunk): every command has its evidence. A guest that doesn't say so may send
    /// chunks or none; from one that does, a result without them is not believed.
    Evidence,
    /// [`ResultDetails`](super::ResultDetails): how a tool ended, and how much it wrote. A guest sends them only to a host
    /// whose hello lists this. They rest on the chunks, so a result that has them has evidence too, of at most twice
    /// [`MAX_OUTPUT`](super::MAX_OUTPUT) bytes.
    Result,
    /// [`OpenRun`](super::OpenRun): tools with streams, on connections of their own.
    Run,
    /// [`OpenPush`](super::OpenPush) and [`OpenPull`](super::OpenPull): files, on connections of their own.
    Files,
    /// [`WarmDispatch`](super::Frame::WarmDispatch): tools whose writes are thrown away.
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

    /// The extension's name in a [`Hello`].
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

/// Asks the guest to keep a nonce, in memory only: a guest that has rebooted has none, a restored one has the
/// golden snapshot's. It is sent before the snapshot is taken, so the guest also writes out what it still has to write.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Imprint {
    /// Names this request in its answer; a random UUID.
    #[serde(deserialize_with = "uuid_v4")]
    pub request_id: Uuid,
    /// What to keep.
    pub nonce: String,
}

/// The nonce is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Imprinted {
    /// The request that this answers.
    #[serde(deserialize_with = "uuid_v4")]
    pub request_id: Uuid,
}

/// Asks a restored guest to renew what all restored guests would otherwise share: randomness and clock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Renew {
    /// Names this request in its answer; a random UUID.
    #[serde(deserialize_with = "uuid_v4")]
    pub request_id: Uuid,
    /// Fresh randomness for the kernel's pool.
    pub seed: Seed,
    /// The time, in nanoseconds since 1970-01-01 UTC.
    pub unix_nanos: u64,
}

/// What was renewed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Renewed {
    /// The request that this answers.
    #[serde(deserialize_with = "uuid_v4")]
    pub request_id: Uuid,
    /// The nonce that was imprinted on this guest, if one was.
    #[serde(default)]
    pub nonce: Option<String>,
    /// Whether the kernel's random pool was reseeded.
    pub reseeded: bool,
    /// Whether the clock was set.
    pub clock_set: bool,
    /// How far the guest's clock was behind the host's, in milliseconds; negative when it was ahead.
    pub clock_offset_ms: i64,
    /// What the guest's clock said when all of this was done, in nanoseconds since 1970-01-01 UTC. `None` from a guest
    /// that is older than this field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unix_nanos: Option<u64>,
}

/// 32 bytes of randomness (base64 on the wire), which `Debug` doesn't show.
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
