//! Packs files and directories into tar streams ([`pack`]) and extracts such streams, for transfers into and out of a
//! guest. Host and guest share this blocking code. A sandbox's `push` and `pull` call it; a program outside this crate
//! extracts no stream itself.
//!
//! `extract` makes a `Staged` tree beside its target. `Staged::publish` gives the tree its name. A tree that isn't
//! published is removed:
//!
//! ```text
//! pack -> stream -> extract -> Staged -> publish -> on the disk, under its name
//!                      |          |         |
//!                      +----------+---------+-> an error, or dropped: everything is removed
//! ```
//!
//! # The stream
//!
//! The stream is an ustar archive, with pax records for names of more than 100 bytes and for files of 8 GiB or more.
//! The first entry is the transferred file or directory itself: `./` for a directory, `file` for a file. All other
//! entries have names relative to it. They come in the order of a walk, the entries of one directory sorted by their
//! bytes. Two blocks of zeros end the stream, and nothing follows them.
//!
//! Of each file the stream keeps the bytes, the permissions (`0o777`; the owner of a directory always has all rights),
//! and the time of the last change in whole seconds. It doesn't keep owners, hard links, holes and extended attributes.
//!
//! # What is refused
//!
//! The packing side refuses everything that the extracting side would refuse. The extracting side doesn't trust the
//! stream.
//!
//! - `SANDBOX_FILE_NAME`: an absolute or empty name; a part of a name that is empty, `.` or `..`; a NUL byte; a name of
//!   more than 4095 bytes, or a part of more than 255; two entries with one name, in any spelling; an entry that isn't
//!   below a directory, or is out of order; a symbolic link whose target is absolute, leads out of the tree, or has
//!   `..` after a name; a path to pack that isn't there; a target that exists already, or whose directory isn't there
//! - `SANDBOX_FILE_KIND`: hard links, devices, fifos, sockets; set-id and sticky bits; sparse files and long names in
//!   GNU's format; global pax headers and unknown pax keywords; unknown types
//! - `SANDBOX_FILE_LIMIT`: more entries or bytes than [`TransferLimits`] allow; more than 16 MiB of names; more than 16
//!   KiB of pax records before one entry
//! - `SANDBOX_FILE_TRUNCATED`: a stream that ends too early, or can't be read or written any further; a cancelled
//!   transfer
//! - `SANDBOX_FILE_DIGEST`: another digest than the sender states; a wrong checksum, malformed headers, bytes after the
//!   end
//! - `SANDBOX_FILE_IO`: a file that changed while it was packed; any error of the system, such as a full disk

mod account;
mod beneath;
mod entry;
mod error;
mod extract;
mod format;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod listing;
mod pack;
mod path;
mod remove;
mod staged;
mod stream;
mod symlink_target;
#[cfg(test)]
mod tests;

pub use account::{Account, Totals, TransferLimits, TransferProgress};
pub(crate) use beneath::open_at;
#[cfg(feature = "guest")]
pub(crate) use beneath::open_beneath;
pub(crate) use beneath::target_at;
#[cfg(feature = "guest")]
pub(crate) use beneath::target_beneath;
pub use entry::{EntryKind, FileEntry};
pub use error::{ArchiveError, FileCode};
pub(crate) use extract::extract;
pub use pack::pack;
pub use staged::Cancel;
pub(crate) use staged::Target;
#[cfg(feature = "guest")]
pub(crate) use stream::CHUNK;
