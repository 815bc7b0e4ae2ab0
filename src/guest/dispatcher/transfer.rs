//! Transfers files, each transfer on a connection of its own.
//!
//! A push extracts the tar stream while its records arrive. The extracted files get their final name only once all of
//! them are on the disk. A pull packs files into records. Neither keeps more than one record in memory. If the host
//! closes the connection or breaks the order of the records, the transfer ends, and no files of it are left.

use std::io::{self, IoSlice, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;

use super::Shared;
use super::session::PROTOCOL_ERROR;
use super::stream_connection::{StreamConnection, StreamSlot};
use crate::archive::{
    Account, ArchiveError, CHUNK, Cancel, FileCode, Target, extract, open_beneath, pack,
    target_beneath,
};
use crate::causes::Causes;
use crate::digest::Digest;
use crate::guest::frame::FrameError;
use crate::guest::protocol::{JsonRecord, OpenPull, OpenPush, TransferEnd};
use crate::guest::record::{MAX_RECORD, RECORD_HEADER, RecordHeader, RecordKind};

// Each write of `pack` has at most CHUNK bytes, so it fits one record.
const _: () = assert!(CHUNK <= MAX_RECORD);

/// The longest message about a failure, in characters.
const MESSAGE: usize = 4096;

impl Shared {
    /// Serves a push: receives files from the host.
    pub(super) fn push(
        &self,
        mut stream: StreamConnection,
        open: &OpenPush,
        place: StreamSlot,
    ) -> Result<(), FrameError> {
        stream.opened()?;
        let mut account = Account::new(open.limits);
        let result = self.take_in(&mut stream, &open.path, &mut account);
        // Once the host has the end, it may open another transfer at once. So the place has to be free before.
        drop(place);
        stream.end(&account, result)
    }

    fn take_in(
        &self,
        stream: &mut StreamConnection,
        path: &str,
        account: &mut Account,
    ) -> Result<Digest, TransferError> {
        let target = self.target(path)?;
        let owner = self
            .confinement
            .user()
            .map(|(user, group)| (user.as_raw(), group.as_raw()));
        let mut records = Records {
            stream,
            left: 0,
            expected: None,
            fault: None,
        };
        let extracted = extract(&mut records, target, owner, account);
        if let Some(fault) = records.fault {
            return Err(TransferError::Record(fault));
        }
        let (staged, totals) = extracted?;
        // A tar stream has an end mark of its own, but only the EndOfData record shows that the host has sent the whole
        // stream.
        match records.expected {
            Some(expected) if expected == totals.sha256 => staged.publish(&Cancel::default())?,
            Some(expected) => {
                let found = totals.sha256;
                return Err(ArchiveError::Digest { expected, found }.into());
            }
            None => {
                let source = io::ErrorKind::UnexpectedEof.into();
                return Err(ArchiveError::Truncated { source }.into());
            }
        }
        Ok(totals.sha256)
    }

    /// Serves a pull: sends files to the host.
    pub(super) fn pull(
        &self,
        stream: StreamConnection,
        open: &OpenPull,
        place: StreamSlot,
    ) -> Result<(), FrameError> {
        stream.opened()?;
        let mut account = Account::new(open.limits);
        let result = self.give_out(&stream, &open.path, &mut account);
        drop(place);
        stream.end(&account, result)
    }

    fn give_out(
        &self,
        stream: &StreamConnection,
        path: &str,
        account: &mut Account,
    ) -> Result<Digest, TransferError> {
        let path = self.beneath(path)?;
        let opened = open_beneath(self.tools_root()?, &path)?;
        let totals = pack(opened, DataRecords(stream), account)?;
        let end = totals.sha256.as_bytes();
        send(stream, RecordKind::EndOfData, end).map_err(TransferError::Send)?;
        Ok(totals.sha256)
    }

    fn target(&self, path: &str) -> Result<Target, ArchiveError> {
        target_beneath(self.tools_root()?, &self.beneath(path)?)
    }

    /// The path below the tools' root of `path`, which is a path as the tools see it. It must be the directory for
    /// files or inside that directory. A relative path is relative to that directory.
    fn beneath(&self, path: &str) -> Result<Vec<u8>, ArchiveError> {
        let parts = |path: &str| -> Vec<String> {
            let parts = path.split('/').filter(|part| !matches!(*part, "" | "."));
            parts.map(str::to_owned).collect()
        };
        let files = parts(self.files_directory());
        let mut wanted = match path.starts_with('/') {
            true => Vec::new(),
            false => files.clone(),
        };
        wanted.extend(parts(path));
        let is_inside = !path.is_empty() && wanted.starts_with(&files);
        if !is_inside || wanted.is_empty() || wanted.iter().any(|part| part == "..") {
            return Err(ArchiveError::Name {
                name: format!("{path:?}"),
                fault: "is not in the guest's directory for files",
            });
        }
        Ok(wanted.join("/").into_bytes())
    }

    fn tools_root(&self) -> Result<OwnedFd, ArchiveError> {
        let root = self.root.as_deref().unwrap_or(Path::new("/"));
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        openat(CWD, root, flags, Mode::empty()).map_err(|errno| ArchiveError::Io {
            done: "opened",
            name: format!("{root:?}"),
            source: errno.into(),
        })
    }
}

/// Why a transfer failed.
#[derive(Debug, thiserror::Error)]
enum TransferError {
    /// Extracting or packing failed.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The host sent a record that isn't allowed in a push, or one whose header can't be read.
    #[error("the host broke the protocol: {0}")]
    Record(String),
    /// The `EndOfData` record could not be sent.
    #[error("the end of the data could not be sent")]
    Send(#[source] io::Error),
}

impl TransferError {
    fn code(&self) -> &'static str {
        match self {
            TransferError::Archive(error) => error.code().text(),
            TransferError::Record(_) => PROTOCOL_ERROR,
            TransferError::Send(_) => FileCode::Truncated.text(),
        }
    }
}

impl StreamConnection {
    /// Sends the last record, the [`TransferEnd`].
    fn end(
        &self,
        account: &Account,
        result: Result<Digest, TransferError>,
    ) -> Result<(), FrameError> {
        let (sha256, error) = match result {
            Ok(digest) => (digest, None),
            Err(error) => (Digest::OF_NOTHING, Some(error)),
        };
        let totals = account.totals(sha256);
        let message = |error: &TransferError| {
            let causes = Causes(error).to_string();
            causes.chars().take(MESSAGE).collect()
        };
        let end = TransferEnd {
            code: error.as_ref().map(|error| error.code().to_owned()),
            message: error.as_ref().map(message),
            entries: totals.entries,
            bytes: totals.bytes,
            sha256: totals.sha256,
        };
        send(self, RecordKind::End, &end.encode()).map_err(FrameError::Io)
    }
}

/// Reads the bodies of the `Data` records as one stream, up to the `EndOfData` record.
struct Records<'a> {
    stream: &'a mut StreamConnection,
    /// How many bytes of the present record are still unread.
    left: usize,
    /// The digest in the `EndOfData` record, once it has come.
    expected: Option<Digest>,
    /// Why a record was refused.
    fault: Option<String>,
}

