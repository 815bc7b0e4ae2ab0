//! [`Stream`]: computes the SHA-256 of a file's bytes.

use std::io;

use sha2::{Digest as _, Sha256};

use super::Digest;
use super::read::Sink;
use super::segments::{SEGMENT, Segment};
use super::source::{Loaded, Piece, Source};

/// Takes the segments of a file in order, and computes one SHA-256 over all bytes, the zeros of holes included.
#[derive(Default)]
pub(super) struct Stream {
    sha256: Sha256,
    buffer: Vec<u8>,
}

impl Stream {
    pub(super) fn finish(self) -> Digest {
        self.sha256.finalize().into()
    }

    /// Adds a segment, and the holes before it.
    pub(super) fn update(&mut self, loaded: &Loaded<'_>) {
        update(&mut self.sha256, loaded);
    }
}

impl Sink for Stream {
    fn batch(&self) -> usize {
        4
    }

    fn take(&mut self, batch: &[Segment], source: &Source<'_>) -> io::Result<()> {
        for segment in batch {
            let loaded = source.load(segment, &mut self.buffer)?;
            update(&mut self.sha256, &loaded);
        }
        Ok(())
    }
}

fn update(sha256: &mut Sha256, loaded: &Loaded<'_>) {
    zeros(sha256, loaded.segment.holes_before * SEGMENT as u64);
    for piece in loaded.pieces() {
        match piece {
            Piece::Data(bytes) => sha256.update(bytes),
            Piece::Zeros(count) => zeros(sha256, count),
        }
    }
}

fn zeros(sha256: &mut Sha256, mut count: u64) {
    static ZEROS: [u8; 16 << 10] = [0; 16 << 10];
    while count > 0 {
        let some = count.min(ZEROS.len() as u64);
        sha256.update(&ZEROS[..some as usize]);
        count -= some;
    }
}
