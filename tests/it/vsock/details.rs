//! Results with details (extension `result/1`), from honest guests and from guests that lie.

use chv_sandbox::guest::protocol::{
    EvidenceChunk, Extension, Hello, MAX_EVIDENCE_CHUNK, MAX_OUTPUT, ResultDetails, ToolOutcomeKind,
};
use chv_sandbox::vsock::{Error, EvidenceError, OutputBytes, ToolAnswer, Violation};

use super::evidence::{chunk, fault, last_link};
use super::*;

const BOTH: [Extension; 2] = [Extension::Evidence, Extension::Result];

fn hello(extensions: &[Extension]) -> Frame {
    let extensions = extensions.iter().map(|it| it.name().to_owned());
    Frame::Hello(Hello {
        extensions: extensions.collect(),
        ..Hello::of_this_build()
    })
}

/// The number of bytes of a stream, and how many of them were kept, according to the result.
type Sizes = (u64, u64);

fn exited(stdout: Sizes, stderr: Sizes) -> Option<ResultDetails> {
    Some(ResultDetails {
        outcome: ToolOutcomeKind::Exited,
        stdout_total: stdout.0,
        stdout_kept: stdout.1,
        stderr_total: stderr.0,
        stderr_kept: stderr.1,
    })
}

fn told(chunks: &[EvidenceChunk], texts: [&str; 2], details: Option<ResultDetails>) -> ToolResult {
    ToolResult {
        stdout: texts[0].to_owned(),
        stderr: texts[1].to_owned(),
        evidence_hash: last_link(chunks),
        details,
        ..result("c1")
    }
}

/// The chunks of a command that wrote these pieces.
fn chunks_of(pieces: &[&[u8]]) -> Vec<EvidenceChunk> {
    let last = pieces.len() as u64;
    let pieces = (1..).zip(pieces);
    let chunks = pieces.map(|(seq, data)| chunk(seq, data, seq == last));
    chunks.collect()
}

/// The result of a dispatch to a guest that has greeted with these extensions and then sends these bytes.
async fn answered(extensions: &[Extension], bytes: &[u8]) -> (Channel, Result<ToolAnswer, Error>) {
    let vm = Vm::new();
    let (channel, mut guest) = connected(&vm.config()).await;
    let answer = async {
        guest.read().await;
        guest.send(&hello(extensions)).await;
        guest.read().await;
        guest.send_bytes(bytes).await;
    };
    let ask = async {
        channel.hello(LIMIT).await.unwrap();
        channel.dispatch(echo("c1"), LIMIT).await
    };
    let (got, ()) = tokio::join!(ask, answer);
    (channel, got)
}

/// The result of a dispatch to a guest that sends these chunks and then this result.
async fn ended(
    extensions: &[Extension],
    chunks: &[EvidenceChunk],
    end: &ToolResult,
) -> (Channel, Result<ToolAnswer, Error>) {
    let frames = chunks.iter().cloned().map(Frame::EvidenceChunk);
    let frames = frames.chain([Frame::ToolResult(end.clone())]);
    let bytes: Vec<u8> = frames.flat_map(|it| encode(&it).unwrap()).collect();
    answered(extensions, &bytes).await
}

#[tokio::test]
async fn the_bytes_of_each_stream_come_through_exactly() {
    async fn check(pieces: &[&[u8]], stdout: &[u8], stderr: &[u8]) {
        let chunks = chunks_of(pieces);
        let sizes = |bytes: &[u8]| (bytes.len() as u64, bytes.len() as u64);
        let texts = [stdout, stderr].map(String::from_utf8_lossy);
        let details = exited(sizes(stdout), sizes(stderr));
        let end = told(&chunks, [&texts[0], &texts[1]], details);
        let (_, got) = ended(&BOTH, &chunks, &end).await;
        let got = got.unwrap();
        assert_eq!(got.result, end);
        let expected = OutputBytes {
            stdout: stdout.to_vec(),
            stderr: stderr.to_vec(),
        };
        assert!(got.output == Some(expected), "{pieces:?}");
    }
    check(&[b""], b"", b"").await;
    check(&[b"out", b"err"], b"out", b"err").await;
    check(&[b"outerr"], b"out", b"err").await;
    check(&[b"", b"\xff\xfe", b""], b"", b"\xff\xfe").await;
    check(&[b"\xff", b"\0", b"\x80"], b"\xff\0\x80", b"").await;
    // A character that begins in one stream and ends in the other is whole in neither.
    check(&[b"\xe2\x82", b"\xac!"], b"\xe2\x82", b"\xac!").await;
    check(&["\u{fffd}€".as_bytes()], "\u{fffd}€".as_bytes(), b"").await;
    let full = vec![0xff; MAX_EVIDENCE_CHUNK];
    check(&[&full, &full], &full, &full).await;
}

