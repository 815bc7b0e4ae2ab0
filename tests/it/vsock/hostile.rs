//! Guests that break the protocol of the channel: each closes it, and every request in flight gets the reason.

use std::error::Error as _;

use chv_sandbox::guest::protocol::{GuestResponse, Hello, Imprinted, MemUsage, QueryResult};
use chv_sandbox::vsock::{CloseCause, Error, Violation};
use jiff::Timestamp;

use super::*;

/// Waits until the channel closes, and returns the reason.
async fn closes(events: &mut Receiver<ChannelEvent>) -> Error {
    loop {
        if let ChannelEventKind::Closed(reason) = next(events).await {
            return reason;
        }
    }
}

#[tokio::test]
async fn every_bad_frame_closes_with_its_code() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/frames");
    let mut sent = 0;
    for code in std::fs::read_dir(folder).unwrap() {
        let code = code.unwrap().path();
        if !code.is_dir() {
            continue;
        }
        for file in std::fs::read_dir(&code).unwrap() {
            let file = file.unwrap().path();
            let vm = Vm::new();
            let (channel, mut guest) = connected(&vm.config()).await;
            let mut events = channel.events();
            guest.send_bytes(&std::fs::read(&file).unwrap()).await;
            drop(guest);
            let reason = closes(&mut events).await;
            assert_eq!(
                code.file_name().unwrap(),
                reason.code(),
                "{}: {reason:?}",
                file.display()
            );
            assert!(reason.to_string().len() < 600, "{reason}");
            assert!(channel.is_poisoned());
            sent += 1;
        }
    }
    assert!(sent >= 50, "only {sent} frames were found");
}

#[tokio::test]
async fn every_request_in_flight_gets_the_one_reason() {
    let vm = Vm::new();
    let (channel, mut guest) = connected(&vm.config()).await;
    let spoil = async {
        for _ in 0..3 {
            guest.read().await;
        }
        // Bytes after a bad frame are ignored, even if they are a good frame.
        let mut bytes = b"\0\0\0\x02{{".to_vec();
        bytes.extend(encode(&Frame::ToolResult(result("c1"))).unwrap());
        guest.send_bytes(&bytes).await;
        guest.closed().await;
    };
    let (first, second, query, ()) = tokio::join!(
        channel.dispatch(echo("c1"), LIMIT),
        channel.dispatch(echo("c2"), LIMIT),
        channel.open_fd_count(LIMIT),
        spoil
    );
    let later = channel.dispatch(echo("c3"), LIMIT).await;
    for error in [
        first.unwrap_err(),
        second.unwrap_err(),
        query.unwrap_err(),
        later.unwrap_err(),
    ] {
        assert_eq!(error.code(), "SANDBOX_FRAME_MALFORMED");
        let cause = error.source();
        assert!(
            cause.is_some_and(|cause| cause.to_string().contains("line 1 column 2")),
            "{error:?}"
        );
    }
}

#[tokio::test]
async fn an_answer_of_another_kind_breaks_the_protocol() {
    let vm = Vm::new();
    let (channel, mut guest) = connected(&vm.config()).await;
    let answer = async {
        let Frame::GuestQuery(query) = guest.read().await else {
            panic!("no query")
        };
        let result = QueryResult::MemUsage(MemUsage {
            bytes_used: 1,
            bytes_total: 2,
        });
        let response = GuestResponse {
            query_id: query.query_id,
            result,
            ts: Timestamp::UNIX_EPOCH,
        };
        guest.send(&Frame::GuestResponse(response)).await;
        guest.closed().await;
    };
    let (got, ()) = tokio::join!(channel.open_fd_count(LIMIT), answer);
    let error = got.unwrap_err();
    assert_eq!(error.code(), "SANDBOX_VSOCK_PROTOCOL_ERROR");
    assert!(matches!(
        error,
        Error::Protocol {
            source: Violation::WrongAnswer {
                frame: "GuestResponse",
                ..
            },
            ..
        }
    ));
}

#[tokio::test]
async fn a_renewal_is_not_answered_by_an_imprint() {
    let vm = Vm::new();
    let (channel, mut guest) = connected(&vm.config()).await;
    let answer = async {
        let Frame::Renew(renew) = guest.read().await else {
            panic!("no renew")
        };
        guest
            .send(&Frame::Imprinted(Imprinted {
                request_id: renew.request_id,
            }))
            .await;
    };
    let now = std::time::SystemTime::now();
    let (got, ()) = tokio::join!(channel.renew(&[0; 32], now, LIMIT), answer);
    assert_eq!(got.unwrap_err().code(), "SANDBOX_VSOCK_PROTOCOL_ERROR");
}

