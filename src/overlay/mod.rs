//! Digests, copies and restoration of disk files. The main type is [`FileProof`]: a digest together with the file that
//! it is of.
//!
//! [`sha256`] digests a file exactly as `sha256sum` does, and [`fsverity`] exactly as Linux fs-verity does. [`record`]
//! computes both digests in one pass, as a manifest records them. [`examine`] compares an open file with recorded
//! bytes. [`Hold`] keeps a digest valid for as long as the kernel guarantees that the file is unchanged.
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
pub(crate) use hash::fsverity_of;
pub(crate) use hash::sha256_of;
pub use hash::{
    AccessPolicy, Progress, Threads, fsverity, fsverity_watched, record, sha256, sha256_watched,
};
pub use hold::{Hold, HoldAttempt, UnleasedFile};
pub use immutable::Immutable;
pub use immutable::Protection;
pub(crate) use kernel_verity::enable as enable_verity;
pub(crate) use lease::Lease;
pub use leased::LeaseTaken;
pub use leased::Leased;
pub use nameless::NamelessFile;
pub use proof::{Basis, Digests, FileProof, RecordedBytes, Work};
pub(crate) use put_back::copy_private_of;
pub use put_back::{copy_private, put_back};
#[cfg(any(test, fuzzing))]
pub(crate) use qcow2::fuzz;
pub use sparse::make_sparse;
pub use verity::VerityDigest;
