//! [`Evidence`]: checks the evidence of one command while it arrives. The host computes the hash chain itself and
//! compares it with the guest's.

use std::fmt;

use super::EvidenceError;
use super::text::{Text, reads_as};
use crate::guest::protocol::{
    EvidenceChain, EvidenceChunk, Extension, Hello, MAX_FRAME, MAX_OUTPUT, ResultDetails,
    ToolResult,
};
use crate::sanitize;

/// The most bytes in all chunks of one command if the chunks are hashed and not kept. A result can't have more output:
/// it must fit a frame, and a text is never shorter than the bytes that it was decoded from.
const MAX_HASHED: usize = MAX_FRAME;

/// The most bytes in all chunks of one command if they are kept. [`Extension::Result`] allows no more.
const MAX_KEPT: usize = 2 * MAX_OUTPUT;

/// Which evidence the guest's hello announces.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Announced {
    /// Whether every command has evidence.
    pub(super) evidence: bool,
    /// Whether a result may have details.
    pub(super) details: bool,
}

impl Announced {
    pub(super) fn by(hello: &Hello) -> Announced {
        Announced {
            evidence: hello.supports(Extension::Evidence),
            details: hello.supports(Extension::Result),
        }
    }
}

/// The bytes of a tool's two streams, which the command's evidence proves. `Debug` shows only their numbers.
#[derive(Clone, PartialEq, Eq)]
pub struct OutputBytes {
    /// The part of standard output that the guest kept.
    pub stdout: Vec<u8>,
    /// The part of standard error that the guest kept.
    pub stderr: Vec<u8>,
}

impl fmt::Debug for OutputBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let OutputBytes { stdout, stderr } = self;
        write!(
            f,
            "OutputBytes({} and {} bytes)",
            stdout.len(),
            stderr.len()
        )
    }
}

/// The output in the chunks, as far as it is needed for a comparison with the result.
#[derive(Debug)]
enum Output {
    /// The hash of the output as text, and the number of its bytes.
    Hashed(Text, usize),
    /// The output's bytes, if the guest has announced details.
    Kept(Vec<u8>),
}

/// The evidence of one command so far.
#[derive(Debug, Default)]
pub(super) struct Evidence {
    chain: EvidenceChain,
    /// The output in the chunks; `None` before the first chunk in order.
    output: Option<Output>,
    /// The number of the last chunk that came in order; 0 before the first.
    last: u64,
    /// The number of a chunk that came too early. If the missing chunk follows, the chunks are out of order; if it
    /// doesn't, there is a gap.
    ahead: Option<u64>,
    is_terminated: bool,
}

impl Evidence {
    /// Whether the result may have details. `announced` counts only before the first chunk: if the guest had announced
    /// no details by then, the bytes of the chunks weren't kept.
    pub(super) fn takes_details(&self, announced: Announced) -> bool {
        match &self.output {
            None => announced.details,
            Some(output) => matches!(output, Output::Kept(_)),
        }
    }

    /// Adds the next chunk.
    pub(super) fn take(
        &mut self,
        chunk: &EvidenceChunk,
        announced: Announced,
    ) -> Result<(), EvidenceError> {
        let (seq, expected) = (chunk.seq, self.expected());
        match self.ahead {
            _ if seq == 0 => Err(EvidenceError::OutOfOrder { seq, expected }),
            _ if seq <= self.last => Err(EvidenceError::Duplicate { seq }),
            // It comes after a chunk with a higher number.
            Some(ahead) if seq < ahead => Err(EvidenceError::OutOfOrder { seq, expected }),
            Some(ahead) if seq == ahead => Err(EvidenceError::Duplicate { seq }),
            Some(_) => Ok(()),
            None if self.is_terminated => Err(EvidenceError::OutOfOrder { seq, expected }),
            None if seq > expected => {
                self.ahead = Some(seq);
                Ok(())
            }
            None => self.append(chunk, announced),
        }
    }

    fn append(&mut self, chunk: &EvidenceChunk, announced: Announced) -> Result<(), EvidenceError> {
        let output = self.output.get_or_insert_with(|| match announced.details {
            true => Output::Kept(Vec::new()),
            false => Output::Hashed(Text::default(), 0),
        });
        output.append(&chunk.chunk_data)?;
        self.chain.append(chunk);
        self.last = chunk.seq;
        self.is_terminated = chunk.is_terminal;
        Ok(())
    }

