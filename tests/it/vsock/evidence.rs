//! The evidence of a tool, from guests that keep it and from guests that forge it.

use std::cell::Cell;

use chv_sandbox::guest::protocol::{
    EvidenceChain, EvidenceChunk, Extension, Hello, MAX_EVIDENCE_CHUNK, MAX_FRAME,
};
use chv_sandbox::vsock::{Error, EvidenceError, ToolAnswer, Violation};

use super::*;

pub(super) fn chunk(seq: u64, data: &[u8], is_terminal: bool) -> EvidenceChunk {
    EvidenceChunk {
        command_id: "c1".into(),
        seq,
        chunk_data: data.to_vec(),
        chunk_size: data.len() as u32,
        is_terminal,
    }
}

pub(super) fn last_link(chunks: &[EvidenceChunk]) -> Option<String> {
    let mut chain = EvidenceChain::default();
    chunks.iter().for_each(|chunk| chain.append(chunk));
    Some(chain.last_link())
}

/// The result of a command whose output is in these chunks.
fn proved(chunks: &[EvidenceChunk], evidence_hash: Option<String>) -> ToolResult {
    let output: Vec<_> = chunks.iter().flat_map(|it| it.chunk_data.clone()).collect();
    ToolResult {
        stdout: String::from_utf8_lossy(&output).into_owned(),
        evidence_hash,
        ..result("c1")
    }
}

/// The result of a dispatch to a guest that sends these chunks, and then a result with their output and this link.
async fn dispatched(chunks: &[EvidenceChunk], link: Option<String>) -> Result<ToolAnswer, Error> {
    ended(chunks, proved(chunks, link)).await
}

/// The result of a dispatch to a guest that sends these chunks and this result. Unless the channel closes, the next
/// command must succeed.
async fn ended(chunks: &[EvidenceChunk], end: ToolResult) -> Result<ToolAnswer, Error> {
    let vm = Vm::new();
    let (channel, mut guest) = connected(&vm.config()).await;
    let answer = async {
        guest.read().await;
        for chunk in chunks {
            guest.send(&Frame::EvidenceChunk(chunk.clone())).await;
        }
        guest.send(&Frame::ToolResult(end)).await;
    };
    let (got, ()) = tokio::join!(channel.dispatch(echo("c1"), LIMIT), answer);
    if !channel.is_poisoned() && !matches!(got, Err(Error::Protocol { .. })) {
        let answer = async {
            guest.read().await;
            guest.send(&Frame::ToolResult(result("c2"))).await;
        };
        let (next, ()) = tokio::join!(channel.dispatch(echo("c2"), LIMIT), answer);
        assert_eq!(next.unwrap().result, result("c2"), "the channel goes on");
    }
    got
}

/// The fault in the evidence for which a command failed with this code.
#[track_caller]
pub(super) fn fault(got: Result<ToolAnswer, Error>, code: &str) -> EvidenceError {
    let error = got.unwrap_err();
    assert_eq!(error.code(), code, "{error:?}");
    assert!(!error.is_silence(), "a guest that forges isn't silent");
    match error {
        Error::Evidence { source, .. } => source,
        error => panic!("{error:?}"),
    }
}

#[tokio::test]
async fn a_whole_chain_is_believed() {
    let large = vec![b'x'; MAX_EVIDENCE_CHUNK];
    let cases: [&[EvidenceChunk]; 4] = [
        // A tool without output has one empty chunk.
        &[chunk(1, b"", true)],
        &[chunk(1, b"out", false), chunk(2, b"err", true)],
        &[chunk(1, b"out", false), chunk(2, b"", true)],
        &[chunk(1, &large, false), chunk(2, &large, true)],
    ];
    for chunks in cases {
        let link = last_link(chunks);
        let got = dispatched(chunks, link.clone()).await.unwrap();
        assert_eq!((got.result.evidence_hash, got.output), (link, None));
    }
}