impl Read for Records<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 && self.expected.is_none() {
            self.next_record()?;
        }
        if self.left == 0 || buffer.is_empty() {
            return Ok(0);
        }
        let most = buffer.len().min(self.left);
        let read = self.stream.read(&mut buffer[..most])?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= read;
        Ok(read)
    }
}

impl Records<'_> {
    fn next_record(&mut self) -> io::Result<()> {
        let mut header = [0; RECORD_HEADER];
        self.stream.read_exact(&mut header)?;
        let fault = match RecordHeader::decode(header) {
            Ok(header) => match header.kind {
                RecordKind::Data => {
                    self.left = header.length;
                    return Ok(());
                }
                RecordKind::EndOfData => {
                    let mut digest = [0; 32];
                    self.stream.read_exact(&mut digest)?;
                    self.expected = Some(digest.into());
                    return Ok(());
                }
                kind => format!("a {kind:?} record can't come in a push"),
            },
            Err(error) => error.to_string(),
        };
        self.fault = Some(fault);
        Err(io::ErrorKind::InvalidData.into())
    }
}

/// Sends the bytes of each `write` as one `Data` record.
struct DataRecords<'a>(&'a StreamConnection);

impl Write for DataRecords<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let body = &bytes[..bytes.len().min(MAX_RECORD)];
        if !body.is_empty() {
            send(self.0, RecordKind::Data, body)?;
        }
        Ok(body.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Sends one record, without copying its body.
fn send(stream: &StreamConnection, kind: RecordKind, body: &[u8]) -> io::Result<()> {
    let header = RecordHeader::of(kind, body).map_err(io::Error::other)?;
    let header = header.encode();
    let mut pieces = [IoSlice::new(&header), IoSlice::new(body)];
    let mut pieces = &mut pieces[..];
    while !pieces.is_empty() {
        match rustix::io::writev(stream.connection().as_fd(), pieces) {
            Ok(written) => IoSlice::advance_slices(&mut pieces, written),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}
