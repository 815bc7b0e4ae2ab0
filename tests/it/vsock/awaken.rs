//! The three requests that a restored guest gets in one round trip.

use std::time::SystemTime;

use chv_sandbox::guest::protocol::{
    ErrorEvent, Extension, Frame, GuestQuery, GuestResponse, Hello, OpenFdCount, QueryResult,
    Renew, Renewed,
};
use chv_sandbox::vsock::Error;

use super::*;

/// Reads the three requests, all of which come before any answer.
async fn requests(guest: &mut Guest) -> (Renew, GuestQuery) {
    assert_eq!(guest.read().await, Frame::Hello(Hello::of_this_build()));
    let Frame::Renew(renew) = guest.read().await else {
        panic!("no renewal")
    };
    let Frame::GuestQuery(query) = guest.read().await else {
        panic!("no query")
    };
    (renew, query)
}

fn counted(query: &GuestQuery) -> Frame {
    Frame::GuestResponse(GuestResponse {
        query_id: query.query_id,
        result: QueryResult::OpenFdCount(OpenFdCount { open_fd_count: 7 }),
        ts: query.ts,
    })
}

fn renewed(renew: &Renew) -> Renewed {
    Renewed {
        request_id: renew.request_id,
        nonce: None,
        reseeded: true,
        clock_set: true,
        clock_offset_ms: 0,
        unix_nanos: Some(renew.unix_nanos),
    }
}

fn unknown() -> Frame {
    Frame::ErrorEvent(ErrorEvent {
        code: "UNKNOWN_FRAME".into(),
        message: "?".into(),
    })
}

#[tokio::test]
async fn a_restored_guest_is_asked_everything_at_once() {
    let vm = Vm::new();
    let (channel, mut guest) = connected(&vm.config()).await;
    let before = SystemTime::now();
    let answer = async {
        let (renew, query) = requests(&mut guest).await;
        assert_eq!(renew.seed.0, [7; 32]);
        let told = SystemTime::UNIX_EPOCH + Duration::from_nanos(renew.unix_nanos);
        assert!(before <= told && told <= SystemTime::now());
        guest.send(&Frame::Hello(Hello::of_this_build())).await;
        guest.send(&Frame::Renewed(renewed(&renew))).await;
        guest.send(&counted(&query)).await;
    };
    let (awakened, ()) = tokio::join!(channel.query_after_restore(&[7; 32], LIMIT), answer);
    let awakened = awakened.unwrap();
    assert!(awakened.hello.unwrap().is_same_build());
    assert!(awakened.renewed.unwrap().reseeded);
    assert_eq!(awakened.open_fd_count, 7);
    let skew = awakened.clock.unwrap();
    assert!(skew.at_least().is_zero() && skew.at_most() <= awakened.round_trip);
}

#[tokio::test]
async fn a_clock_that_was_not_set_is_found() {
    let vm = Vm::new();
    let (channel, mut guest) = connected(&vm.config()).await;
    let hour = Duration::from_secs(3600);
    let answer = async {
        let (renew, query) = requests(&mut guest).await;
        guest.send(&Frame::Hello(Hello::of_this_build())).await;
        let behind = renew.unix_nanos - hour.as_nanos() as u64;
        let renewed = Renewed {
            unix_nanos: Some(behind),
            ..renewed(&renew)
        };
        guest.send(&Frame::Renewed(renewed)).await;
        guest.send(&counted(&query)).await;
    };
    let (awakened, ()) = tokio::join!(channel.query_after_restore(&[7; 32], LIMIT), answer);
    let skew = awakened.unwrap().clock.unwrap();
    assert!(skew.at_least() >= hour && skew.most < 0, "{skew:?}");
}

#[tokio::test]
async fn an_older_guest_is_asked_the_same_and_not_broken_by_it() {
    for knows_hello in [false, true] {
        let vm = Vm::new();
        let (channel, mut guest) = connected(&vm.config()).await;
        let answer = async {
            let (_, query) = requests(&mut guest).await;
            let hello = Hello {
                extensions: vec![Extension::Nonce.name().to_owned()],
                ..Hello::of_this_build()
            };
            match knows_hello {
                true => guest.send(&Frame::Hello(hello)).await,
                false => guest.send(&unknown()).await,
            }
            guest.send(&unknown()).await;
            guest.send(&counted(&query)).await;
            guest.read().await;
            guest.send(&Frame::ToolResult(result("c1"))).await;
        };
        let ask = async {
            let awakened = channel.query_after_restore(&[7; 32], LIMIT).await.unwrap();
            channel.dispatch(echo("c1"), LIMIT).await.unwrap();
            awakened
        };
        let (awakened, ()) = tokio::join!(ask, answer);
        assert_eq!(awakened.hello.is_some(), knows_hello);
        assert_eq!(awakened.renewed, None);
        assert_eq!(awakened.clock, None);
        assert_eq!(awakened.open_fd_count, 7);
    }
}

#[tokio::test]
async fn a_request_without_an_answer_is_named() {
    for (answers, expected) in [(0, "Hello"), (1, "Renew"), (2, "OpenFdCount")] {
        let vm = Vm::new();
        let (channel, mut guest) = connected(&vm.config()).await;
        let answer = async {
            let (renew, _) = requests(&mut guest).await;
            let frames = [
                Frame::Hello(Hello::of_this_build()),
                Frame::Renewed(renewed(&renew)),
            ];
            for frame in &frames[..answers] {
                guest.send(frame).await;
            }
        };
        let (awakened, ()) = tokio::join!(channel.query_after_restore(&[7; 32], SHORT), answer);
        let error = awakened.unwrap_err();
        assert!(
            matches!(error, Error::NoAnswer { request, waited, .. } if request == expected && waited == SHORT),
            "{error:?}"
        );
        assert!(error.is_silence() && !channel.is_poisoned());
    }
}
