//! Files into and out of the guest.

mod memory;
mod moved;
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

pub use moved::FilesMoved;
pub(super) use moved::Transfer;

pub(super) use memory::{extracted, packed, refused};
pub(super) use pull::pull;
pub(super) use push::push;

/// How long the guest's words about a failure may be, in characters.
const MAX_MESSAGE: usize = 4096;

/// Which way files go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Files {
    /// Into the guest.
    Push,
    /// Out of it.
    Pull,
}

/// What a transfer of files may hold, and where it shows how far it is.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct TransferOptions {
    /// The most that may be transferred; 100,000 entries and 1 GiB unless set. Both sides refuse more.
    pub limits: TransferLimits,
    /// Shows how far the transfer is: keep a clone, and read that. What it shows begins with each transfer anew.
    pub progress: TransferProgress,
}

impl TransferOptions {
    /// The same with other limits.
    #[must_use]
    pub fn limits(self, limits: TransferLimits) -> TransferOptions {
        TransferOptions { limits, ..self }
    }

    /// The same, shown by `progress`.
    #[must_use]
    pub fn progress(self, progress: TransferProgress) -> TransferOptions {
        TransferOptions { progress, ..self }
    }

    fn account(&self) -> Account {
        let account = Account::new(self.limits);
        account.shown_by(self.progress.clone()).with_manifest()
    }
}

/// What was transferred.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TransferReport {
    /// How much it was, and the digest of the tar stream. The same tree has the same digest each time.
    pub totals: Totals,
    /// Each file, directory and symbolic link, in the order of their transfer, as this side packed or extracted it.
    pub files: Vec<FileEntry>,
    /// How long it took.
    pub took: Duration,
}

impl TransferReport {
    /// For other implementations of [`Sandbox`](super::Sandbox).
    pub fn new(totals: Totals, files: Vec<FileEntry>, took: Duration) -> TransferReport {
        TransferReport {
            totals,
            files,
            took,
        }
    }
}

/// Why files were not transferred. Nothing of them is at their target.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransferError {
    /// The files on this side can't be packed, or those of the guest can't be extracted here.
    #[error("{path:?} cannot be {done}")]
    Local {
        /// What was to be done with it, as a participle.
        done: &'static str,
        /// The path on this side.
        path: PathBuf,
        /// Why not.
        source: ArchiveError,
    },
    /// The guest refused or failed.
    #[error("the guest cannot transfer {path:?}: {message}")]
    Guest {
        /// The path in the guest.
        path: String,
        /// The guest's code; [`FileCode::Io`] if it is none that this build knows.
        code: FileCode,
        /// The guest's words, as a [line](crate::sanitize::line) of at most 4,096 characters.
        message: String,
    },
    /// What the guest says was transferred isn't what this side sent or received.
    #[error("the guest says that it transferred {said}, and it was {found}")]
    Disagreement {
        /// What the guest says.
        said: Totals,
        /// What it was.
        found: Totals,
    },
    /// Its caller went away. Only an event tells of this.
    #[error("the transfer was given up")]
    GivenUp,
}

impl TransferError {
    /// The error's stable code.
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

/// Checks the guest's last record against what was transferred.
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

/// What a record means that comes before everything was transferred: the guest may have failed, but not succeeded.
fn early_end(reader: &RecordReader, record: &Record, path: &str) -> Error {
    match succeeded(reader, record, path) {
        Ok(_) => out_of_place(reader, RecordKind::End),
        Err(error) => error,
    }
}

/// What the guest's last record says was transferred.
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

fn out_of_place(reader: &RecordReader, kind: RecordKind) -> Error {
    Error::Channel(reader.broken(Violation::RecordOutOfPlace { kind }))
}

/// Work that goes on beside the connection.
fn beside<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, Error> {
    spawn_blocking(work).map_err(|error| Error::NoThread(Arc::new(error)))
}

/// What blocking work came to.
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
