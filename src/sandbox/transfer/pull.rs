//! [`pull()`]: transfers files out of the guest.

use std::path::{Path, PathBuf};
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::mpsc;
use uuid::Uuid;

use super::pipe::{PieceReader, pipe};
use super::{
    Error, TransferError, TransferOptions, TransferReport, check_end, early_end, finished,
    out_of_place, start_blocking,
};
use crate::archive::{ArchiveError, Cancel, extract, target_at};
use crate::digest::Digest;
use crate::guest::protocol::OpenPull;
use crate::guest::record::RecordKind;
use crate::limits::TimeLimits;
use crate::offload::blocking;
use crate::vsock::{Channel, RecordReader};

/// Transfers `path` of the guest to `local`. If the future is dropped, nothing is left at `local`, unless the files had
/// just been renamed to it.
pub(in crate::sandbox) async fn pull(
    channel: &Channel,
    transfer_id: Uuid,
    path: &str,
    local: &Path,
    options: &TransferOptions,
    limits: &TimeLimits,
) -> Result<TransferReport, Error> {
    let began = Instant::now();
    let target = {
        let local = local.to_owned();
        blocking(move || target_at(&local).map_err(cannot_be_extracted(local))).await?
    };
    let open = OpenPull {
        transfer_id,
        path: path.to_owned(),
        limits: options.limits,
    };
    let stream = channel.open_pull(open).await.map_err(Error::Channel)?;
    let mut reader = stream.reader;

    let (pieces, receiver) = pipe();
    let (mut account, at) = (options.account(), local.to_owned());
    let extracted = start_blocking(move || {
        let extracted = extract(PieceReader::new(receiver), target, None, &mut account);
        extracted
            .map(|(staged, totals)| (staged, totals, account))
            .map_err(cannot_be_extracted(at))
    })?;
    let expected = receive(&mut reader, pieces, path, limits).await?;
    // If the extraction has refused the guest's stream, this returns its error.
    let (staged, totals, account) = finished(extracted.await)?;
    if expected != Some(totals.sha256) {
        let error = ArchiveError::Digest {
            expected: expected.unwrap_or(Digest::OF_NOTHING),
            found: totals.sha256,
        };
        return Err(cannot_be_extracted(local.to_owned())(error));
    }
    let record = reader.next_within(limits.frame_total).await;
    check_end(&mut reader, &record.map_err(Error::Channel)?, path, totals)?;

    let cancel = CancelOnDrop(Cancel::default());
    let (cancelled, at) = (cancel.0.clone(), local.to_owned());
    blocking(move || staged.publish(&cancelled).map_err(cannot_be_extracted(at))).await?;
    Ok(TransferReport::new(
        totals,
        account.into_manifest(),
        began.elapsed(),
    ))
}

/// Passes the guest's data to the pipe. Returns the digest of the stream that the guest says, or `None` if the thread
/// that extracts takes no more.
async fn receive(
    reader: &mut RecordReader,
    pieces: mpsc::Sender<Bytes>,
    path: &str,
    limits: &TimeLimits,
) -> Result<Option<Digest>, Error> {
    loop {
        let record = reader.next_within(limits.frame_idle).await;
        let record = record.map_err(Error::Channel)?;
        match record.kind {
            RecordKind::Data => {
                if pieces.send(record.body).await.is_err() {
                    return Ok(None);
                }
            }
            RecordKind::EndOfData => {
                let digest: &[u8] = &record.body;
                return match <[u8; 32]>::try_from(digest) {
                    Ok(digest) => Ok(Some(digest.into())),
                    Err(_) => Err(out_of_place(reader, record.kind)),
                };
            }
            _ => return Err(early_end(reader, &record, path)),
        }
    }
}

/// Cancels the rename to the target when it is dropped. A rename that is done stays.
struct CancelOnDrop(Cancel);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

pub(super) fn cannot_be_extracted(path: PathBuf) -> impl FnOnce(ArchiveError) -> Error {
    move |source| {
        let done = "extracted";
        TransferError::Local { done, path, source }.into()
    }
}