    /// Compares the last link and the output of `result` with those of the chunks. Returns the output's bytes if the
    /// result has details.
    ///
    /// A guest that sends neither chunks nor a link keeps no evidence. This is allowed unless it has `announced`
    /// evidence or the result has details.
    pub(super) fn finish(
        &mut self,
        result: &ToolResult,
        announced: Announced,
    ) -> Result<Option<OutputBytes>, EvidenceError> {
        let claimed = result.evidence_hash.as_deref();
        let began = self.last > 0 || self.ahead.is_some();
        let owed = announced.evidence || result.details.is_some();
        if !began && claimed.is_none() && !owed {
            return Ok(None);
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
        match (&mut self.output, &result.details) {
            (Some(Output::Kept(bytes)), Some(details)) => {
                let bytes = split(std::mem::take(bytes), details)?;
                let is_told = reads_as(&bytes.stdout, &result.stdout)
                    && reads_as(&bytes.stderr, &result.stderr);
                is_told.then_some(Some(bytes))
            }
            (Some(output), _) => output.is_told_by(result).then_some(None),
            // Not reached: the terminal chunk has come, so there is an output.
            (None, _) => None,
        }
        .ok_or(EvidenceError::AnotherOutput)
    }

    /// The number of the next chunk in order.
    fn expected(&self) -> u64 {
        self.last.saturating_add(1)
    }
}

impl Output {
    fn append(&mut self, bytes: &[u8]) -> Result<(), EvidenceError> {
        let (length, limit) = match self {
            Output::Hashed(_, length) => (*length, MAX_HASHED),
            Output::Kept(kept) => (kept.len(), MAX_KEPT),
        };
        if bytes.len() > limit - length {
            return Err(EvidenceError::TooMuch { limit });
        }
        match self {
            Output::Hashed(text, length) => {
                text.append(bytes);
                *length += bytes.len();
            }
            Output::Kept(kept) => {
                let length = kept.len() + bytes.len();
                if length > kept.capacity() {
                    // The capacity doubles, but never exceeds the limit.
                    let capacity = (2 * kept.capacity()).clamp(length, MAX_KEPT);
                    kept.reserve_exact(capacity - kept.len());
                }
                kept.extend_from_slice(bytes);
            }
        }
        Ok(())
    }

