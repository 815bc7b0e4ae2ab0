//! The evidence of a tool, from guests that keep it and from guests that forge it.

use chv_sandbox::guest::protocol::{EvidenceChain, EvidenceChunk, MAX_EVIDENCE_CHUNK};
use chv_sandbox::vsock::{Error, EvidenceError, Violation};

use super::*;

fn chunk(seq: u64, data: &[u8], is_terminal: bool) -> EvidenceChunk {
    EvidenceChunk {
        command_id: "c1".into(),
        seq,
        chunk_data: data.to_vec(),
        chunk_size: data.len() as u32,
        is_terminal,
    }
}

fn last_link(chunks: &[EvidenceChunk]) -> Option<String> {
    let mut chain = EvidenceChain::default();
    chunks.iter().for_each(|chunk| chain.append(chunk));
    Some(chain.last_link())
}

/// What the dispatch of a command comes to whose guest sends these chunks and this link; then, unless the channel is
/// closed, the next command runs.
async fn dispatched(chunks: &[EvidenceChunk], link: Option<String>) -> Result<ToolResult, Error> {
    let vm = Vm::new();
    let (channel, mut guest) = connected(&vm.config()).await;
    let answer = async {
        guest.read().await;
        for chunk in chunks {
            guest.send(&Frame::EvidenceChunk(chunk.clone())).await;
        }
        let evidence_hash = link;
        let answer = ToolResult {
            evidence_hash,
            ..result("c1")
        };
        guest.send(&Frame::ToolResult(answer)).await;
    };
    let (got, ()) = tokio::join!(channel.dispatch(echo("c1"), LIMIT), answer);
    if !channel.is_poisoned() && !matches!(got, Err(Error::Protocol { .. })) {
        let answer = async {
            guest.read().await;
            guest.send(&Frame::ToolResult(result("c2"))).await;
        };
        let (next, ()) = tokio::join!(channel.dispatch(echo("c2"), LIMIT), answer);
        assert_eq!(next.unwrap(), result("c2"), "the channel goes on");
    }
    got
}

#[tokio::test]
async fn a_whole_chain_is_believed() {
    let large = vec![b'x'; MAX_EVIDENCE_CHUNK];
    let cases: [&[EvidenceChunk]; 4] = [
        // A tool without output.
        &[chunk(1, b"", true)],
        &[chunk(1, b"out", false), chunk(2, b"err", true)],
        &[chunk(1, b"out", false), chunk(2, b"", true)],
        &[chunk(1, &large, false), chunk(2, &large, true)],
    ];
    for chunks in cases {
        let link = last_link(chunks);
        let got = dispatched(chunks, link.clone()).await.unwrap();
        assert_eq!(got.evidence_hash, link);
    }
}

#[tokio::test]
async fn a_guest_may_keep_no_evidence() {
    assert_eq!(dispatched(&[], None).await.unwrap(), result("c1"));
}

#[tokio::test]
async fn what_is_wrong_with_a_chain_is_an_error_of_its_own() {
    async fn check(chunks: &[EvidenceChunk], link: Option<String>, code: &str) -> EvidenceError {
        let error = dispatched(chunks, link).await.unwrap_err();
        assert_eq!(error.code(), code, "{error:?}");
        assert!(!error.is_silence(), "a guest that forges isn't silent");
        match error {
            Error::Evidence { source, .. } => source,
            error => panic!("{error:?}"),
        }
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
    let error = dispatched(&[large], None).await.unwrap_err();
    assert_eq!(error.code(), "SANDBOX_FRAME_MALFORMED");
}

#[tokio::test]
async fn what_follows_a_broken_chain_is_late() {
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
