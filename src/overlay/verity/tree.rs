//! [`Tree`]: computes the fs-verity digest of a file, with several threads that hash its segments.

use std::io;
use std::panic::resume_unwind;
use std::sync::Mutex;
use std::thread;

use super::block::segment_hash;
use super::levels::Levels;
use super::{Hash, VerityDigest};
use crate::mutex::lock;
use crate::overlay::Threads;
use crate::overlay::read::Sink;
use crate::overlay::segments::{SEGMENT, Segment};
use crate::overlay::source::{Loaded, Source};

/// Takes the segments of a file in order, and computes the fs-verity digest.
pub(in crate::overlay) struct Tree {
    length: u64,
    levels: Levels,
    /// One buffer for each thread. It stays empty if the file is mapped.
    buffers: Vec<Vec<u8>>,
    hashes: Vec<Hash>,
}

/// How many segments each thread takes for a batch. That is 16 MiB, or 5 ms of work. Threads are created for each
/// batch, which costs about a hundredth of that.
const BATCH: usize = 32;

/// The number of segments for which one more thread is used. For fewer segments the thread would cost more time than it
/// saves.
const WORTH_A_THREAD: usize = 4;

impl Tree {
    /// For a file of `length` bytes.
    pub(in crate::overlay) fn new(length: u64, threads: Threads) -> Tree {
        Tree {
            length,
            levels: Levels::default(),
            buffers: vec![Vec::new(); threads.get()],
            hashes: Vec::new(),
        }
    }

    pub(in crate::overlay) fn finish(self) -> VerityDigest {
        VerityDigest::from_root(&self.levels.root(), self.length)
    }

    /// Adds a segment, and the holes before it, on this thread.
    pub(super) fn update(&mut self, loaded: &Loaded<'_>) {
        self.levels.push_zeros(loaded.segment.holes_before);
        self.levels.push(&segment_hash(loaded, self.length));
    }
}

/// The fs-verity digest of bytes in memory.
pub(super) fn of(bytes: &[u8]) -> VerityDigest {
    let mut tree = Tree::new(bytes.len() as u64, Threads::ONE);
    let segments = bytes.chunks(SEGMENT).map(Loaded::dense);
    segments.for_each(|segment| tree.update(&segment));
    tree.finish()
}

impl Sink for Tree {
    fn batch(&self) -> usize {
        BATCH * self.buffers.len()
    }

    fn take(&mut self, batch: &[Segment], source: &Source<'_>) -> io::Result<()> {
        self.hashes.resize(batch.len(), [0; 32]);
        let queue = Mutex::new(batch.iter().zip(&mut self.hashes));
        let length = self.length;
        let work = |buffer: &mut Vec<u8>| -> io::Result<()> {
            loop {
                let next = lock(&queue).next();
                let Some((segment, hash)) = next else {
                    return Ok(());
                };
                *hash = segment_hash(&source.load(segment, buffer)?, length);
            }
        };
        let workers = batch.len().div_ceil(WORTH_A_THREAD);
        let mut buffers = self.buffers.iter_mut().take(workers);
        thread::scope(|scope| {
            let mine = buffers.next();
            // If a thread can't be created, the others do its work.
            let spawn = |buffer| thread::Builder::new().spawn_scoped(scope, || work(buffer));
            let helpers: Vec<_> = buffers.filter_map(|buffer| spawn(buffer).ok()).collect();
            let mine = mine.map_or(Ok(()), work);
            let results = helpers.into_iter().map(|helper| helper.join());
            results.fold(mine, |all, one| {
                all.and(one.unwrap_or_else(|panic| resume_unwind(panic)))
            })
        })?;
        for (segment, hash) in batch.iter().zip(&self.hashes) {
            self.levels.push_zeros(segment.holes_before);
            self.levels.push(hash);
        }
        Ok(())
    }
}
