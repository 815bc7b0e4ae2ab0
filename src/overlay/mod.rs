//! Digests, copies and restoration of disk files. The main type is [`FileProof`]: a digest together with the file that
//! it is of.
//!
//! [`sha256`] digests a file exactly as `sha256sum` does, and [`fsverity`] exactly as Linux fs-verity does. [`record`]
//! computes both digests in one pass, as a manifest records them. [`examine`] compares an open file with recorded
//! bytes. [`HeldFile`] keeps a digest valid for as long as the kernel guarantees that the file is unchanged.
//!
//! Each of these functions returns a [`FileProof`], which names the file (device and inode) and the [`Basis`] of the
//! digest. A file is mapped where a read lease proves that no process has it open for writing; otherwise it is read.
//! The digest always belongs to the file that was opened, and a change of its length during the work is detected.
//! Timestamps are ignored, because they prove nothing. Holes are not read.
//!
//! A VMM that inherits its writable disk gets a [`NamelessFile`], filled with the bytes of the golden copy. For a VMM
//! that another program runs, [`put_back`] replaces the overlay by a new file of the same name. [`copy_private`] makes
//! the golden copy. [`make_sparse`] turns blocks of zeros into holes.
//!
//! Every function here blocks on the disk, for a time that grows with the size of the file. Call them from a thread
//! that may block (`tokio::task::spawn_blocking`).

mod compare;
mod copy;
mod error;
mod extents;
mod file;
mod filesystem;
mod format;
mod hash;
mod held_file;
mod immutable;
mod kernel_verity;
mod lease;
mod leased_file;
mod memory_file;
mod nameless;
mod proof;
pub mod qcow2;
mod read;
mod restore;
mod segments;
mod source;
mod sparse;
mod stream;
mod verity;

pub use crate::digest::{Digest, ParseDigestError};
pub use compare::{VerificationLevel, examine};
pub use copy::{Copied, CopyMethod};
pub use error::{Change, Error};
pub use file::FileIdentity;
pub(crate) use file::{open_regular, own_path, reopen};
pub use format::DiskFormat;
pub(crate) use hash::fsverity_of;
pub(crate) use hash::sha256_of;
pub use hash::{
    AccessPolicy, Progress, Threads, fsverity, fsverity_watched, record, sha256, sha256_watched,
};
pub use held_file::{HeldFile, HeldFileAttempt, UnleasedFile};
pub use immutable::{ImmutableFile, Protection};
pub(crate) use kernel_verity::enable as enable_verity;
pub(crate) use lease::Lease;
pub use leased_file::{LeaseTaken, LeasedFile};
pub use nameless::NamelessFile;
pub use proof::{Basis, Digests, FileProof, RecordedBytes, Work};
#[cfg(any(test, fuzzing))]
pub(crate) use qcow2::fuzz;
pub(crate) use restore::copy_private_of;
pub use restore::{copy_private, put_back};
pub use sparse::make_sparse;
pub use verity::VerityDigest;
