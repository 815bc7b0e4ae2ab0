//! [`Evidence`] makes the frames that answer a command: the output in chunks, which form a hash chain, and the result
//! with the chain's last link.
//!
//! Standard output is sent while the tool runs, a chunk each time that [`STEP`] or more unsent bytes are there.
//! Standard error is kept until the tool has ended, since all of standard output comes before it. The chunks that are
//! left then are sent in one piece with the result. So the chunks of an ordinary tool cost no packet of their own and
//! don't wake the host separately.
//!
//! The chunks hold the same bytes as the result: the first [`MAX_OUTPUT`](crate::guest::protocol::MAX_OUTPUT) bytes of
//! each stream, or the guest's own text in place of a tool's standard error. A chunk never holds bytes of both streams.
//!
//! A host that knows [`Extension::Result`](crate::guest::protocol::Extension::Result) gets the result with
//! [`ResultDetails`], and can decode each stream separately. An older host gets no details, and decodes both streams as
//! one text; for this host a character that begins in standard output and ends in standard error belongs to standard
//! output.

use crate::guest::frame::{LengthError, encode_into};
use crate::guest::protocol::{
    EXIT_SIGNALLED, EvidenceChain, EvidenceChunk, Frame, MAX_EVIDENCE_CHUNK, ResultDetails,
    ToolOutcomeKind, ToolResult,
};

use super::capture::Output;

/// How many bytes of standard output make a chunk while the tool runs: the capacity of a pipe. If a tool writes without
/// a pause, each read of the pipe makes a chunk.
const STEP: usize = 64 * 1024;

/// How a command ended: the outcome and the exit code of its result.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ending {
    outcome: ToolOutcomeKind,
    exit_code: i32,
}

impl Ending {
    pub(super) fn exited(exit_code: i32) -> Ending {
        Ending {
            outcome: ToolOutcomeKind::Exited,
            exit_code,
        }
    }

    pub(super) fn signalled(signal: i32) -> Ending {
        Ending {
            outcome: ToolOutcomeKind::Signalled,
            exit_code: EXIT_SIGNALLED + signal,
        }
    }

    /// An outcome that the guest decides, such as a missed deadline. Such an outcome has exactly one exit code.
    pub(super) fn of_guest(outcome: ToolOutcomeKind) -> Ending {
        Ending {
            outcome,
            exit_code: *outcome.exit_codes().start(),
        }
    }
}

/// The evidence of one command so far.
pub(super) struct Evidence<'a> {
    command_id: &'a str,
    /// Whether the host gets [`ResultDetails`].
    detailed: bool,
    chain: EvidenceChain,
    /// The number of the last chunk.
    seq: u64,
    /// How many bytes of standard output were sent in chunks.
    sent: usize,
}

impl<'a> Evidence<'a> {
    pub(super) fn new(command_id: &'a str, detailed: bool) -> Self {
        Evidence {
            command_id,
            detailed,
            chain: EvidenceChain::default(),
            seq: 0,
            sent: 0,
        }
    }

    /// The frames to send while the tool runs, now that standard output has grown to `stdout`. `None` if fewer than
    /// [`STEP`] bytes are unsent.
    pub(super) fn grown(&mut self, stdout: &[u8]) -> Result<Option<Vec<u8>>, LengthError> {
        let unsent = &stdout[self.sent..];
        if unsent.len() < STEP {
            return Ok(None);
        }
        self.sent = stdout.len();
        let mut frames = Vec::new();
        for piece in unsent.chunks(MAX_EVIDENCE_CHUNK) {
            self.chunk(&mut frames, piece, false)?;
        }
        Ok(Some(frames))
    }

    /// The frames to send when the command has ended: the last chunks and the result.
    pub(super) fn finish(mut self, ending: Ending, output: Output) -> Result<Vec<u8>, LengthError> {
        let details = self.detailed.then(|| ResultDetails {
            outcome: ending.outcome,
            stdout_total: output.stdout.total(),
            stdout_kept: output.stdout.kept.len() as u64,
            stderr_total: output.stderr.total(),
            stderr_kept: output.stderr.kept.len() as u64,
        });
        let (mut stdout, mut stderr) = (output.stdout.kept, output.stderr.kept);
        if details.is_none() {
            join_character(&mut stdout, &mut stderr);
        }
        let mut frames = Vec::new();
        let streams = [&stdout[self.sent..], &stderr[..]];
        let mut pieces = streams
            .into_iter()
            .flat_map(|stream| stream.chunks(MAX_EVIDENCE_CHUNK));
        // There is always a terminal chunk, even if no bytes are left for it.
        let mut piece = pieces.next().unwrap_or_default();
        for next in pieces {
            self.chunk(&mut frames, piece, false)?;
            piece = next;
        }
        self.chunk(&mut frames, piece, true)?;
        let result = Frame::ToolResult(ToolResult {
            command_id: self.command_id.to_owned(),
            exit_code: ending.exit_code,
            stdout: String::from_utf8_lossy(&stdout).into_owned(),
            stderr: String::from_utf8_lossy(&stderr).into_owned(),
            evidence_hash: Some(self.chain.last_link()),
            details,
        });
        encode_into(&mut frames, &result)?;
        Ok(frames)
    }

