//! Trees of files as tar streams, for transfers into and out of a guest: blocking code that both sides share.
//!
//! [`pack`] writes a file or a directory as a stream, [`extract`] makes a [`Staged`] tree of one. What was staged gets its
//! name by [`Staged::publish`], or is gone:
//!
//! ```text
//! pack -> stream -> extract -> Staged -> publish -> on the disk, under its name
//!                      |          |         |
//!                      +----------+---------+-> an error, or dropped: nothing of it is left
//! ```
//!
//! # The stream
//!
//! An ustar archive, with pax records for names of more than 100 bytes and files of 8 GiB and more. The first entry is
//! what is transferred: `./` for a directory, `file` for a file. The others have names relative to it and come in the
//! order of a walk, those of one directory sorted by their bytes. Two blocks of zeros end it, and nothing follows. Kept of
//! each file are its bytes, its permissions (`0o777`; a directory's owner always has all rights), and the time of its last
//! change in whole seconds. Owners, hard links, holes and extended attributes are not.
//!
//! # What is refused
//!
//! The side that packs refuses what the other would refuse, and the side that extracts trusts nothing.
//!
//! | code | for |
//! |---|---|
//! | `SANDBOX_FILE_NAME` | an absolute or empty name; a part that is empty, `.` or `..`; a NUL byte; more than 4095 bytes, or 255 in a part; a name twice, in any spelling; an entry beneath what is no directory, or out of order; a symbolic link that is absolute, leads out of the tree, or has `..` behind a name; a target that is there already |
//! | `SANDBOX_FILE_KIND` | hard links, devices, fifos, sockets; set-id and sticky bits; sparse files and long names in GNU's format; global pax headers and unknown pax keywords; unknown types |
//! | `SANDBOX_FILE_LIMIT` | more entries or bytes than [`TransferLimits`]; more than 16 MiB of names; more than 16 KiB of pax records before one entry |
//! | `SANDBOX_FILE_TRUNCATED` | a stream that is cut short or can't be read any further |
//! | `SANDBOX_FILE_DIGEST` | another digest than the sender says; a wrong checksum, malformed headers, bytes behind the end |
//! | `SANDBOX_FILE_IO` | a file that changed while it was packed; whatever the system refuses, such as a full disk |

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
#[cfg(test)]
mod tests;

pub use account::{Account, Totals, TransferLimits, TransferProgress};
pub use beneath::{open_at, open_beneath, target_at, target_beneath};
pub use entry::{EntryKind, FileEntry};
pub use error::{ArchiveError, FileCode};
pub use extract::{Owner, extract};
pub use pack::pack;
pub use staged::{Cancel, Staged, Target};
pub use stream::CHUNK;
