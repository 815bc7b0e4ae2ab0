//! The numbers that host and guest agree on: version, port, and the bounds of frames, outputs and names.

use std::time::Duration;

/// The version of the protocol that a [`Hello`](super::Hello) names.
pub const PROTOCOL_VERSION: u32 = 1;

/// The vsock port that the guest listens on, unless `chv.port=N` on the kernel's command line names another.
pub const DEFAULT_PORT: u32 = 1024;

/// The longest body of a frame, in bytes: 16 MiB.
pub const MAX_FRAME: usize = 16 << 20;

/// The most bytes of a tool's output in one [`EvidenceChunk`](super::EvidenceChunk), before base64: 1 MiB.
pub const MAX_EVIDENCE_CHUNK: usize = 1 << 20;

/// The most processes in one [`ProcessList`](super::ProcessList).
pub const MAX_PROCESSES: usize = 100;

/// The longest time that a guest takes to remove the layer of a warm run, once the tool has ended: 10 s. The result is
/// sent after it, so it comes at most that much later.
pub const LAYER_REMOVAL: Duration = Duration::from_secs(10);

/// The longest tool name, in characters.
pub const MAX_TOOL_NAME: usize = 256;
