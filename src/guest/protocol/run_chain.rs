//! [`RunChain`], the hash chain over the records of a run with streams. Each direction has a chain of its own, since
//! neither end knows in which order the other end saw the records of both directions.

use sha2::{Digest as _, Sha256};

use crate::digest::Digest;
use crate::guest::record::RecordKind;

/// The domain of the hash: no other hash of this protocol begins with these bytes.
const DOMAIN: &[u8] = b"chv-sandbox-run-v2\0";

/// The direction of a [record](super#streams) of a run, as the [`RunChain`] hashes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Direction {
    /// From the host to the guest.
    ToGuest = 0,
    /// From the guest to the host.
    ToHost = 1,
}

/// The hash chain over the [records](super#streams) of one run with streams in one direction: each link is a hash of a
/// record and of the link before it. The value holds the last link.
///
/// The first link is `SHA-256("chv-sandbox-run-v2\0" || u8 direction || u32be(length) || body)`, with the number of
/// the [`Direction`], and with the length and the body of the frame that opened the run. Each record makes the next
/// link: `SHA-256(previous link || u8 kind || u32be(size) || bytes)`, with the number of its [`RecordKind`], and with
/// the size and the bytes of its body. The last record of the run, which carries the links
/// ([`RunEnd`](super::RunEnd)), is in neither chain. Guest and host each compute both chains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunChain([u8; 32]);

impl RunChain {
    /// The chain of a run before its first record. `open_run_body` is the body of the [`OpenRun`](super::OpenRun) frame
    /// byte by byte as it was sent, without the length before it.
    pub fn new(direction: Direction, open_run_body: &[u8]) -> RunChain {
        let link = Sha256::new()
            .chain_update(DOMAIN)
            .chain_update([direction as u8])
            .chain_update((open_run_body.len() as u32).to_be_bytes())
            .chain_update(open_run_body);
        RunChain(link.finalize().into())
    }

    /// Appends the link of the next record: its kind and its body, without the header.
    pub fn append(&mut self, kind: RecordKind, body: &[u8]) {
        let link = Sha256::new()
            .chain_update(self.0)
            .chain_update([kind as u8])
            .chain_update((body.len() as u32).to_be_bytes())
            .chain_update(body);
        self.0 = link.finalize().into();
    }

    /// The last link: the 32 bytes of a SHA-256.
    pub fn link(&self) -> [u8; 32] {
        self.0
    }

    /// Formats a link as a [`RunEnd`](super::RunEnd) carries it: `sha256:` and 64 lower-case hexadecimal digits.
    pub fn text(link: &[u8; 32]) -> String {
        Digest::from(*link).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The expected hashes were computed with `printf`, `xxd` and `sha256sum`.
    #[test]
    fn the_links_are_those_of_independent_tools() {
        let mut chain = RunChain::new(Direction::ToHost, b"{}");
        assert_eq!(RunChain::text(&chain.link()), FIRST);
        chain.append(RecordKind::Stdout, b"hi\n");
        assert_eq!(RunChain::text(&chain.link()), SECOND);
        assert_ne!(
            RunChain::new(Direction::ToGuest, b"{}"),
            RunChain::new(Direction::ToHost, b"{}")
        );
    }

    const FIRST: &str = "sha256:1ade5dff2807bb6fe83e745fd4a19cea533339e1da9104ba643789add8d86070";
    const SECOND: &str = "sha256:1e1e8c720ad41b7b05b6643f2a98979512eec96a6473bef5f9ee89776c09b8fa";
}
