//! [`Hashing`]: a reader that hashes the bytes that are read through it.

use std::io::{self, Read};

use sha2::{Digest as _, Sha256};

use crate::digest::Digest;

/// A reader that hashes the bytes that are read through it.
pub(super) struct Hashing<R> {
    input: R,
    hash: Sha256,
}

impl<R: Read> Hashing<R> {
    pub(super) fn new(input: R) -> Hashing<R> {
        Hashing {
            input,
            hash: Sha256::new(),
        }
    }

    /// Reads the rest, and returns the digest of all bytes.
    pub(super) fn finish(mut self) -> io::Result<Digest> {
        let mut buffer = vec![0; 64 * 1024];
        while self.read(&mut buffer)? != 0 {}
        Ok(self.hash.finalize().into())
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.input.read(buffer)?;
        self.hash.update(&buffer[..read]);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_read_counts_too() {
        let mut hashing = Hashing::new(&b"all of it"[..]);
        let mut start = [0; 3];
        hashing.read_exact(&mut start).expect("in memory");
        let digest = hashing.finish().expect("in memory");
        assert_eq!(digest, Digest::of(b"all of it"));
    }
}
