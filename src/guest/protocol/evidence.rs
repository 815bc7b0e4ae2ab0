//! [`EvidenceChain`], the hash chain over the output of one command. Its last link covers all chunks in their order.

use sha2::{Digest as _, Sha256};

use super::EvidenceChunk;
use crate::digest::Digest;

/// The domain of the hash: no other hash of this protocol begins with these bytes.
const DOMAIN: &[u8] = b"brainstorm-evidence-chunk-v1\0";

/// The hash chain over the [chunks](EvidenceChunk) of one command: each link is a hash of a chunk and of the link
/// before it. The value holds the last link.
///
/// `hash[n] = SHA-256("brainstorm-evidence-chunk-v1\0" || command_id || u64be(seq) || u32be(chunk_size) || bytes ||
/// hash[n-1])`; `hash[0]` is 32 zero bytes. Guest and host each compute the chain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EvidenceChain([u8; 32]);

impl EvidenceChain {
    /// Appends the link of the next chunk. Nothing is checked here: the caller checks that `chunk.seq` is the next
    /// number and that `chunk.chunk_size` is the length of `chunk.chunk_data`.
    pub fn append(&mut self, chunk: &EvidenceChunk) {
        let link = Sha256::new()
            .chain_update(DOMAIN)
            .chain_update(&chunk.command_id)
            .chain_update(chunk.seq.to_be_bytes())
            .chain_update(chunk.chunk_size.to_be_bytes())
            .chain_update(&chunk.chunk_data)
            .chain_update(self.0);
        self.0 = link.finalize().into();
    }

    /// The last link as [`ToolResult::evidence_hash`](super::ToolResult::evidence_hash) carries it: `sha256:` and 64
    /// lower-case hexadecimal digits. Before the first chunk the digits are zeros.
    pub fn last_link(&self) -> String {
        Digest::from(self.0).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(seq: u64, data: &[u8]) -> EvidenceChunk {
        EvidenceChunk {
            command_id: "c1".to_owned(),
            seq,
            chunk_data: data.to_vec(),
            chunk_size: data.len() as u32,
            is_terminal: false,
        }
    }

    /// The expected hashes were computed with `printf` and `sha256sum`.
    #[test]
    fn the_links_are_those_of_independent_tools() {
        let mut chain = EvidenceChain::default();
        chain.append(&chunk(1, b"hi\n"));
        assert_eq!(
            chain.last_link(),
            "sha256:9b8563dc5d92f49bfb1ff6c3c423285ef567badea579cfd6444f703707e85d1b"
        );
        chain.append(&chunk(2, b""));
        assert_eq!(
            chain.last_link(),
            "sha256:01d1b9fcdb54a2cdc0506f29ee961d106a6d4d2752fa5e4e447a85f6781448fe"
        );
    }
}
