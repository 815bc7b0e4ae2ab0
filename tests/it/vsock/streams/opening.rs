//! Connections that can't be opened, and connections that the host doesn't try to open.

use chv_sandbox::guest::protocol::{
    ErrorEvent, Extension, OpenPull, OpenPush, TransferEnd, TransferLimits,
};
use chv_sandbox::vsock::{CloseCause, Error, HandshakeError, Violation};
use uuid::Uuid;

use super::*;

/// The error of a run whose guest answers the first frame with these bytes and closes.
async fn answered(bytes: &[u8]) -> Error {
    let scene = Scene::new().await;
    let accept = async {
        let (mut guest, _) = scene.accept().await;
        guest.send_bytes(bytes).await;
    };
    let open = scene.channel.open_run(open_run(StdinMode::None));
    let (opened, ()) = tokio::join!(open, accept);
    scene.assert_channel_goes_on().await;
    opened.unwrap_err()
}

fn refusal(code: &str) -> Vec<u8> {
    let event = ErrorEvent {
        code: code.to_owned(),
        message: "no\nmore".to_owned(),
    };
    encode(&Frame::ErrorEvent(event)).unwrap()
}

#[tokio::test]
async fn a_ninth_connection_is_refused_by_its_own_name() {
    let error = answered(&refusal("SANDBOX_TOO_MANY_STREAMS")).await;
    assert!(matches!(error, Error::TooManyStreams { .. }), "{error:?}");
    assert_eq!(error.code(), "SANDBOX_TOO_MANY_STREAMS");
}

#[tokio::test]
async fn another_refusal_tells_the_guests_words_in_one_line() {
    let error = answered(&refusal(&"X\n".repeat(4096))).await;
    let Error::Refused { code, message, .. } = &error else {
        panic!("{error:?}");
    };
    assert!(
        !code.contains('\n') && code.chars().count() <= 256,
        "{code}"
    );
    assert!(!message.contains('\n'), "{message}");
    assert_eq!(error.code(), "SANDBOX_TOOL_ERROR");
}

#[tokio::test]
async fn anything_else_in_place_of_an_answer_ends_the_connection_alone() {
    // The record of an end before the run has begun. Read as a frame it announces 100 MB.
    let end = answered(&record(RecordKind::End, b"{}")).await;
    assert!(matches!(end, Error::FrameTooLarge { .. }), "{end:?}");

    let hello = answered(&encode(&Frame::Hello(Hello::of_this_build())).unwrap()).await;
    let expected = Violation::NotOpened { frame: "Hello" };
    assert!(
        matches!(&hello, Error::Protocol { source, .. } if *source == expected),
        "{hello:?}"
    );
    let back = encode(&Frame::OpenRun(open_run(StdinMode::None))).unwrap();
    let back = answered(&back).await;
    assert_eq!(back.code(), "SANDBOX_VSOCK_PROTOCOL_ERROR");

    let nothing = answered(b"").await;
    assert!(
        matches!(
            &nothing,
            Error::Closed {
                source: CloseCause::Peer,
                ..
            }
        ),
        "{nothing:?}"
    );
    let torn = answered(b"\0\0\0\x11{\"type\"").await;
    assert!(
        matches!(
            &torn,
            Error::Closed {
                source: CloseCause::PeerInsideFrame { .. },
                ..
            }
        ),
        "{torn:?}"
    );
    let malformed = answered(b"\0\0\0\x02{{").await;
    assert_eq!(malformed.code(), "SANDBOX_FRAME_MALFORMED");
}

#[tokio::test]
async fn a_guest_that_says_nothing_is_waited_for_as_long_as_a_handshake_may_take() {
    let short = |limits: TimeLimits| limits.handshake(SHORT);
    let scene = Scene::with(Hello::of_this_build(), short).await;
    let (opened, _guest) = tokio::join!(
        scene.channel.open_run(open_run(StdinMode::None)),
        scene.accept()
    );
    let error = opened.unwrap_err();
    assert!(
        matches!(error, Error::NoAnswer { request: "OpenRun", waited, .. } if waited == SHORT),
        "{error:?}"
    );
    // A VMM that doesn't even answer the handshake.
    let error = scene
        .channel
        .open_run(open_run(StdinMode::None))
        .await
        .unwrap_err();
    assert!(
        matches!(
            &error,
            Error::Handshake {
                source: HandshakeError::NoReply { .. },
                attempts: 1,
                ..
            }
        ),
        "{error:?}"
    );
    scene.assert_channel_goes_on().await;
}

/// Checks that nothing was sent to the guest.
async fn assert_not_announced(scene: &Scene, extension: Extension) {
    let transfer_id = Uuid::new_v4();
    let (path, limits) = ("in".to_owned(), TransferLimits::default());
    let refused = match extension {
        Extension::Run => scene
            .channel
            .open_run(open_run(StdinMode::None))
            .await
            .unwrap_err(),
        _ => {
            let push = OpenPush {
                transfer_id,
                path,
                limits,
            };
            scene.channel.open_push(push).await.unwrap_err()
        }
    };
    assert!(
        matches!(&refused, Error::NotAnnounced { extension: it, .. } if *it == extension.name()),
        "{refused:?}"
    );
    assert_eq!(refused.code(), "SANDBOX_TOOL_REFUSED");
    let accepted = tokio::time::timeout(SHORT, scene.listener.accept()).await;
    assert!(accepted.is_err(), "the guest was asked");
    scene.assert_channel_goes_on().await;
}

