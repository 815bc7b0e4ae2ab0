//! [`TwoDigests`]: computes the SHA-256 and the fs-verity digest in one pass.

use std::io;
use std::panic::resume_unwind;
use std::thread;

use super::{Tree, VerityDigest};
use crate::overlay::read::Sink;
use crate::overlay::segments::Segment;
use crate::overlay::source::Source;
use crate::overlay::stream::Stream;
use crate::overlay::{Digest, Threads};

/// Loads each segment once, and feeds it to the SHA-256 on this thread and to the fs-verity tree on another.
pub(in crate::overlay) struct TwoDigests {
    stream: Stream,
    tree: Tree,
    buffers: Vec<Vec<u8>>,
}

/// How many segments are loaded at a time: 4 MiB, so that a buffer for them stays in the processor's cache.
const BATCH: usize = 8;

impl TwoDigests {
    /// For a file of `length` bytes.
    pub(in crate::overlay) fn new(length: u64) -> TwoDigests {
        TwoDigests {
            stream: Stream::default(),
            tree: Tree::new(length, Threads::ONE),
            buffers: vec![Vec::new(); BATCH],
        }
    }

    pub(in crate::overlay) fn finish(self) -> (Digest, VerityDigest) {
        (self.stream.finish(), self.tree.finish())
    }
}

impl Sink for TwoDigests {
    fn batch(&self) -> usize {
        BATCH
    }

    fn take(&mut self, batch: &[Segment], source: &Source<'_>) -> io::Result<()> {
        let with_buffers = batch.iter().zip(&mut self.buffers);
        let loaded = with_buffers.map(|(segment, buffer)| source.load(segment, buffer));
        let loaded = loaded.collect::<io::Result<Vec<_>>>()?;
        let (stream, tree) = (&mut self.stream, &mut self.tree);
        thread::scope(|scope| {
            let tree = || loaded.iter().for_each(|segment| tree.update(segment));
            let other = thread::Builder::new().spawn_scoped(scope, tree)?;
            loaded.iter().for_each(|segment| stream.update(segment));
            other.join().unwrap_or_else(|panic| resume_unwind(panic));
            Ok(())
        })
    }
}