#[tokio::test]
async fn a_guest_may_keep_no_evidence() {
    assert_eq!(ended(&[], result("c1")).await.unwrap().result, result("c1"));
}

#[tokio::test]
async fn a_guest_that_announced_evidence_owes_it() {
    let check = async |extensions: &[Extension], is_believed: bool| {
        let vm = Vm::new();
        let (channel, mut guest) = connected(&vm.config()).await;
        let extensions = extensions.iter().map(|it| it.name().to_owned()).collect();
        let hello = Hello {
            extensions,
            ..Hello::of_this_build()
        };
        let answer = async {
            guest.read().await;
            guest.send(&Frame::Hello(hello)).await;
            guest.read().await;
            guest.send(&Frame::ToolResult(result("c1"))).await;
        };
        let ask = async {
            channel.hello(LIMIT).await.unwrap();
            channel.dispatch(echo("c1"), LIMIT).await
        };
        let (got, ()) = tokio::join!(ask, answer);
        match is_believed {
            true => assert_eq!(got.unwrap().result, result("c1")),
            false => {
                let missing = fault(got, "SANDBOX_EVIDENCE_GAP");
                assert_eq!(missing, EvidenceError::Gap { missing: 1 });
            }
        }
        assert!(!channel.is_poisoned());
    };
    check(&[], true).await;
    check(&[Extension::Nonce, Extension::Clock], true).await;
    check(&[Extension::Evidence], false).await;
    check(&Extension::ALL, false).await;
}

#[tokio::test]
async fn the_output_of_the_result_is_that_of_the_chunks() {
    async fn check(chunks: &[&[u8]], stdout: &str, stderr: &str, is_believed: bool) {
        let end = chunks.len();
        let chunks = (1..).zip(chunks);
        let chunks: Vec<_> = chunks
            .map(|(seq, data)| chunk(seq, data, seq == end as u64))
            .collect();
        let told = ToolResult {
            stdout: stdout.to_owned(),
            stderr: stderr.to_owned(),
            ..proved(&chunks, last_link(&chunks))
        };
        let got = ended(&chunks, told.clone()).await;
        match is_believed {
            true => assert_eq!(got.unwrap().result, told),
            false => {
                let fault = fault(got, "SANDBOX_TOOL_ERROR");
                assert_eq!(fault, EvidenceError::AnotherOutput);
            }
        }
    }
    check(&[b""], "", "", true).await;
    check(&[b"out", b"err"], "out", "err", true).await;
    // The guest chooses how it cuts the output into chunks, and where its streams meet.
    check(&[b"o", b"uterr"], "out", "err", true).await;
    check(&["😀".as_bytes()], "😀", "", true).await;
    check(&[b"\xf0\x9f", b"\x98\x80"], "😀", "", true).await;
    check(&[b"\xff", b"\xe2\x82"], "\u{fffd}\u{fffd}", "", true).await;

    check(&[b""], "out", "", false).await;
    check(&[b"out"], "", "", false).await;
    check(&[b"out"], "out", "err", false).await;
    check(&[b"out", b"err"], "err", "out", false).await;
    check(&[b"out"], "OUT", "", false).await;
    check(&[b"\xff"], "?", "", false).await;
}

#[tokio::test]
async fn more_output_than_a_result_could_tell_fails_the_command() {
    let full = vec![0; MAX_EVIDENCE_CHUNK];
    let chunks: Vec<_> = (1..=17).map(|seq| chunk(seq, &full, false)).collect();
    let got = ended(&chunks, result("c1")).await;
    let fault = fault(got, "SANDBOX_TOOL_ERROR");
    assert!(matches!(fault, EvidenceError::TooMuch { limit } if limit == MAX_FRAME));
}

#[tokio::test]
async fn a_number_that_nothing_follows_is_a_gap() {
    let chunks = [chunk(1, b"a", false), chunk(u64::MAX, b"b", true)];
    let fault = fault(
        dispatched(&chunks, last_link(&chunks)).await,
        "SANDBOX_EVIDENCE_GAP",
    );
    assert_eq!(fault, EvidenceError::Gap { missing: 2 });
}