    /// Whether the texts of a result without details are those of this output.
    fn is_told_by(&self, result: &ToolResult) -> bool {
        let told = [result.stdout.as_str(), &result.stderr];
        match self {
            Output::Hashed(text, _) => text.is(&told),
            Output::Kept(bytes) => {
                let mut text = Text::default();
                text.append(bytes);
                text.is(&told)
            }
        }
    }
}

/// Splits the bytes of the chunks into the two streams.
fn split(mut bytes: Vec<u8>, details: &ResultDetails) -> Result<OutputBytes, EvidenceError> {
    let (stdout_kept, stderr_kept) = (details.stdout_kept, details.stderr_kept);
    let streams = [
        (stdout_kept, details.stdout_total),
        (stderr_kept, details.stderr_total),
    ];
    for (kept, total) in streams {
        if kept > total {
            return Err(EvidenceError::KeptAboveTotal { kept, total });
        }
    }
    let found = bytes.len() as u64;
    let elsewhere = EvidenceError::KeptElsewhere {
        stdout_kept,
        stderr_kept,
        found,
    };
    if stdout_kept.checked_add(stderr_kept) != Some(found) {
        return Err(elsewhere);
    }
    // At most the number of bytes in the chunks, which is a `usize`.
    let at = usize::try_from(stdout_kept).map_err(|_| elsewhere)?;
    let stderr = match at == bytes.len() {
        true => Vec::new(),
        false if at == 0 => std::mem::take(&mut bytes),
        false => bytes.split_off(at),
    };
    Ok(OutputBytes {
        stdout: bytes,
        stderr,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::protocol::{MAX_EVIDENCE_CHUNK, ToolOutcomeKind};

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
            details: None,
        }
    }

    const OLD: Announced = Announced {
        evidence: false,
        details: false,
    };

    /// Checks chunks with these numbers, the last one terminal, and a result with the right link of the chunks that
    /// were in order.
    fn check(seqs: &[u64], expected: Result<(), EvidenceError>) {
        let mut evidence = Evidence::default();
        let mut outcome = Ok(());
        for (at, &seq) in seqs.iter().enumerate() {
            outcome = outcome.and_then(|()| {
                evidence.take(&chunk(seq, b"7".to_vec(), at + 1 == seqs.len()), OLD)
            });
        }
        let link = Some(evidence.chain.last_link());
        let result = result(&"7".repeat(seqs.len()), "", link);
        let outcome = outcome.and_then(|()| evidence.finish(&result, OLD));
        assert_eq!(outcome, expected.map(|()| None), "{seqs:?}");
    }

    #[test]
    fn a_gap_a_duplicate_and_a_wrong_order_are_different_errors() {
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
    fn there_is_no_chunk_after_the_largest_number() {
        let mut evidence = Evidence {
            last: u64::MAX - 1,
            ..Evidence::default()
        };
        let last = chunk(u64::MAX, Vec::new(), false);
        assert_eq!(evidence.take(&last, OLD), Ok(()));
        let seq = u64::MAX;
        assert_eq!(
            evidence.take(&last, OLD),
            Err(EvidenceError::Duplicate { seq })
        );
        let missing = u64::MAX;
        let ended = evidence.finish(&result("", "", None), OLD);
        assert_eq!(ended, Err(EvidenceError::Gap { missing }));
    }

    #[test]
    fn the_output_of_a_command_is_limited() {
        let check = |details: bool, limit: usize| {
            let announced = Announced { details, ..OLD };
            let mut evidence = Evidence::default();
            let whole = (limit / MAX_EVIDENCE_CHUNK) as u64;
            for seq in 1..=whole {
                let full = chunk(seq, vec![b'x'; MAX_EVIDENCE_CHUNK], false);
                assert_eq!(evidence.take(&full, announced), Ok(()));
            }
            // Empty chunks aren't limited: they cost the guest more than the host.
            let empty = chunk(whole + 1, Vec::new(), false);
            assert_eq!(evidence.take(&empty, announced), Ok(()));
            let over = evidence.take(&chunk(whole + 2, vec![b'x'], true), announced);
            assert_eq!(over, Err(EvidenceError::TooMuch { limit }));
        };
        check(false, MAX_FRAME);
        check(true, 2 << 20);
    }

    #[test]
    fn kept_output_never_takes_more_memory_than_its_limit() {
        for size in [1, 7, 4096, 65_536, 700_000, MAX_EVIDENCE_CHUNK] {
            let mut output = Output::Kept(Vec::new());
            let piece = vec![b'x'; size];
            while output.append(&piece).is_ok() {
                let Output::Kept(kept) = &output else {
                    panic!("{output:?}")
                };
                assert!(kept.capacity() <= MAX_KEPT, "{} bytes", kept.capacity());
            }
        }
    }

    #[test]
    fn the_kept_bytes_are_split_as_the_result_says() {
        let details = |stdout_kept, stdout_total, stderr_kept, stderr_total| ResultDetails {
            outcome: ToolOutcomeKind::Exited,
            stdout_total,
            stdout_kept,
            stderr_total,
            stderr_kept,
        };
        let check = |details: ResultDetails, stdout: &[u8], stderr: &[u8]| {
            let bytes = split(b"abc".to_vec(), &details).unwrap();
            assert_eq!((&bytes.stdout[..], &bytes.stderr[..]), (stdout, stderr));
        };
        check(details(3, 3, 0, 0), b"abc", b"");
        check(details(2, 9, 1, u64::MAX), b"ab", b"c");
        check(details(0, 0, 3, 3), b"", b"abc");

        let refused = |details| split(b"abc".to_vec(), &details).unwrap_err();
        let max = u64::MAX;
        for (stdout_kept, stderr_kept) in [(2, 2), (0, 0), (4, 0), (max, 4), (4, max), (max, max)] {
            let expected = EvidenceError::KeptElsewhere {
                stdout_kept,
                stderr_kept,
                found: 3,
            };
            assert_eq!(
                refused(details(stdout_kept, max, stderr_kept, max)),
                expected
            );
        }
        let (kept, total) = (3, 2);
        let above = EvidenceError::KeptAboveTotal { kept, total };
        assert_eq!(refused(details(3, 2, 0, 0)), above);
        assert_eq!(refused(details(0, 0, 3, 2)), above);
    }

    #[test]
    fn a_guest_that_announced_evidence_must_send_it() {
        let finish = |result: &ToolResult, announced| Evidence::default().finish(result, announced);
        let nothing = result("", "", None);
        assert_eq!(finish(&nothing, OLD), Ok(None));
        let details = Announced {
            details: true,
            ..OLD
        };
        assert_eq!(finish(&nothing, details), Ok(None));
        let missing = Err(EvidenceError::Gap { missing: 1 });
        let evidence = Announced {
            evidence: true,
            ..OLD
        };
        assert_eq!(finish(&nothing, evidence), missing);
        // Details need evidence.
        let detailed = ToolResult {
            details: Some(ResultDetails {
                outcome: ToolOutcomeKind::Exited,
                stdout_total: 0,
                stdout_kept: 0,
                stderr_total: 0,
                stderr_kept: 0,
            }),
            ..nothing
        };
        assert_eq!(finish(&detailed, details), missing);
    }
}