    /// The frames of a command for which no tool was started. `reason` is its standard error.
    pub(super) fn refuse(
        self,
        outcome: ToolOutcomeKind,
        reason: String,
    ) -> Result<Vec<u8>, LengthError> {
        let mut output = Output::default();
        output.stderr.replace(reason);
        self.finish(Ending::of_guest(outcome), output)
    }

    fn chunk(
        &mut self,
        frames: &mut Vec<u8>,
        piece: &[u8],
        is_terminal: bool,
    ) -> Result<(), LengthError> {
        self.seq += 1;
        let chunk = EvidenceChunk {
            command_id: self.command_id.to_owned(),
            seq: self.seq,
            chunk_data: piece.to_vec(),
            chunk_size: piece.len() as u32,
            is_terminal,
        };
        self.chain.append(&chunk);
        encode_into(frames, &Frame::EvidenceChunk(chunk))
    }
}

/// Moves the rest of a character that begins in standard output and ends in standard error to standard output.
///
/// An older host compares the bytes of all chunks, decoded as one text, with the two texts of the result. In the chunks
/// the character is whole. In the result each stream is decoded by itself, which would make two invalid characters of
/// it, and the comparison would fail.
fn join_character(stdout: &mut Vec<u8>, stderr: &mut Vec<u8>) {
    let end = stdout.utf8_chunks().last();
    let begun = end.map_or(&[][..], |end| end.invalid());
    let mut joined = begun.to_vec();
    // No character has more than three bytes after its first.
    joined.extend(stderr.iter().take(3));
    let first = joined.utf8_chunks().next();
    let length = first.map_or(0, |first| match first.valid().chars().next() {
        Some(character) => character.len_utf8(),
        None => first.invalid().len(),
    });
    if !begun.is_empty() && length > begun.len() {
        let rest = stderr.drain(..length - begun.len());
        stdout.extend(rest);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::capture::Captured;
    use super::*;
    use crate::guest::frame::read_frame;

    fn output(stdout: &[u8], stderr: &[u8]) -> Output {
        let captured = |bytes: &[u8]| Captured {
            kept: bytes.to_vec(),
            dropped: 0,
        };
        Output {
            stdout: captured(stdout),
            stderr: captured(stderr),
        }
    }

    /// The frames of a tool that wrote `stdout` in pieces of `step` bytes, and `stderr`.
    fn frames(
        stdout: &[u8],
        stderr: &[u8],
        step: usize,
        detailed: bool,
    ) -> (Vec<EvidenceChunk>, ToolResult) {
        let mut evidence = Evidence::new("c1", detailed);
        let mut bytes = Vec::new();
        for end in (0..stdout.len()).step_by(step) {
            bytes.extend(evidence.grown(&stdout[..end]).unwrap().unwrap_or_default());
        }
        let output = output(stdout, stderr);
        bytes.extend(evidence.finish(Ending::exited(3), output).unwrap());
        let mut bytes = bytes.as_slice();
        let mut chunks = Vec::new();
        loop {
            match read_frame(&mut bytes).unwrap().unwrap() {
                Frame::EvidenceChunk(chunk) => chunks.push(chunk),
                Frame::ToolResult(result) => {
                    assert!(bytes.is_empty(), "the result comes last");
                    return (chunks, result);
                }
                other => panic!("{other:?}"),
            }
        }
    }

    /// Checks the frames of a command, for an older host and for a host that gets details.
    fn check(stdout: &[u8], stderr: &[u8], step: usize) -> Vec<EvidenceChunk> {
        let (chunks, result) = frames(stdout, stderr, step, false);
        assert_eq!(result.details, None);
        let told = [result.stdout.as_str(), &result.stderr].concat();
        let whole = [stdout, stderr].concat();
        assert!(
            String::from_utf8_lossy(&whole) == told,
            "the result tells the bytes"
        );
        proved(&chunks, &result, &whole);

        let (chunks, result) = frames(stdout, stderr, step, true);
        let details = ResultDetails {
            outcome: ToolOutcomeKind::Exited,
            stdout_total: stdout.len() as u64,
            stdout_kept: stdout.len() as u64,
            stderr_total: stderr.len() as u64,
            stderr_kept: stderr.len() as u64,
        };
        assert_eq!(result.details, Some(details));
        assert!(String::from_utf8_lossy(stdout) == result.stdout);
        assert!(String::from_utf8_lossy(stderr) == result.stderr);
        proved(&chunks, &result, &whole);
        chunks
    }

    /// Checks that the chunks are in order and hold these bytes, and that the result has their last link.
    fn proved(chunks: &[EvidenceChunk], result: &ToolResult, whole: &[u8]) {
        let mut chain = EvidenceChain::default();
        for (at, chunk) in chunks.iter().enumerate() {
            assert_eq!(chunk.seq, at as u64 + 1);
            assert_eq!(chunk.is_terminal, at + 1 == chunks.len());
            assert_eq!(chunk.chunk_size as usize, chunk.chunk_data.len());
            assert!(chunk.chunk_data.len() <= MAX_EVIDENCE_CHUNK);
            chain.append(chunk);
        }
        assert_eq!(result.evidence_hash, Some(chain.last_link()));
        let held: Vec<_> = chunks.iter().flat_map(|it| it.chunk_data.clone()).collect();
        assert!(held == whole, "the bytes are the tool's");
    }

    fn sizes(chunks: &[EvidenceChunk]) -> Vec<usize> {
        chunks.iter().map(|chunk| chunk.chunk_data.len()).collect()
    }

    #[test]
    fn standard_output_is_sent_while_the_tool_runs_and_the_rest_with_the_result() {
        assert_eq!(sizes(&check(b"", b"", 1)), [0]);
        assert_eq!(sizes(&check(b"out", b"", 1)), [3]);
        assert_eq!(sizes(&check(b"", b"err", 1)), [3]);
        assert_eq!(sizes(&check(b"out", b"error", 1)), [3, 5]);
        let large = vec![b'x'; 2 * MAX_EVIDENCE_CHUNK + 1];
        let full = MAX_EVIDENCE_CHUNK;
        assert_eq!(
            sizes(&check(&large, &large, usize::MAX)),
            [full, full, 1, full, full, 1]
        );
        assert_eq!(
            sizes(&check(&large[..2 * STEP + 7], b"e", STEP)),
            [STEP, STEP, 7, 1]
        );
        assert_eq!(sizes(&check(&large[..STEP], b"", STEP / 2)), [STEP]);

        // All of standard output was sent before the tool ended.
        let mut evidence = Evidence::new("c1", true);
        assert!(evidence.grown(&large[..STEP]).unwrap().is_some());
        assert_eq!(evidence.grown(&large[..STEP]).unwrap(), None);
        let output = output(&large[..STEP], b"");
        let rest = evidence.finish(Ending::exited(0), output).unwrap();
        let terminal = read_frame(&mut rest.as_slice()).unwrap().unwrap();
        assert!(
            matches!(&terminal, Frame::EvidenceChunk(chunk) if chunk.chunk_data.is_empty() && chunk.is_terminal),
            "{terminal:?}"
        );
    }

    #[test]
    fn a_character_in_two_streams_belongs_to_the_first_for_an_older_host() {
        let check = |stdout: &[u8], stderr: &[u8], told: (&str, &str)| {
            check(stdout, stderr, 1);
            let (_, result) = frames(stdout, stderr, 1, false);
            assert_eq!((result.stdout.as_str(), result.stderr.as_str()), told);
        };
        check(b"\xe2\x82", b"\xac!", ("€", "!"));
        check(b"\xe2", b"\x82\xac", ("€", ""));
        check(b"\xe2\x82", b"!", ("\u{fffd}", "!"));
        check(b"\xf0", b"\x9f\x98!", ("\u{fffd}", "!"));
        check(b"\xff", b"\xac", ("\u{fffd}", "\u{fffd}"));
        check(b"a", b"\xac", ("a", "\u{fffd}"));
        check(b"\xe2\x82", b"", ("\u{fffd}", ""));
    }

    proptest! {
        // Each case has a few hundred KiB.
        #![proptest_config(ProptestConfig::with_cases(16))]

        #[test]
        fn whatever_a_tool_writes_is_proved(
            stdout in prop::collection::vec(any::<u8>(), 0..3 * STEP),
            broken in prop::sample::select(vec![&b""[..], b"\xe2", b"\xe2\x82", b"\xf0\x9f\x98"]),
            stderr in prop::collection::vec(0x80_u8..0xc0, 0..5),
            step in STEP / 3..2 * STEP,
        ) {
            check(&[&stdout, broken].concat(), &stderr, step);
        }
    }
}