#[tokio::test]
async fn a_total_is_the_guests_word() {
    let chunks = chunks_of(&[b"ab"]);
    let end = told(&chunks, ["a", "b"], exited((u64::MAX, 1), (u64::MAX, 1)));
    let (_, got) = ended(&BOTH, &chunks, &end).await;
    assert_eq!(got.unwrap().result.details, end.details);
}

#[tokio::test]
async fn a_guest_that_lists_details_may_leave_them_out() {
    let chunks = chunks_of(&[b"\xe2\x82", b"\xac"]);
    let end = told(&chunks, ["€", ""], None);
    let (_, got) = ended(&BOTH, &chunks, &end).await;
    let got = got.unwrap();
    assert_eq!((got.result, got.output), (end, None));

    let other = told(&chunks, ["?", ""], None);
    let (_, got) = ended(&BOTH, &chunks, &other).await;
    assert_eq!(
        fault(got, "SANDBOX_TOOL_ERROR"),
        EvidenceError::AnotherOutput
    );
}

#[tokio::test]
async fn details_that_the_chunks_do_not_bear_out_fail_the_command() {
    async fn check(pieces: &[&[u8]], end: [&str; 2], sizes: [Sizes; 2], expected: EvidenceError) {
        let chunks = chunks_of(pieces);
        let end = told(&chunks, end, exited(sizes[0], sizes[1]));
        let (channel, got) = ended(&BOTH, &chunks, &end).await;
        assert_eq!(fault(got, "SANDBOX_TOOL_ERROR"), expected, "{sizes:?}");
        assert!(!channel.is_poisoned(), "the channel goes on");
    }
    let max = u64::MAX;
    for (stdout_kept, stderr_kept) in [
        (2, 0),
        (0, 2),
        (3, 1),
        (max, 4),
        (4, max),
        (max, max),
        (1 << 32, 3),
    ] {
        let expected = EvidenceError::KeptElsewhere {
            stdout_kept,
            stderr_kept,
            found: 3,
        };
        let sizes = [(max, stdout_kept), (max, stderr_kept)];
        check(&[b"abc"], ["abc", ""], sizes, expected).await;
    }
    let above = |kept, total| EvidenceError::KeptAboveTotal { kept, total };
    check(&[b"abc"], ["abc", ""], [(2, 3), (0, 0)], above(3, 2)).await;
    check(&[b"abc"], ["ab", "c"], [(2, 2), (0, 1)], above(1, 0)).await;
    check(&[b""], ["", ""], [(0, max), (0, 0)], above(max, 0)).await;

    // The chunks have the right number of bytes, and the texts of the result say something else.
    let other = EvidenceError::AnotherOutput;
    check(&[b"abc"], ["abc", ""], [(2, 2), (1, 1)], other.clone()).await;
    check(&[b"abc"], ["abd", ""], [(3, 3), (0, 0)], other.clone()).await;
    check(&[b"abc"], ["ab", ""], [(2, 2), (1, 1)], other.clone()).await;
    check(
        &[b"\xff"],
        ["\u{fffd}", "x"],
        [(1, 1), (0, 0)],
        other.clone(),
    )
    .await;
    // This text is for an older host, which reads both streams as one. A host with details reads each stream by itself.
    check(&[b"\xe2\x82\xac"], ["€", ""], [(2, 2), (1, 1)], other).await;
}

#[tokio::test]
async fn details_without_their_evidence_fail_the_command() {
    for extensions in [&BOTH[..], &[Extension::Result]] {
        let end = ToolResult {
            evidence_hash: None,
            ..told(&[], ["", ""], exited((0, 0), (0, 0)))
        };
        let (_, got) = ended(extensions, &[], &end).await;
        let missing = EvidenceError::Gap { missing: 1 };
        assert_eq!(fault(got, "SANDBOX_EVIDENCE_GAP"), missing);
        let chunks = chunks_of(&[b""]);
        let (_, got) = ended(extensions, &chunks, &end).await;
        let fault = fault(got, "SANDBOX_TOOL_ERROR");
        assert!(matches!(
            fault,
            EvidenceError::WrongLink { claimed: None, .. }
        ));
    }
}

