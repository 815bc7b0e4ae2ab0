//! Runs whose guest breaks the protocol: each is an error of that run's connection alone.

use chv_sandbox::guest::record::RecordError;
use chv_sandbox::vsock::{CloseCause, Error, EvidenceError, OutputStream, RunRecord, Violation};

use super::*;

/// The error of a run whose guest sends these bytes and closes.
async fn sends(bytes: &[u8]) -> Error {
    let scene = Scene::new().await;
    let (mut run, mut guest) = scene.run(StdinMode::None).await;
    guest.guest.send_bytes(bytes).await;
    drop(guest);
    let error = fails(&mut run).await;
    scene.assert_channel_goes_on().await;
    error
}

/// Reads until the run fails, and returns the error.
async fn fails(run: &mut RunStream) -> Error {
    loop {
        match run.output.next().await {
            Ok(RunRecord::Output { .. }) => {}
            Ok(RunRecord::End(end)) => panic!("{end:?}"),
            Err(error) => return error,
        }
    }
}

/// The error of a run that wrote `out` and `err`, and whose guest ends it with an honest end after `change`.
async fn ends(change: impl FnOnce(&mut RunEnd)) -> Error {
    let scene = Scene::new().await;
    let (mut run, mut guest) = scene.run(StdinMode::None).await;
    guest.stdout(b"out").await;
    guest.output(RecordKind::Stderr, b"error").await;
    let mut end = guest.end();
    change(&mut end);
    guest.send_end(&end).await;
    let error = fails(&mut run).await;
    scene.assert_channel_goes_on().await;
    error
}

#[track_caller]
fn assert_violation(error: &Error, expected: &Violation) {
    assert!(
        matches!(error, Error::Protocol { source, .. } if source == expected),
        "{error:?}"
    );
    assert_eq!(error.code(), "SANDBOX_VSOCK_PROTOCOL_ERROR");
}

#[tokio::test]
async fn a_record_of_four_gib_is_refused_at_its_header() {
    let scene = Scene::new().await;
    let (mut run, mut guest) = scene.run(StdinMode::None).await;
    guest.guest.send_bytes(b"\x03\xff\xff\xff\xff").await;
    // The connection is still open; the header alone must be enough.
    let error = fails(&mut run).await;
    assert!(
        matches!(
            error,
            Error::FrameTooLarge {
                frame: Some("Stdout"),
                length: 0xffff_ffff,
                limit: 0x4_0000,
                ..
            }
        ),
        "{error:?}"
    );
    assert_eq!(error.code(), "SANDBOX_VSOCK_FRAME_TOO_LARGE");
    drop(guest);
}

#[tokio::test]
async fn lengths_that_a_kind_cannot_have_are_refused() {
    let too_large = sends(b"\x06\0\x01\0\x01").await;
    assert!(
        matches!(
            too_large,
            Error::FrameTooLarge {
                frame: Some("End"),
                length: 0x1_0001,
                ..
            }
        ),
        "{too_large:?}"
    );
    let empty = sends(b"\x03\0\0\0\0").await;
    let expected = RecordError::Length {
        kind: RecordKind::Stdout,
        length: 0,
    };
    assert!(
        matches!(&empty, Error::RecordMalformed { source, .. } if *source == expected),
        "{empty:?}"
    );
    assert_eq!(empty.code(), "SANDBOX_FRAME_MALFORMED");
}

#[tokio::test]
async fn kinds_that_are_not_known_or_go_the_other_way_are_refused() {
    for kind in [0, 9, 0x7b] {
        let error = sends(&[kind, 0, 0, 0, 1, b'x']).await;
        let expected = RecordError::Kind { kind };
        assert!(
            matches!(&error, Error::RecordMalformed { source, .. } if *source == expected),
            "{error:?}"
        );
    }
    let elsewhere = [
        (RecordKind::Stdin, &b"x"[..]),
        (RecordKind::EndOfStdin, b""),
        (RecordKind::Signal, b"\"kill\""),
        (RecordKind::Data, b"x"),
        (RecordKind::EndOfData, &[0; 32]),
    ];
    for (kind, body) in elsewhere {
        let error = sends(&record(kind, body)).await;
        assert_violation(&error, &Violation::RecordOutOfPlace { kind });
    }
}