#[tokio::test]
async fn chunks_without_an_end_time_out_and_are_nothing_to_the_next_command() {
    let vm = Vm::new();
    let (channel, mut guest) = connected(&vm.config()).await;
    let endless = ToolDispatch {
        deadline_ms: 50,
        ..echo("c1")
    };
    // The guest sends whole frames only, because a torn frame would be another error.
    let given_up = Cell::new(false);
    let drip = async {
        guest.read().await;
        let mut seq = 0;
        while !given_up.get() {
            seq += 1;
            guest
                .send(&Frame::EvidenceChunk(chunk(seq, b"", false)))
                .await;
            tokio::time::sleep(SHORT / 10).await;
        }
    };
    let ask = async {
        let got = channel.dispatch(endless, SHORT).await;
        given_up.set(true);
        got.unwrap_err()
    };
    let (error, ()) = tokio::join!(ask, drip);
    assert_eq!(error.code(), "SANDBOX_TOOL_TIMEOUT");

    let mut events = channel.events();
    let late = [chunk(7, b"late", false), chunk(8, b"later", true)];
    let own = EvidenceChunk {
        command_id: "c2".into(),
        ..chunk(1, b"c2\n", true)
    };
    let told = ToolResult {
        evidence_hash: last_link(std::slice::from_ref(&own)),
        ..result("c2")
    };
    let answer = async {
        guest.read().await;
        guest.send(&Frame::EvidenceChunk(late[0].clone())).await;
        guest.send(&Frame::EvidenceChunk(own.clone())).await;
        guest.send(&Frame::EvidenceChunk(late[1].clone())).await;
        guest.send(&Frame::ToolResult(told.clone())).await;
        guest
            .send(&Frame::ToolResult(proved(&late, last_link(&late))))
            .await;
    };
    let (got, ()) = tokio::join!(channel.dispatch(echo("c2"), LIMIT), answer);
    assert_eq!(got.unwrap().result, told);
    let late_result = loop {
        match next(&mut events).await {
            ChannelEventKind::LateArrival(frame) => match &*frame {
                Frame::ToolResult(result) => break result.clone(),
                Frame::EvidenceChunk(chunk) => assert_eq!(chunk.command_id, "c1"),
                other => panic!("{other:?}"),
            },
            ChannelEventKind::Frame(_) => {}
            event => panic!("{event:?}"),
        }
    };
    assert_eq!(late_result.command_id, "c1");
}

#[tokio::test]
async fn a_chunk_of_a_command_that_was_never_sent_breaks_the_protocol() {
    let stranger = EvidenceChunk {
        command_id: "c".repeat(1000),
        ..chunk(1, b"a", true)
    };
    let error = ended(&[stranger], result("c1")).await.unwrap_err();
    assert_eq!(error.code(), "SANDBOX_VSOCK_PROTOCOL_ERROR");
    assert!(
        matches!(
            &error,
            Error::Protocol {
                source: Violation::NeverAsked { frame: "EvidenceChunk", id },
                ..
            } if id.chars().count() == 64
        ),
        "{error:?}"
    );
}