#[tokio::test]
async fn more_output_than_details_allow_fails_the_command() {
    let full = vec![b'x'; MAX_EVIDENCE_CHUNK];
    let chunks = chunks_of(&[&full, &full, b"x"]);
    let end = told(&chunks, ["", ""], None);
    let (channel, got) = ended(&BOTH, &chunks, &end).await;
    let limit = 2 * MAX_OUTPUT;
    let fault = fault(got, "SANDBOX_TOOL_ERROR");
    assert_eq!(fault, EvidenceError::TooMuch { limit });
    assert!(!channel.is_poisoned());
}

#[tokio::test]
async fn details_of_a_guest_that_has_not_listed_them_break_the_protocol() {
    let chunks = chunks_of(&[b"a"]);
    let end = told(&chunks, ["a", ""], exited((1, 1), (0, 0)));
    for extensions in [&[][..], &[Extension::Evidence, Extension::Nonce]] {
        let (channel, got) = ended(extensions, &chunks, &end).await;
        let error = got.unwrap_err();
        assert_eq!(error.code(), "SANDBOX_VSOCK_PROTOCOL_ERROR");
        let Error::Protocol { source, .. } = error else {
            panic!("{error:?}")
        };
        let expected = Violation::NotAnnounced {
            frame: "ToolResult",
            id: "c1".to_owned(),
            extension: "result/1",
        };
        assert_eq!(source, expected);
        assert!(channel.is_poisoned());
    }
}

#[tokio::test]
async fn a_hello_between_chunk_and_result_announces_nothing_for_this_command() {
    let vm = Vm::new();
    let (channel, mut guest) = connected(&vm.config()).await;
    let chunks = chunks_of(&[b"a"]);
    let end = told(&chunks, ["a", ""], exited((1, 1), (0, 0)));
    let answer = async {
        guest.read().await;
        guest.read().await;
        guest.send(&Frame::EvidenceChunk(chunks[0].clone())).await;
        guest.send(&hello(&BOTH)).await;
        guest.send(&Frame::ToolResult(end)).await;
    };
    let (greeted, got, ()) = tokio::join!(
        channel.hello(LIMIT),
        channel.dispatch(echo("c1"), LIMIT),
        answer
    );
    assert!(greeted.unwrap().is_some());
    assert_eq!(got.unwrap_err().code(), "SANDBOX_VSOCK_PROTOCOL_ERROR");
}

#[tokio::test]
async fn details_that_are_not_whole_or_not_known_are_malformed() {
    let whole = json!({
        "type": "ToolResult", "command_id": "c1", "exit_code": 0, "stdout": "", "stderr": "", "evidence_hash": null,
        "outcome": "exited", "stdout_total": 0, "stdout_kept": 0, "stderr_total": 0, "stderr_kept": 0,
    });
    let with = |field: &str, value: serde_json::Value| {
        let mut body = whole.clone();
        body[field] = value;
        body
    };
    let without = |field: &str| {
        let mut body = whole.clone();
        body.as_object_mut().unwrap().remove(field);
        body
    };
    let cases = [
        without("outcome"),
        without("stdout_total"),
        without("stdout_kept"),
        without("stderr_total"),
        without("stderr_kept"),
        with("outcome", json!("vanished")),
        with("outcome", json!(null)),
        with("outcome", json!("signalled")),
        with("exit_code", json!(-1)),
        with("stdout_total", json!(-1)),
        with("stdout_total", json!(1.0e20)),
        with("stderr_kept", json!("0")),
        with("stdin_total", json!(0)),
    ];
    for body in cases {
        let body = body.to_string();
        let mut frame = u32::try_from(body.len()).unwrap().to_be_bytes().to_vec();
        frame.extend(body.bytes());
        let (channel, got) = answered(&BOTH, &frame).await;
        assert_eq!(got.unwrap_err().code(), "SANDBOX_FRAME_MALFORMED", "{body}");
        assert!(channel.is_poisoned());
    }
}