#[tokio::test]
async fn a_connection_that_ends_before_the_run_does_is_an_error() {
    let silent = sends(b"").await;
    assert!(
        matches!(
            &silent,
            Error::Closed {
                source: CloseCause::Peer,
                ..
            }
        ),
        "{silent:?}"
    );
    let after = sends(&record(RecordKind::Stdout, b"out")).await;
    assert!(
        matches!(
            &after,
            Error::Closed {
                source: CloseCause::Peer,
                ..
            }
        ),
        "{after:?}"
    );
    let whole = record(RecordKind::Stdout, b"out");
    for received in [1, 5, whole.len() - 1] {
        let error = sends(&whole[..received]).await;
        assert!(
            matches!(
                &error,
                Error::Closed { source: CloseCause::PeerInsideFrame { received: it }, .. }
                    if *it == received
            ),
            "{error:?}"
        );
        assert_eq!(error.code(), "SANDBOX_VSOCK_CLOSED");
    }
}

#[tokio::test]
async fn an_end_that_is_not_an_end_is_refused() {
    for body in [&b"{}"[..], b"null", b"{{", b"\xff"] {
        let error = sends(&record(RecordKind::End, body)).await;
        assert_eq!(error.code(), "SANDBOX_FRAME_MALFORMED", "{error:?}");
    }
}

#[tokio::test]
async fn nothing_may_follow_the_end() {
    let scene = Scene::new().await;
    for follows in [record(RecordKind::Stdout, b"more"), vec![0]] {
        let (mut run, mut guest) = scene.run(StdinMode::None).await;
        let mut bytes = record(RecordKind::End, &guest.end().encode());
        bytes.extend(follows);
        guest.guest.send_bytes(&bytes).await;
        assert_violation(&fails(&mut run).await, &Violation::AfterEnd);
    }
    scene.assert_channel_goes_on().await;
}

#[tokio::test]
async fn totals_that_are_not_those_that_came_are_refused() {
    let total = |stream, said, came| Violation::Total { stream, said, came };
    let (stdout, stderr) = (OutputStream::Stdout, OutputStream::Stderr);
    let error = ends(|end| end.stdout_total = 4).await;
    assert_violation(&error, &total(stdout, 4, 3));
    let error = ends(|end| end.stderr_total = 0).await;
    assert_violation(&error, &total(stderr, 0, 5));
    let error = ends(|end| (end.cut, end.stderr_total) = (true, 4)).await;
    assert_violation(&error, &total(stderr, 4, 5));
    let error = ends(|end| end.cut = true).await;
    assert_violation(&error, &Violation::NothingCut);
}

#[track_caller]
fn assert_evidence(error: &Error, expected: impl Fn(&EvidenceError) -> bool) {
    assert!(
        matches!(error, Error::Evidence { source, .. } if expected(source)),
        "{error:?}"
    );
    assert_eq!(error.code(), "SANDBOX_TOOL_ERROR");
}

#[tokio::test]
async fn links_that_are_not_those_of_the_records_are_refused() {
    let wrong = format!("sha256:{}", "5".repeat(64));
    let error = ends(|end| end.to_host_hash.clone_from(&wrong)).await;
    assert_evidence(&error, |source| {
        matches!(
            source,
            EvidenceError::WrongLink { claimed: Some(claimed), .. } if *claimed == wrong
        )
    });
    let error = ends(|end| end.to_guest_hash.clone_from(&wrong)).await;
    assert_evidence(&error, |source| {
        matches!(
            source,
            EvidenceError::WrongInputLink { claimed, .. } if *claimed == wrong
        )
    });
    let error = ends(|end| std::mem::swap(&mut end.to_guest_hash, &mut end.to_host_hash)).await;
    assert_eq!(error.code(), "SANDBOX_TOOL_ERROR");
}

#[tokio::test]
async fn more_records_than_were_sent_cannot_be_taken() {
    for taken in [1, u64::MAX] {
        let error = ends(|end| end.records_taken = taken).await;
        let expected = EvidenceError::TakenElsewhere {
            taken,
            oldest: 0,
            sent: 0,
        };
        assert_evidence(&error, |source| *source == expected);
    }
}

#[tokio::test]
async fn a_record_that_another_than_the_guest_changed_on_its_way_is_found() {
    let scene = Scene::new().await;
    let (mut run, mut guest) = scene.run(StdinMode::None).await;
    guest.to_host.append(RecordKind::Stdout, b"honest");
    guest.totals[0] = 6;
    let changed = record(RecordKind::Stdout, b"honesT");
    guest.guest.send_bytes(&changed).await;
    let end = guest.end();
    guest.send_end(&end).await;
    let error = fails(&mut run).await;
    assert_evidence(&error, |source| {
        matches!(source, EvidenceError::WrongLink { .. })
    });
}