#[tokio::test]
async fn a_second_answer_breaks_the_protocol() {
    let check = async |first: Frame, second: Frame| {
        let vm = Vm::new();
        let (channel, mut guest) = connected(&vm.config()).await;
        let mut events = channel.events();
        let answer = async {
            guest.read().await;
            guest.read().await;
            guest.send(&first).await;
            guest.send(&second).await;
        };
        let (tool, _, ()) = tokio::join!(
            channel.dispatch(echo("c1"), LIMIT),
            async {
                match &first {
                    Frame::Hello(_) => drop(channel.hello(LIMIT).await),
                    _ => drop(channel.dispatch(echo("c2"), LIMIT).await),
                }
            },
            answer
        );
        drop(tool);
        let reason = closes(&mut events).await;
        assert!(
            matches!(
                &reason,
                Error::Protocol {
                    source: Violation::NeverAsked { .. },
                    ..
                }
            ),
            "{reason:?}"
        );
    };
    check(
        Frame::ToolResult(result("c1")),
        Frame::ToolResult(result("c1")),
    )
    .await;
    let hello = Frame::Hello(Hello::of_this_build());
    check(hello.clone(), hello).await;
}

#[tokio::test]
async fn a_frame_that_stands_still_closes() {
    let vm = Vm::new();
    let config = ChannelConfig {
        limits: limits().frame_idle(SHORT),
        ..vm.config()
    };
    let (channel, mut guest) = connected(&config).await;
    let mut events = channel.events();
    // There is no limit on the wait between frames.
    tokio::time::sleep(3 * SHORT).await;
    assert!(!channel.is_poisoned());
    guest.send_bytes(&[0, 0, 0, 9, b'{']).await;
    let reason = closes(&mut events).await;
    assert_eq!(reason.code(), "SANDBOX_VSOCK_PARTIAL_FRAME_TIMEOUT");
    assert!(
        matches!(
            reason,
            Error::PartialFrameTimeout {
                direction: "from the guest",
                done: 5,
                ..
            }
        ),
        "{reason:?}"
    );
    guest.closed().await;
}

#[tokio::test]
async fn a_frame_that_takes_too_long_closes() {
    let vm = Vm::new();
    let config = ChannelConfig {
        limits: limits().frame_total(4 * SHORT),
        ..vm.config()
    };
    let (channel, mut guest) = connected(&config).await;
    let mut events = channel.events();
    let drip = async {
        guest.send_bytes(&[0, 1, 0, 0]).await;
        // Writes until the other end has closed.
        while guest.stream.write_all(b" ").await.is_ok() {
            tokio::time::sleep(SHORT / 5).await;
        }
        std::future::pending::<()>().await;
    };
    let reason = tokio::select! {
        reason = closes(&mut events) => reason,
        () = drip => unreachable!("it waits"),
    };
    assert_eq!(reason.code(), "SANDBOX_VSOCK_PARTIAL_FRAME_TIMEOUT");
}

#[tokio::test]
async fn a_guest_that_does_not_read_closes() {
    let vm = Vm::new();
    let config = ChannelConfig {
        limits: limits().frame_idle(SHORT),
        ..vm.config()
    };
    let (channel, _guest) = connected(&config).await;
    let large = ToolDispatch {
        params: json!("x".repeat(8 << 20)),
        ..echo("c1")
    };
    let error = channel.dispatch(large, LIMIT).await.unwrap_err();
    assert!(
        matches!(
            error,
            Error::PartialFrameTimeout {
                direction: "to the guest",
                ..
            }
        ),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_guest_that_goes_ends_what_is_in_flight() {
    let check = async |last_words: &[u8], inside: Option<usize>| {
        let vm = Vm::new();
        let (channel, mut guest) = connected(&vm.config()).await;
        let go = async {
            guest.read().await;
            guest.send_bytes(last_words).await;
            drop(guest);
        };
        let (got, ()) = tokio::join!(channel.dispatch(echo("c1"), LIMIT), go);
        let error = got.unwrap_err();
        assert_eq!(error.code(), "SANDBOX_VSOCK_CLOSED");
        let Error::Closed { source, .. } = error else {
            panic!("{error:?}")
        };
        match (source, inside) {
            (CloseCause::Peer, None) => {}
            (CloseCause::PeerInsideFrame { received }, Some(bytes)) => assert_eq!(received, bytes),
            (source, _) => panic!("{source:?}"),
        }
    };
    check(b"", None).await;
    check(b"\0\0", Some(2)).await;
    check(b"\0\0\0\x09{", Some(5)).await;
}
