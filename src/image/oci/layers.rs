//! [`apply`]: applies layers with two threads. One reads, hashes and decompresses a layer, and the other hashes the
//! decompressed bytes and applies them.

use std::{
    io::{self, BufReader, Read},
    sync::mpsc::{self, Receiver, SyncSender},
    thread,
};

use sha2::{Digest as _, Sha256};

use super::{
    apply::Applier,
    decompress::decompress,
    error::{ContainerError, LayerError},
    select::Layer,
    store::{Blob, Store},
    tar::Input,
};
use crate::digest::Digest;
use crate::image::Error;

/// How many chunks are queued between the threads.
const WAITING: usize = 16;
/// How many bytes of a layer are read at once.
const READ: usize = 256 * 1024;

/// Applies all `layers`. Together they may have `limit` decompressed bytes.
pub(super) fn apply(
    store: &Store,
    layers: &[Layer],
    limit: u64,
    applier: &mut Applier<'_>,
) -> Result<(), Error> {
    let mut left = limit;
    for layer in layers {
        let opened = layer.source.open(store)?;
        match apply_layer(layer, opened, &mut left, limit, applier) {
            Ok(()) => {}
            Err(Wrong::Layer(LayerError::Stopped)) => return Err(Error::Stopped),
            Err(Wrong::Layer(source)) => {
                let layer = layer.name.clone();
                return Err(ContainerError::Layer { layer, source }.into());
            }
            Err(Wrong::Blob(error)) => return Err(error.into()),
        }
        tracing::debug!(layer = layer.name, "a layer was applied");
    }
    Ok(())
}

enum Wrong {
    Layer(LayerError),
    Blob(ContainerError),
}

impl From<LayerError> for Wrong {
    fn from(error: LayerError) -> Wrong {
        Wrong::Layer(error)
    }
}

fn apply_layer(
    layer: &Layer,
    (blob, expected): (Blob, Option<Digest>),
    left: &mut u64,
    limit: u64,
    applier: &mut Applier<'_>,
) -> Result<(), Wrong> {
    let (sender, receiver) = mpsc::sync_channel(WAITING);
    let mut chunks = Chunks::new(receiver);
    let (read, applied) = thread::scope(|scope| {
        let reading = thread::Builder::new().name("layer".to_owned());
        let reading = reading.spawn_scoped(scope, || {
            let read = read(layer, blob, expected, left, limit, &sender);
            drop(sender);
            read
        });
        match reading {
            Ok(reading) => {
                let applied = applier.layer(&mut chunks);
                let diff_id = chunks.finish();
                let read = reading.join();
                (Ok(read), applied.map(|()| diff_id))
            }
            Err(error) => (Err(error), Err(LayerError::Stopped)),
        }
    });
    let read = read.map_err(LayerError::Spool)?;
    // The thread panics only if this program has a bug. The layer was not read completely then.
    let read = read.unwrap_or(Err(LayerError::CutShort.into()));
    // The reader's error comes first: a wrong digest explains any error in the content, and a failed decompression
    // explains why the tar ends early.
    read?;
    let found = applied?;
    if found != layer.diff_id {
        return Err(Wrong::Layer(LayerError::DiffId {
            found: found.to_string(),
            expected: layer.diff_id.to_string(),
        }));
    }
    Ok(())
}

/// Reads a layer to its end, and sends its decompressed bytes until the receiver stops.
fn read(
    layer: &Layer,
    blob: Blob,
    expected: Option<Digest>,
    left: &mut u64,
    limit: u64,
    sender: &SyncSender<Vec<u8>>,
) -> Result<(), Wrong> {
    let mut hashing = blob.hashing();
    let mut is_bomb = false;
    let mut take = |chunk: Vec<u8>| match left.checked_sub(chunk.len() as u64) {
        Some(rest) => {
            *left = rest;
            sender.send(chunk).is_ok()
        }
        None => {
            is_bomb = true;
            false
        }
    };
    let input = BufReader::with_capacity(READ, &mut hashing);
    let decompressed = decompress(input, layer.compression, &mut take);
    if let Some(expected) = expected {
        let found = hashing.finish().map_err(LayerError::Decompress)?;
        if found != expected {
            return Err(Wrong::Blob(ContainerError::BlobDigest {
                expected: expected.to_string(),
                found: found.to_string(),
            }));
        }
    }
    if is_bomb {
        return Err(Wrong::Layer(LayerError::Limit {
            what: "the decompressed bytes of all layers",
            limit,
        }));
    }
    Ok(decompressed?)
}

/// Receives the decompressed bytes from the other thread, and hashes them.
struct Chunks {
    receiver: Receiver<Vec<u8>>,
    chunk: Vec<u8>,
    taken: usize,
    hash: Sha256,
}

impl Chunks {
    fn new(receiver: Receiver<Vec<u8>>) -> Chunks {
        Chunks {
            receiver,
            chunk: Vec::new(),
            taken: 0,
            hash: Sha256::new(),
        }
    }

    /// The unread part of the current chunk; empty at the end.
    fn available(&mut self) -> &[u8] {
        if self.taken == self.chunk.len() {
            self.taken = 0;
            self.chunk = self.receiver.recv().unwrap_or_default();
            self.hash.update(&self.chunk);
        }
        &self.chunk[self.taken..]
    }

    /// The digest of the received bytes. Dropping the receiver makes the other thread stop.
    fn finish(self) -> Digest {
        self.hash.finalize().into()
    }
}

impl Read for &mut Chunks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.available().read(buffer)?;
        self.taken += read;
        Ok(read)
    }
}

impl Input for &mut Chunks {
    fn skip(&mut self, mut bytes: u64) -> io::Result<()> {
        while bytes > 0 {
            let most = usize::try_from(bytes).unwrap_or(usize::MAX);
            let skipped = self.available().len().min(most);
            if skipped == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.taken += skipped;
            bytes -= skipped as u64;
        }
        Ok(())
    }
}
