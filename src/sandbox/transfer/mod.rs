//! Transfers of files between host and guest: [`push()`] and [`pull()`], with [`TransferOptions`] and
//! [`TransferReport`].
//!
//! A transfer has a vsock connection of its own, on which a tar stream is sent in records. Blocking code packs or
//! extracts the stream on a thread; async code moves the records.

mod ended;
mod in_memory;
mod pipe;
mod pull;
mod push;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{JoinError, JoinHandle};

use super::{Error, Event};
use crate::archive::{
    Account, ArchiveError, FileCode, FileEntry, Totals, TransferLimits, TransferProgress,
};
use crate::guest::protocol::{JsonRecord, TransferEnd};
use crate::guest::record::RecordKind;
use crate::offload::spawn_blocking;
use crate::sanitize;
use crate::vsock::{self, Record, RecordReader, Violation};

pub(super) use ended::Transfer;
pub use ended::TransferEnded;

pub(super) use in_memory::{extracted, packed, refused};
pub(super) use pull::pull;
pub(super) use push::push;

/// The longest message of the guest about a failure that is kept, in characters.
const MAX_MESSAGE: usize = 4096;

/// The direction of a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    /// Into the guest.
    Push,
    /// Out of the guest.
    Pull,
}

/// The limits of a transfer, and where its progress can be read.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct TransferOptions {
    /// The most that may be transferred. Host and guest each refuse more. Default: 100,000 entries and 1 GiB.
    pub limits: TransferLimits,
    /// Shows how far the transfer is. Keep a clone and read it while the transfer runs. It starts at zero with each
    /// transfer.
    pub progress: TransferProgress,
}

impl TransferOptions {
    /// Sets [`limits`](Self::limits).
    #[must_use]
    pub fn limits(self, limits: TransferLimits) -> TransferOptions {
        TransferOptions { limits, ..self }
    }

    /// Sets [`progress`](Self::progress).
    #[must_use]
    pub fn progress(self, progress: TransferProgress) -> TransferOptions {
        TransferOptions { progress, ..self }
    }

    fn account(&self) -> Account {
        let account = Account::new(self.limits);
        account.shown_by(self.progress.clone()).with_manifest()
    }
}

/// The result of a transfer that succeeded.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TransferReport {
    /// The number of entries and bytes, and the digest of the tar stream. The same tree has the same digest each time.
    pub totals: Totals,
    /// Each file, directory and symbolic link as the host packed or extracted it, in the order of the transfer.
    pub files: Vec<FileEntry>,
    /// How long the transfer took.
    pub took: Duration,
}

impl TransferReport {
    /// A report with these fields, for other implementations of [`Sandbox`](super::Sandbox).
    pub fn new(totals: Totals, files: Vec<FileEntry>, took: Duration) -> TransferReport {
        TransferReport {
            totals,
            files,
            took,
        }
    }
}

/// Why files were not transferred: the cause of [`Error::Files`]. None of them is at the target.
///
/// The sandbox's state is unchanged. With the [codes](Self::code) [`Truncated`](FileCode::Truncated) and
/// [`Digest`](FileCode::Digest) the [advice](Error::advice) is a reset, with the others to go on without these files.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransferError {
    /// The host can't pack the files of a push, or can't extract the files of a pull.
    #[error("{path:?} cannot be {done}")]
    Local {
        /// What could not be done: `packed` or `extracted`.
        done: &'static str,
        /// The path on the host.
        path: PathBuf,
        /// Which file, and why.
        source: ArchiveError,
    },
    /// The guest refused the transfer, or failed during it.
    #[error("the guest cannot transfer {path:?}: {message}")]
    Guest {
        /// The path in the guest.
        path: String,
        /// The guest's code, or [`FileCode::Io`] if this build doesn't know that code.
        code: FileCode,
        /// The guest's message with its code, as one [line](crate::sanitize::line) of at most 4,096 characters.
        message: String,
    },
    /// The guest's totals of the transfer differ from the host's.
    #[error("the guest says that it transferred {said}, but the host transferred {found}")]
    Disagreement {
        /// The totals that the guest says.
        said: Totals,
        /// The totals that the host sent or received.
        found: Totals,
    },
    /// The caller dropped the future of the transfer. Only an event has this error, since there is no caller to return
    /// it to.
    #[error("the caller of the transfer stopped waiting for it")]
    GivenUp,
}

impl TransferError {
    /// The error's stable code: see the [table](Error#codes).
    pub fn code(&self) -> FileCode {
        match self {
            TransferError::Local { source, .. } => source.code(),
            TransferError::Guest { code, .. } => *code,
            TransferError::Disagreement { .. } => FileCode::Digest,
            TransferError::GivenUp => FileCode::Truncated,
        }
    }
}

impl From<TransferError> for Error {
    fn from(error: TransferError) -> Error {
        Error::Files(Arc::new(error))
    }
}

/// Checks that `record`, the guest's last one, says that `found` was transferred, and that no further record has come.
fn check_end(
    reader: &mut RecordReader,
    record: &Record,
    path: &str,
    found: Totals,
) -> Result<(), Error> {
    let said = succeeded(reader, record, path)?;
    if said != found {
        return Err(TransferError::Disagreement { said, found }.into());
    }
    reader.expect_nothing_more().map_err(Error::Channel)
}

/// The error of a transfer in which `record` comes before everything was transferred. The guest may report a failure at
/// that point; a success would break the protocol.
fn early_end(reader: &RecordReader, record: &Record, path: &str) -> Error {
    match succeeded(reader, record, path) {
        Ok(_) => out_of_place(reader, RecordKind::End),
        Err(error) => error,
    }
}

/// The totals of the guest's last record, or the failure that it reports.
fn succeeded(reader: &RecordReader, record: &Record, path: &str) -> Result<Totals, Error> {
    let end = match record.kind {
        RecordKind::End => TransferEnd::decode(&record.body),
        kind => return Err(out_of_place(reader, kind)),
    };
    let end = end.map_err(|source| {
        Error::Channel(vsock::Error::FrameMalformed {
            origin: reader.origin().clone(),
            source: Some(source),
        })
    })?;
    match end.code {
        None => Ok(Totals {
            entries: end.entries,
            bytes: end.bytes,
            sha256: end.sha256,
        }),
        Some(code) => {
            let message = end.message.unwrap_or_default();
            Err(TransferError::Guest {
                path: path.to_owned(),
                code: FileCode::of(&code).unwrap_or(FileCode::Io),
                message: sanitize::line(&format!("{message} ({code})"), MAX_MESSAGE),
            }
            .into())
        }
    }
}

/// The error of a guest that sends a record of this kind where the protocol doesn't allow it.
fn out_of_place(reader: &RecordReader, kind: RecordKind) -> Error {
    Error::Channel(reader.broken(Violation::RecordOutOfPlace { kind }))
}

/// Starts blocking work on a thread, while this task uses the connection.
fn start_blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, Error> {
    spawn_blocking(work).map_err(|error| Error::NoThread(Arc::new(error)))
}

/// The result of blocking work that has ended. A panic of the work goes on in this task.
fn finished<T>(joined: Result<Result<T, Error>, JoinError>) -> Result<T, Error> {
    match joined {
        Ok(finished) => finished,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime shuts down.
            Err(_) => Err(Error::ShutDown),
        },
    }
}
