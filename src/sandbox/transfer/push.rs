//! [`push()`]: transfers files into the guest.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use uuid::Uuid;

use super::pipe::{PieceWriter, pipe};
use super::{
    Error, TransferError, TransferOptions, TransferReport, check_end, early_end, finished,
    start_blocking,
};
use crate::archive::{Account, Totals, open_at, pack};
use crate::digest::Digest;
use crate::guest::protocol::OpenPush;
use crate::guest::record::RecordKind;
use crate::limits::TimeLimits;
use crate::offload::blocking;
use crate::vsock::{Channel, RecordWriter};

/// Packs `local` and sends it to `path` in the guest. If the future is dropped, the connection is closed, and the guest
/// removes what it had received.
pub(in crate::sandbox) async fn push(
    channel: &Channel,
    transfer_id: Uuid,
    local: &Path,
    path: &str,
    options: &TransferOptions,
    limits: &TimeLimits,
) -> Result<TransferReport, Error> {
    let began = Instant::now();
    let root = {
        let local = local.to_owned();
        blocking(move || open_at(&local).map_err(cannot_be_packed(local))).await?
    };
    let open = OpenPush {
        transfer_id,
        path: path.to_owned(),
        limits: options.limits,
    };
    let stream = channel.open_push(open).await.map_err(Error::Channel)?;
    let (mut reader, mut writer) = (stream.reader, stream.writer);

    let (sender, pieces) = pipe();
    let (mut account, local) = (options.account(), local.to_owned());
    let packed = start_blocking(move || {
        let packed = pack(root, PieceWriter(sender), &mut account);
        packed
            .map(|totals| (totals, account))
            .map_err(cannot_be_packed(local))
    })?;
    let sent = {
        let sending = send(&mut writer, pieces, packed, limits.frame_idle);
        tokio::select! {
            biased;
            early = reader.next() => {
                let record = early.map_err(Error::Channel)?;
                return Err(early_end(&reader, &record, path));
            }
            sent = sending => sent,
        }
    };
    let (totals, account) = match sent {
        Ok(sent) => sent,
        Err(Error::Channel(error)) => {
            // A guest that closes the connection may have sent its reason before.
            return Err(match timeout(limits.frame_idle, reader.next()).await {
                Ok(Ok(record)) => early_end(&reader, &record, path),
                _ => Error::Channel(error),
            });
        }
        Err(error) => {
            // The archive is incomplete. A digest that doesn't match makes the guest discard it, and the guest's answer
            // says that it has done so.
            let end = Digest::OF_NOTHING;
            let told = writer.send(RecordKind::EndOfData, end.as_bytes(), limits.frame_idle);
            if told.await.is_ok() {
                let _ = reader.next_within(limits.frame_idle).await;
            }
            return Err(error);
        }
    };
    let record = reader.next_within(limits.frame_total).await;
    check_end(&mut reader, &record.map_err(Error::Channel)?, path, totals)?;
    Ok(TransferReport::new(
        totals,
        account.into_manifest(),
        began.elapsed(),
    ))
}

/// Sends the packed pieces as they come, then the end of the data with its digest.
async fn send(
    writer: &mut RecordWriter,
    mut pieces: mpsc::Receiver<Bytes>,
    packed: JoinHandle<Result<(Totals, Account), Error>>,
    idle: Duration,
) -> Result<(Totals, Account), Error> {
    while let Some(piece) = pieces.recv().await {
        let sent = writer.send(RecordKind::Data, &piece, idle).await;
        sent.map_err(Error::Channel)?;
    }
    let (totals, account) = finished(packed.await)?;
    let end = totals.sha256.as_bytes();
    let sent = writer.send(RecordKind::EndOfData, end, idle).await;
    sent.map_err(Error::Channel)?;
    Ok((totals, account))
}

pub(super) fn cannot_be_packed(
    path: PathBuf,
) -> impl FnOnce(crate::archive::ArchiveError) -> Error {
    move |source| {
        let done = "packed";
        TransferError::Local { done, path, source }.into()
    }
}
