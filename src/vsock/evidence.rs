//! The evidence of one command as it comes in: the host computes the chain itself and believes no other.

use super::EvidenceError;
use super::text::Text;
use crate::guest::protocol::{EvidenceChain, EvidenceChunk, MAX_FRAME, ToolResult};
use crate::sanitize;

/// The most bytes that the chunks of one command may hold together. No result could tell more: it has to fit a frame,
/// and the text of bytes is never shorter than they are.
const MAX_OUTPUT: usize = MAX_FRAME;

/// What a command's guest has sent of its output so far. It is hashed and not kept.
#[derive(Debug, Default)]
pub(super) struct Evidence {
    chain: EvidenceChain,
    /// The output that the chunks hold.
    output: Text,
    /// How many bytes of it there are.
    length: usize,
    /// The number of the last chunk that came in its turn; 0 before the first.
    last: u64,
    /// The chunk that came before its turn. The one that is missing may follow, or not: that is the difference
    /// between disorder and a gap.
    ahead: Option<u64>,
    is_terminated: bool,
}

impl Evidence {
    /// Takes the next chunk in.
    pub(super) fn take(&mut self, chunk: &EvidenceChunk) -> Result<(), EvidenceError> {
        let (seq, expected) = (chunk.seq, self.expected());
        match self.ahead {
            _ if seq == 0 => Err(EvidenceError::OutOfOrder { seq, expected }),
            _ if seq <= self.last => Err(EvidenceError::Duplicate { seq }),
            // It comes after one that should have followed it.
            Some(ahead) if seq < ahead => Err(EvidenceError::OutOfOrder { seq, expected }),
            Some(ahead) if seq == ahead => Err(EvidenceError::Duplicate { seq }),
            Some(_) => Ok(()),
            None if self.is_terminated => Err(EvidenceError::OutOfOrder { seq, expected }),
            None if seq > expected => {
                self.ahead = Some(seq);
                Ok(())
            }
            None => self.append(chunk),
        }
    }

    fn append(&mut self, chunk: &EvidenceChunk) -> Result<(), EvidenceError> {
        self.length += chunk.chunk_data.len();
        if self.length > MAX_OUTPUT {
            return Err(EvidenceError::TooMuch { limit: MAX_OUTPUT });
        }
        self.chain.append(chunk);
        self.output.append(&chunk.chunk_data);
        self.last = chunk.seq;
        self.is_terminated = chunk.is_terminal;
        Ok(())
    }

    /// The command has ended with `result`: compares its last link and its output with those of the chunks. A guest that
    /// sends neither chunks nor a link keeps no evidence, which is its right unless it has `announced` that it does.
    pub(super) fn finish(&self, result: &ToolResult, announced: bool) -> Result<(), EvidenceError> {
        let claimed = result.evidence_hash.as_deref();
        let began = self.last > 0 || self.ahead.is_some();
        if !began && claimed.is_none() && !announced {
            return Ok(());
        }
        if self.ahead.is_some() || !self.is_terminated {
            let missing = self.expected();
            return Err(EvidenceError::Gap { missing });
        }
        let computed = self.chain.last_link();
        if claimed != Some(computed.as_str()) {
            return Err(EvidenceError::WrongLink {
                claimed: claimed.map(|claimed| sanitize::line(claimed, 71)),
                computed,
            });
        }
        match self.output.is(&[&result.stdout, &result.stderr]) {
            true => Ok(()),
            false => Err(EvidenceError::AnotherOutput),
        }
    }

    /// Whose turn it is.
    fn expected(&self) -> u64 {
        self.last.saturating_add(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::protocol::MAX_EVIDENCE_CHUNK;

    fn chunk(seq: u64, data: Vec<u8>, is_terminal: bool) -> EvidenceChunk {
        EvidenceChunk {
            command_id: "c1".to_owned(),
            seq,
            chunk_size: data.len() as u32,
            chunk_data: data,
            is_terminal,
        }
    }

    fn result(stdout: &str, stderr: &str, evidence_hash: Option<String>) -> ToolResult {
        ToolResult {
            command_id: "c1".to_owned(),
            exit_code: 0,
            stdout: stdout.to_owned(),
            stderr: stderr.to_owned(),
            evidence_hash,
        }
    }

    /// What becomes of chunks with these numbers, the last one terminal, and of a result with the right link of those
    /// that were in order.
    fn check(seqs: &[u64], expected: Result<(), EvidenceError>) {
        let mut evidence = Evidence::default();
        let mut outcome = Ok(());
        for (at, &seq) in seqs.iter().enumerate() {
            outcome = outcome
                .and_then(|()| evidence.take(&chunk(seq, b"7".to_vec(), at + 1 == seqs.len())));
        }
        let link = Some(evidence.chain.last_link());
        let result = result(&"7".repeat(seqs.len()), "", link);
        let outcome = outcome.and_then(|()| evidence.finish(&result, false));
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

    #[test]
    fn after_the_last_number_there_is_none() {
        let mut evidence = Evidence {
            last: u64::MAX - 1,
            ..Evidence::default()
        };
        let last = chunk(u64::MAX, Vec::new(), false);
        assert_eq!(evidence.take(&last), Ok(()));
        let seq = u64::MAX;
        assert_eq!(evidence.take(&last), Err(EvidenceError::Duplicate { seq }));
        let missing = u64::MAX;
        let ended = evidence.finish(&result("", "", None), false);
        assert_eq!(ended, Err(EvidenceError::Gap { missing }));
    }

    #[test]
    fn a_command_has_only_so_much_output() {
        let mut evidence = Evidence::default();
        let whole = (MAX_OUTPUT / MAX_EVIDENCE_CHUNK) as u64;
        for seq in 1..=whole {
            let full = chunk(seq, vec![b'x'; MAX_EVIDENCE_CHUNK], false);
            assert_eq!(evidence.take(&full), Ok(()));
        }
        // As many empty ones as it likes: they cost the guest more than the host.
        assert_eq!(evidence.take(&chunk(whole + 1, Vec::new(), false)), Ok(()));
        let limit = MAX_OUTPUT;
        let over = evidence.take(&chunk(whole + 2, vec![b'x'], true));
        assert_eq!(over, Err(EvidenceError::TooMuch { limit }));
    }

    #[test]
    fn who_announced_evidence_owes_it() {
        let silent = Evidence::default();
        let nothing = result("", "", None);
        assert_eq!(silent.finish(&nothing, false), Ok(()));
        let missing = Err(EvidenceError::Gap { missing: 1 });
        assert_eq!(silent.finish(&nothing, true), missing);
    }
}
