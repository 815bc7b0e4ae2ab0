//! The disk's bytes: what they are (a digest), and putting back what they were.
//!
//! [`sha256`] digests a file exactly as `sha256sum` does, [`fsverity`] as Linux fs-verity does, [`record`] both ways in
//! one pass, as a manifest has it. [`examine`] compares an open file with what was recorded. Each gives a [`FileProof`],
//! which says of which file the digest is and what it rests on: the file is mapped where a read lease proves that no
//! process has it open for writing, and read otherwise. Either way the file is the one that was opened, and a length that
//! changes meanwhile is seen. Timestamps are never looked at: they prove nothing. Holes are not read. [`Hold`] keeps a
//! digest true for as long as the kernel vouches for it.
//!
//! A VMM that inherits its writable disk gets a [`NamelessFile`], filled with the bytes of its golden copy. For another
//! program's VMM [`put_back`] replaces the overlay by a new file of the same name. [`copy_private`] makes the golden copy
//! in the first place. [`make_sparse`] gives back what a file keeps for nothing but zeros.
//!
//! Everything here blocks, on the disk and for as long as the file is large. Call it from a thread that may block
//! (`tokio::task::spawn_blocking`).

mod copy;
mod error;
mod examine;
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
mod memory_file;
mod nameless;
mod proof;
mod put_back;
pub mod qcow2;
mod read;
mod segments;
mod source;
mod sparse;
mod stream;
mod temporary_sibling;
mod verity;

pub use crate::digest::{Digest, ParseDigestError};
pub use copy::{Copied, CopyMethod};
pub use error::{Change, Error};
pub use examine::{VerificationLevel, examine};
pub use file::FileIdentity;
pub(crate) use file::{open_regular, own_path, reopen};
pub use format::DiskFormat;
pub use hash::{
    AccessPolicy, Progress, Threads, fsverity, fsverity_of, fsverity_watched, record, sha256,
    sha256_of, sha256_watched,
};
pub use hold::{Hold, HoldAttempt, UnleasedFile};
pub use immutable::{Immutable, Protection};
pub(crate) use kernel_verity::enable as enable_verity;
pub(crate) use lease::Lease;
pub use leased::{LeaseTaken, Leased};
pub use nameless::NamelessFile;
pub use proof::{Basis, Digests, FileProof, RecordedBytes, Work};
pub use put_back::{copy_private, copy_private_of, put_back};
#[cfg(any(test, fuzzing))]
pub(crate) use qcow2::fuzz;
pub use sparse::make_sparse;
pub use verity::VerityDigest;
