//! The numbers that host and guest agree on: version, port, and the bounds of frames, outputs and names.

use std::time::Duration;

/// The version of the protocol that a [`Hello`](super::Hello) of this build names: 1. What was added since is an
/// [extension](super#extensions).
pub const PROTOCOL_VERSION: u32 = 1;

/// The vsock port that the guest listens on, unless `chv.port=N` on the kernel's command line names another.
pub const DEFAULT_PORT: u32 = 1024;

/// The longest body of a frame, in bytes: 16 MiB. If the length before a frame is larger, the receiver ends the
/// connection. The host has [lower limits](super#malformed-frames) for most types.
pub const MAX_FRAME: usize = 16 << 20;

/// The most bytes of a tool's output in one [`EvidenceChunk`](super::EvidenceChunk), before base64: 1 MiB. A chunk with
/// more is [malformed](super#malformed-frames).
pub const MAX_EVIDENCE_CHUNK: usize = 1 << 20;

/// The most processes in one [`ProcessList`](super::ProcessList): 100. A longer list is
/// [malformed](super#malformed-frames).
pub const MAX_PROCESSES: usize = 100;

/// How long a guest tries to remove the throwaway layer of a [warm run](super#warm-runs) once the tool has ended: 10 s.
///
/// The kernel refuses to unmount the layer while a process or an open file uses it. The guest kills the layer's
/// processes and unmounts again until this time is over. Then it gives up: it detaches the layer, and the run's outcome
/// is [`GuestFailed`](super::ToolOutcomeKind::GuestFailed). The result is sent after the removal, so
/// [`Channel::warm`](crate::vsock::Channel::warm) waits this much longer than
/// [`Channel::dispatch`](crate::vsock::Channel::dispatch).
pub const LAYER_REMOVAL: Duration = Duration::from_secs(10);

/// The longest tool name, in Unicode characters: 256. A frame with a longer name is
/// [malformed](super#malformed-frames).
pub const MAX_TOOL_NAME: usize = 256;