#[tokio::test]
async fn each_fault_of_a_chain_is_an_error_of_its_own() {
    async fn check(chunks: &[EvidenceChunk], link: Option<String>, code: &str) -> EvidenceError {
        fault(dispatched(chunks, link).await, code)
    }

    let (one, two, end) = (
        chunk(1, b"a", false),
        chunk(2, b"b", false),
        chunk(3, b"c", true),
    );
    let link = last_link(&[one.clone(), two.clone(), end.clone()]);

    let gap = "SANDBOX_EVIDENCE_GAP";
    check(&[one.clone(), end.clone()], link.clone(), gap).await;
    check(&[two.clone(), end.clone()], link.clone(), gap).await;
    let source = check(&[one.clone(), two.clone()], link.clone(), gap).await;
    assert_eq!(
        source,
        EvidenceError::Gap { missing: 3 },
        "the terminal one is missing"
    );
    check(&[], link.clone(), gap).await;

    let duplicate = "SANDBOX_EVIDENCE_DUPLICATE";
    check(
        &[one.clone(), one.clone(), two.clone(), end.clone()],
        link.clone(),
        duplicate,
    )
    .await;
    check(
        &[one.clone(), two.clone(), end.clone(), end.clone()],
        link.clone(),
        duplicate,
    )
    .await;

    let disorder = "SANDBOX_EVIDENCE_OUT_OF_ORDER";
    check(
        &[two.clone(), one.clone(), end.clone()],
        link.clone(),
        disorder,
    )
    .await;
    check(
        &[one.clone(), end.clone(), two.clone()],
        link.clone(),
        disorder,
    )
    .await;
    let after_the_end = chunk(4, b"d", true);
    check(
        &[one.clone(), two.clone(), end.clone(), after_the_end],
        link.clone(),
        disorder,
    )
    .await;
    check(&[chunk(0, b"", true)], link.clone(), disorder).await;

    let wrong = "SANDBOX_TOOL_ERROR";
    let whole = [one, two, end];
    let other = last_link(&whole[..2]);
    let source = check(&whole, other.clone(), wrong).await;
    let computed = link.unwrap();
    assert_eq!(
        source,
        EvidenceError::WrongLink {
            claimed: other,
            computed
        }
    );
    check(&whole, None, wrong).await;
    check(&whole, Some("é".repeat(1 << 20)), wrong).await;
}

#[tokio::test]
async fn a_chunk_that_lies_about_its_size_breaks_the_protocol() {
    for said in [0, 2, u32::MAX] {
        let lie = EvidenceChunk {
            chunk_size: said,
            ..chunk(1, b"a", true)
        };
        let error = dispatched(&[lie], None).await.unwrap_err();
        assert_eq!(error.code(), "SANDBOX_VSOCK_PROTOCOL_ERROR");
        assert!(
            matches!(
                &error,
                Error::Protocol {
                    source: Violation::ChunkSize { found: 1, .. },
                    ..
                }
            ),
            "{error:?}"
        );
    }
}

#[tokio::test]
async fn a_chunk_above_1_mib_is_malformed() {
    let large = chunk(1, &vec![0; MAX_EVIDENCE_CHUNK + 1], true);
    let error = ended(&[large], result("c1")).await.unwrap_err();
    assert_eq!(error.code(), "SANDBOX_FRAME_MALFORMED");
}

#[tokio::test]
async fn frames_after_a_broken_chain_are_late() {
    let vm = Vm::new();
    let (channel, mut guest) = connected(&vm.config()).await;
    let mut events = channel.events();
    let answer = async {
        guest.read().await;
        for _ in 0..3 {
            guest
                .send(&Frame::EvidenceChunk(chunk(1, b"a", false)))
                .await;
        }
        guest.send(&Frame::ToolResult(result("c1"))).await;
    };
    let (got, ()) = tokio::join!(channel.dispatch(echo("c1"), LIMIT), answer);
    assert_eq!(got.unwrap_err().code(), "SANDBOX_EVIDENCE_DUPLICATE");
    let mut seen = Vec::new();
    while seen.len() < 4 {
        seen.push(match next(&mut events).await {
            ChannelEventKind::Frame(frame) => (frame.name(), "in time"),
            ChannelEventKind::LateArrival(frame) => (frame.name(), "late"),
            event => panic!("{event:?}"),
        });
    }
    let in_time = ("EvidenceChunk", "in time");
    let late = [("EvidenceChunk", "late"), ("ToolResult", "late")];
    assert_eq!(seen, [in_time, in_time, late[0], late[1]]);
}