#[tokio::test]
async fn an_older_guest_is_not_asked() {
    let mut hello = Hello::of_this_build();
    hello.extensions.retain(|name| name != "run/1");
    let scene = Scene::with(hello, |limits| limits).await;
    assert_not_announced(&scene, Extension::Run).await;
    assert!(scene.channel.announces(Extension::Files));

    let mut hello = Hello::of_this_build();
    hello.extensions.retain(|name| name != "files/1");
    let scene = Scene::with(hello, |limits| limits).await;
    assert_not_announced(&scene, Extension::Files).await;
}

#[tokio::test]
async fn a_channel_without_a_greeting_knows_no_extension() {
    let vm = Vm::new();
    let (channel, _guest) = connected(&vm.config()).await;
    let refused = channel.open_run(open_run(StdinMode::None)).await;
    assert!(matches!(refused, Err(Error::NotAnnounced { .. })));
}

#[tokio::test]
async fn the_name_of_a_run_is_taken_while_it_lasts() {
    let scene = Scene::new().await;
    let (run, _guest) = scene.run(StdinMode::None).await;
    let again = scene.channel.open_run(open_run(StdinMode::None)).await;
    assert!(matches!(again, Err(Error::DuplicateRequest { .. })));
    let on_the_channel = scene.channel.dispatch(echo("r1"), LIMIT).await;
    assert!(matches!(
        on_the_channel,
        Err(Error::DuplicateRequest { .. })
    ));
    drop(run.name);
    scene.run(StdinMode::None).await;
}

#[tokio::test]
async fn a_closed_channel_opens_nothing() {
    let scene = Scene::new().await;
    scene.channel.close();
    let refused = scene.channel.open_run(open_run(StdinMode::None)).await;
    assert!(matches!(
        refused,
        Err(Error::Closed {
            source: CloseCause::Us,
            ..
        })
    ));
}

#[tokio::test]
async fn transfers_carry_their_records_both_ways() {
    let scene = Scene::new().await;
    let (path, limits) = ("in".to_owned(), TransferLimits::default());
    let transfer_id = Uuid::new_v4();
    let end = TransferEnd {
        code: None,
        message: None,
        entries: 1,
        bytes: 2,
        sha256: [0; 32].into(),
    };
    let push = OpenPush {
        transfer_id,
        path: path.clone(),
        limits,
    };
    let large = vec![7; 256 << 10];
    let host = async {
        let mut stream = scene.channel.open_push(push.clone()).await.unwrap();
        for _ in 0..5 {
            let sent = stream.writer.send(RecordKind::Data, &large, LIMIT).await;
            sent.unwrap();
        }
        let sent = stream.writer.send(RecordKind::EndOfData, &[9; 32], LIMIT);
        sent.await.unwrap();
        stream.reader.next_within(LIMIT).await.unwrap()
    };
    let guest = async {
        let (mut guest, frame) = scene.accept().await;
        assert_eq!(frame, Frame::OpenPush(push.clone()));
        guest.send(&Frame::Opened(Opened {})).await;
        let mut expected = record(RecordKind::Data, &large).repeat(5);
        expected.extend(record(RecordKind::EndOfData, &[9; 32]));
        let mut found = vec![0; expected.len()];
        guest.stream.read_exact(&mut found).await.unwrap();
        assert!(found == expected, "the records differ");
        guest
            .send_bytes(&record(RecordKind::End, &end.encode()))
            .await;
        guest
    };
    let (last, _guest) = tokio::join!(host, guest);
    assert_eq!(last.kind, RecordKind::End);
    assert_eq!(TransferEnd::decode(&last.body), Ok(end));

    let pull = OpenPull {
        transfer_id,
        path,
        limits,
    };
    let guest = async {
        let (mut guest, frame) = scene.accept().await;
        assert_eq!(frame, Frame::OpenPull(pull.clone()));
        guest.send(&Frame::Opened(Opened {})).await;
        guest.send_bytes(&record(RecordKind::Data, b"tar")).await;
        // A record that only a run may have.
        guest.send_bytes(&record(RecordKind::Stdout, b"x")).await;
        guest
    };
    let (stream, _guest) = tokio::join!(scene.channel.open_pull(pull.clone()), guest);
    let mut stream = stream.unwrap();
    assert_eq!(&stream.reader.next().await.unwrap().body[..], b"tar");
    let kind = RecordKind::Stdout;
    let expected = Violation::RecordOutOfPlace { kind };
    let error = stream.reader.next().await.unwrap_err();
    assert!(
        matches!(&error, Error::Protocol { source, .. } if *source == expected),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_transfer_that_stands_still_is_given_up() {
    let scene = Scene::new().await;
    let push = OpenPush {
        transfer_id: Uuid::new_v4(),
        path: "/work".to_owned(),
        limits: TransferLimits::default(),
    };
    let accept = async {
        let (mut guest, _) = scene.accept().await;
        guest.send(&Frame::Opened(Opened {})).await;
        guest.send_bytes(&[6, 0, 0]).await;
        guest
    };
    let (stream, _guest) = tokio::join!(scene.channel.open_push(push), accept);
    let mut stream = stream.unwrap();
    let body = vec![0; 256 << 10];
    let stuck = async {
        loop {
            let sent = stream.writer.send(RecordKind::Data, &body, SHORT).await;
            if let Err(error) = sent {
                break error;
            }
        }
    };
    let (stuck, silent) = tokio::join!(stuck, stream.reader.next_within(SHORT));
    assert!(
        matches!(
            &stuck,
            Error::PartialFrameTimeout {
                direction: "to the guest",
                ..
            }
        ),
        "{stuck:?}"
    );
    assert!(
        matches!(
            &silent,
            Err(Error::PartialFrameTimeout {
                direction: "from the guest",
                done: 3,
                ..
            })
        ),
        "{silent:?}"
    );
}
