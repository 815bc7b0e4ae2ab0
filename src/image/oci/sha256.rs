//! Digests of blobs: a checked text, and a reader that compares what it reads with one.

use std::{
    fmt,
    io::{self, Read},
};

use sha2::{Digest, Sha256};

/// A SHA-256 digest. Its text is `sha256:` and 64 lower-case hexadecimal digits, so it is safe as a file's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Sha256Digest([u8; 32]);

impl Sha256Digest {
    /// Reads the text of a digest; `None` for any other algorithm or form.
    pub(super) fn parse(text: &str) -> Option<Sha256Digest> {
        Self::from_hex(text.strip_prefix("sha256:")?)
    }

    /// Reads the digits alone.
    pub(super) fn from_hex(digits: &str) -> Option<Sha256Digest> {
        let digits = digits.as_bytes();
        if digits.len() != 64 {
            return None;
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Some(Sha256Digest(bytes))
    }

    pub(super) fn of(bytes: &[u8]) -> Sha256Digest {
        Sha256Digest(Sha256::digest(bytes).into())
    }

    /// The digest of all that `hash` was given.
    pub(super) fn end(hash: Sha256) -> Sha256Digest {
        Sha256Digest(hash.finalize().into())
    }

    /// The digits alone.
    pub(super) fn hex(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl fmt::Display for Sha256Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    }
}

/// Hashes what is read through it.
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

    /// Reads the rest, and gives the digest of everything.
    pub(super) fn finish(mut self) -> io::Result<Sha256Digest> {
        let mut buffer = vec![0; 64 * 1024];
        while self.read(&mut buffer)? != 0 {}
        Ok(Sha256Digest::end(self.hash))
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
    fn a_digest_has_one_text() {
        let text = Sha256Digest::of(b"").to_string();
        assert_eq!(
            text,
            "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
        assert_eq!(Sha256Digest::parse(&text), Some(Sha256Digest::of(b"")));
        for wrong in [
            "",
            "sha256:",
            &text[7..],
            &text.to_uppercase(),
            &text.replace("sha256", "sha512"),
            &text[..70],
            &format!("{text}0"),
            &text.replace("e3b0", "../."),
        ] {
            assert_eq!(Sha256Digest::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn what_was_not_read_counts_too() {
        let mut hashing = Hashing::new(&b"all of it"[..]);
        let mut start = [0; 3];
        hashing.read_exact(&mut start).expect("in memory");
        let digest = hashing.finish().expect("in memory");
        assert_eq!(digest, Sha256Digest::of(b"all of it"));
    }
}
