//! Transfers between a directory and memory, for the [`StubSandbox`](crate::sandbox::StubSandbox), which has no guest.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use super::pull::cannot_be_extracted;
use super::push::cannot_be_packed;
use super::{Error, TransferError, TransferOptions, TransferReport};
use crate::archive::{Cancel, FileCode, extract, open_at, pack, target_at};
use crate::offload::blocking;

/// Packs `local` into a tar stream in memory.
pub(in crate::sandbox) async fn packed(
    local: &Path,
    options: &TransferOptions,
) -> Result<(TransferReport, Vec<u8>), Error> {
    let began = Instant::now();
    let (local, mut account) = (local.to_owned(), options.account());
    let packed = blocking(move || {
        let mut stream = Vec::new();
        let packed = open_at(&local).and_then(|root| pack(root, &mut stream, &mut account));
        let totals = packed.map_err(cannot_be_packed(local))?;
        Ok::<_, Error>((totals, account.into_manifest(), stream))
    });
    let (totals, files, stream) = packed.await?;
    let report = TransferReport::new(totals, files, began.elapsed());
    Ok((report, stream))
}

/// Extracts the tar stream `stream` to `local`.
pub(in crate::sandbox) async fn extracted(
    stream: Arc<Vec<u8>>,
    local: &Path,
    options: &TransferOptions,
) -> Result<TransferReport, Error> {
    let began = Instant::now();
    let (local, mut account) = (local.to_owned(), options.account());
    let extracted = blocking(move || {
        let published = target_at(&local).and_then(|target| {
            let (staged, totals) = extract(&stream[..], target, None, &mut account)?;
            staged.publish(&Cancel::default())?;
            Ok(totals)
        });
        let totals = published.map_err(cannot_be_extracted(local))?;
        Ok::<_, Error>((totals, account.into_manifest()))
    });
    let (totals, files) = extracted.await?;
    Ok(TransferReport::new(totals, files, began.elapsed()))
}

/// The error with which a guest refuses a path.
pub(in crate::sandbox) fn refused(path: &str, why: &str) -> Error {
    TransferError::Guest {
        path: path.to_owned(),
        code: FileCode::Name,
        message: why.to_owned(),
    }
    .into()
}
