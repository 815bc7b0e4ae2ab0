//! The evidence of one command as it comes in: the host computes the chain itself and believes no other.

use super::EvidenceError;
use crate::guest::protocol::{EvidenceChain, EvidenceChunk, ToolResult};

/// What a command's guest has sent of its output so far. It is hashed and not kept.
#[derive(Debug)]
pub(super) struct Evidence {
    chain: EvidenceChain,
    /// Whose turn it is.
    next: u64,
    /// The chunk that came before its turn. The one that is missing may follow, or not: that is the difference
    /// between disorder and a gap.
    ahead: Option<u64>,
    is_terminated: bool,
}

impl Default for Evidence {
    fn default() -> Self {
        Evidence {
            chain: EvidenceChain::default(),
            next: 1,
            ahead: None,
            is_terminated: false,
        }
    }
}

impl Evidence {
    /// Takes the next chunk in.
    pub(super) fn take(&mut self, chunk: &EvidenceChunk) -> Result<(), EvidenceError> {
        let (seq, expected) = (chunk.seq, self.next);
        match self.ahead {
            _ if seq == 0 => Err(EvidenceError::OutOfOrder { seq, expected }),
            _ if seq < expected => Err(EvidenceError::Duplicate { seq }),
            // It comes after one that should have followed it.
            Some(ahead) if seq < ahead => Err(EvidenceError::OutOfOrder { seq, expected }),
            Some(ahead) if seq == ahead => Err(EvidenceError::Duplicate { seq }),
            Some(_) => Ok(()),
            None if self.is_terminated => Err(EvidenceError::OutOfOrder { seq, expected }),
            None if seq > expected => {
                self.ahead = Some(seq);
                Ok(())
            }
            None => {
                self.chain.append(chunk);
                // Nobody sends so many that it would matter: the last one could only be a duplicate.
                self.next = expected.saturating_add(1);
                self.is_terminated = chunk.is_terminal;
                Ok(())
            }
        }
    }

    /// The command has ended with `result`: compares its last link. A guest that sends neither chunks nor a link keeps
    /// no evidence, which is its right.
    pub(super) fn finish(&self, result: &ToolResult) -> Result<(), EvidenceError> {
        let claimed = result.evidence_hash.as_deref();
        let began = self.next > 1 || self.ahead.is_some();
        if !began && claimed.is_none() {
            return Ok(());
        }
        if self.ahead.is_some() || !self.is_terminated {
            return Err(EvidenceError::Gap { missing: self.next });
        }
        let computed = self.chain.last_link();
        match claimed {
            Some(claimed) if claimed == computed => Ok(()),
            claimed => Err(EvidenceError::WrongLink {
                claimed: claimed.map(|claimed| claimed.chars().take(71).collect()),
                computed,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What becomes of chunks with these numbers, the last one terminal, and of a result with the right link of those
    /// that were in order.
    fn check(seqs: &[u64], expected: Result<(), EvidenceError>) {
        let mut evidence = Evidence::default();
        let mut outcome = Ok(());
        for (at, &seq) in seqs.iter().enumerate() {
            outcome = outcome.and_then(|()| {
                evidence.take(&EvidenceChunk {
                    command_id: "c1".to_owned(),
                    seq,
                    chunk_data: vec![7],
                    chunk_size: 1,
                    is_terminal: at + 1 == seqs.len(),
                })
            });
        }
        let result = ToolResult {
            command_id: "c1".to_owned(),
            exit_code: 0,
            stdout: String::new(),
            stderr: String::new(),
            evidence_hash: Some(evidence.chain.last_link()),
        };
        let outcome = outcome.and_then(|()| evidence.finish(&result));
        assert_eq!(outcome, expected, "{seqs:?}");
    }

    #[test]
    fn gap_duplicate_and_disorder_are_told_apart() {
        use EvidenceError::{Duplicate, Gap, OutOfOrder};
        check(&[1], Ok(()));
        check(&[1, 2, 3], Ok(()));
        check(&[2], Err(Gap { missing: 1 }));
        check(&[1, 3], Err(Gap { missing: 2 }));
        check(&[1, 3, 4, 9], Err(Gap { missing: 2 }));
        check(&[1, u64::MAX], Err(Gap { missing: 2 }));
        check(&[], Err(Gap { missing: 1 }));
        check(&[1, 1], Err(Duplicate { seq: 1 }));
        check(&[1, 2, 1], Err(Duplicate { seq: 1 }));
        check(&[1, 3, 3], Err(Duplicate { seq: 3 }));
        let out_of_order = |seq, expected| Err(OutOfOrder { seq, expected });
        check(&[2, 1], out_of_order(1, 1));
        check(&[1, 3, 2], out_of_order(2, 2));
        check(&[0], out_of_order(0, 1));
    }
}
