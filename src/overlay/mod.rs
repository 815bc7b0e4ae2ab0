//! The disk's bytes: what they are (a digest), and putting back what they were.
//!
//! [`sha256`] digests a file exactly as `sha256sum` does, [`fsverity`] as Linux fs-verity does, [`digests`] both ways in
//! one pass. The file is mapped where a read lease proves that no process has it open for writing, and read otherwise;
//! either way a file that changed meanwhile is an error, never a digest. Holes are not read.
//! [`put_back`] replaces a writable overlay by a new file with the bytes of its golden copy, and [`copy_private`]
//! makes that golden copy in the first place. [`make_sparse`] gives back what a file keeps for nothing but zeros.
//!
//! Everything here blocks, on the disk and for as long as the file is large. Call it from a thread that may block
//! (`tokio::task::spawn_blocking`).

mod beside;
mod copy;
mod digest;
mod error;
mod extents;
mod file;
mod filesystem;
mod format;
mod hash;
mod hold;
mod immutable;
mod kernel_verity;
mod lease;
mod leased;
mod put_back;
pub mod qcow2;
mod read;
mod segments;
mod source;
mod sparse;
mod stream;
mod verity;

pub use copy::CopyMethod;
pub use digest::{Digest, ParseDigestError};
pub use error::{Change, Error};
pub use file::FileIdentity;
pub(crate) use file::Stamp;
pub use format::DiskFormat;
pub use hash::{
    AccessPolicy, Digests, Hashed, Progress, Threads, Work, digests, fsverity, fsverity_watched,
    sha256, sha256_watched,
};
pub use hold::{Hold, HoldKind};
pub use immutable::{Immutable, Protection};
pub(crate) use kernel_verity::enable as enable_verity;
pub use leased::{LeaseTaken, Leased};
pub use put_back::{Copied, copy_private, put_back};
pub use read::Access;
pub use sparse::make_sparse;
pub use verity::VerityDigest;
