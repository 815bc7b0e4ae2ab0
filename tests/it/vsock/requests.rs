//! Requests and their answers on a channel: tools, queries, greetings, renewals, and the end of a channel.

use std::time::SystemTime;

use chv_sandbox::guest::protocol::{
    ErrorEvent, Extension, GuestProcess, GuestQuery, GuestResponse, Hello, Imprinted, MemUsage,
    OpenFdCount, ProcessList, QueryKind, QueryResult, Renewed,
};
use chv_sandbox::vsock::{CloseCause, Error};
use jiff::Timestamp;
use uuid::Uuid;

use super::*;

fn response(query: &GuestQuery, result: QueryResult) -> Frame {
    Frame::GuestResponse(GuestResponse {
        query_id: query.query_id,
        result,
        ts: Timestamp::UNIX_EPOCH,
    })
}

async fn read_query(guest: &mut Guest) -> GuestQuery {
    match guest.read().await {
        Frame::GuestQuery(query) => query,
        frame => panic!("{frame:?}"),
    }
}

#[tokio::test]
async fn a_tool_runs() {
    let vm = Vm::new();
    let (channel, mut guest) = connected(&vm.config()).await;
    let answer = async {
        assert_eq!(guest.read().await, Frame::ToolDispatch(echo("c1")));
        guest.send(&Frame::ToolResult(result("c1"))).await;
    };
    let (got, ()) = tokio::join!(channel.dispatch(echo("c1"), LIMIT), answer);
    assert_eq!(got.unwrap().result, result("c1"));
}

#[tokio::test]
async fn a_warm_tool_is_sent_to_a_guest_that_can_throw_its_writes_away() {
    let vm = Vm::new();
    let (channel, mut guest) = connected(&vm.config()).await;
    let refused = channel.warm(echo("c1"), LIMIT).await.unwrap_err();
    assert!(
        matches!(
            refused,
            Error::NotAnnounced {
                extension: "warm/1",
                ..
            }
        ),
        "{refused}"
    );
    let greet = async {
        assert!(
            matches!(guest.read().await, Frame::Hello(_)),
            "nothing was sent before"
        );
        let extensions = vec!["warm/1".to_owned()];
        let hello = Hello {
            extensions,
            ..Hello::of_this_build()
        };
        guest.send(&Frame::Hello(hello)).await;
    };
    let (hello, ()) = tokio::join!(channel.hello(LIMIT), greet);
    hello.unwrap();
    let answer = async {
        assert_eq!(guest.read().await, Frame::WarmDispatch(echo("c1")));
        guest.send(&Frame::ToolResult(result("c1"))).await;
    };
    let (got, ()) = tokio::join!(channel.warm(echo("c1"), LIMIT), answer);
    assert_eq!(got.unwrap().result, result("c1"));
    // A guest answers this frame, and may never send it.
    guest.send(&Frame::WarmDispatch(echo("c2"))).await;
    guest.closed().await;
    assert!(matches!(channel.closed(), Some(Error::Protocol { .. })));
}

#[tokio::test]
async fn every_query_has_its_answer() {
    let vm = Vm::new();
    let (channel, mut guest) = connected(&vm.config()).await;
    let usage = MemUsage {
        bytes_used: 1,
        bytes_total: 2,
    };
    let processes = vec![GuestProcess {
        name: "init".into(),
        pid: 1.try_into().unwrap(),
    }];
    let list = ProcessList {
        processes: processes.clone(),
    };
    let answer = async {
        for _ in 0..3 {
            let query = read_query(&mut guest).await;
            let result = match query.query_kind {
                QueryKind::OpenFdCount => {
                    QueryResult::OpenFdCount(OpenFdCount { open_fd_count: 9 })
                }
                QueryKind::MemUsage => QueryResult::MemUsage(usage),
                QueryKind::ProcessList => QueryResult::ProcessList(list.clone()),
            };
            guest.send(&response(&query, result)).await;
        }
    };
    let (fds, memory, list, ()) = tokio::join!(
        channel.open_fd_count(LIMIT),
        channel.mem_usage(LIMIT),
        channel.process_list(LIMIT),
        answer
    );
    assert_eq!(
        (fds.unwrap(), memory.unwrap(), list.unwrap()),
        (9, usage, processes)
    );
}

#[tokio::test]
async fn answers_may_come_in_any_order() {
    let vm = Vm::new();
    let (channel, mut guest) = connected(&vm.config()).await;
    let ids: Vec<String> = (0..40).map(|id| format!("c{id}")).collect();
    let answer = async {
        for _ in &ids {
            guest.read().await;
        }
        for id in ids.iter().rev() {
            guest.send(&Frame::ToolResult(result(id))).await;
        }
    };
    let ask =
        futures_util::future::join_all(ids.iter().map(|id| channel.dispatch(echo(id), LIMIT)));
    let (got, ()) = tokio::join!(ask, answer);
    for (got, id) in got.into_iter().zip(&ids) {
        assert_eq!(got.unwrap().result, result(id));
    }
}

#[tokio::test]
async fn an_id_in_flight_is_refused_and_sent_once() {
    let vm = Vm::new();
    let (channel, mut guest) = connected(&vm.config()).await;
    let query = GuestQuery {
        query_id: Uuid::new_v4(),
        query_kind: QueryKind::OpenFdCount,
        ts: Timestamp::UNIX_EPOCH,
    };
    let count = QueryResult::OpenFdCount(OpenFdCount { open_fd_count: 9 });
    let answer = async {
        guest.read().await;
        guest.read().await;
        guest.send(&Frame::ToolResult(result("c1"))).await;
        guest.send(&response(&query, count.clone())).await;
    };
    let (tool, again, reading, again_too, ()) = tokio::join!(
        channel.dispatch(echo("c1"), LIMIT),
        channel.dispatch(echo("c1"), LIMIT),
        channel.send_query(query.clone(), LIMIT),
        channel.send_query(query.clone(), LIMIT),
        answer
    );
    assert_eq!(tool.unwrap().result, result("c1"));
    assert_eq!(reading.unwrap(), count);
    assert_eq!(again.unwrap_err().code(), "SANDBOX_VSOCK_DUPLICATE_REQUEST");
    assert_eq!(again_too.unwrap_err().code(), "GUEST_QUERY_DUPLICATE");
}

#[tokio::test]
async fn a_result_that_is_late_is_an_event() {
    let vm = Vm::new();
    let (channel, mut guest) = connected(&vm.config()).await;
    let mut events = channel.events();
    let slow = ToolDispatch {
        deadline_ms: 20,
        ..echo("c1")
    };
    let error = channel.dispatch(slow.clone(), SHORT).await.unwrap_err();
    assert_eq!(error.code(), "SANDBOX_TOOL_TIMEOUT");
    assert!(
        matches!(&error, Error::ToolTimeout { command_id, waited, .. }
            if command_id == "c1" && *waited == SHORT + Duration::from_millis(20)),
        "{error:?}"
    );
    let again = channel.dispatch(slow, SHORT).await.unwrap_err();
    assert_eq!(
        again.code(),
        "SANDBOX_VSOCK_DUPLICATE_REQUEST",
        "the late answer could be taken for its"
    );

    guest.read().await;
    guest.send(&Frame::ToolResult(result("c1"))).await;
    match next(&mut events).await {
        ChannelEventKind::LateArrival(frame) => assert_eq!(*frame, Frame::ToolResult(result("c1"))),
        event => panic!("{event:?}"),
    }
    assert!(!channel.is_poisoned());
}

#[tokio::test]
async fn a_request_that_is_dropped_is_forgotten() {
    let vm = Vm::new();
    let (channel, mut guest) = connected(&vm.config()).await;
    let mut events = channel.events();
    {
        let dispatch = channel.dispatch(echo("c1"), LIMIT);
        tokio::select! {
            biased;
            _ = dispatch => panic!("there was no answer"),
            _ = guest.read() => {}
        }
    }
    guest.send(&Frame::ToolResult(result("c1"))).await;
    assert!(matches!(
        next(&mut events).await,
        ChannelEventKind::LateArrival(_)
    ));
}

#[tokio::test]
async fn a_silent_source_is_said() {
    let vm = Vm::new();
    let (channel, _guest) = connected(&vm.config()).await;
    let error = channel.open_fd_count(SHORT).await.unwrap_err();
    assert!(
        matches!(
            error,
            Error::NoAnswer {
                request: "OpenFdCount",
                ..
            }
        ),
        "{error:?}"
    );
    assert!(!channel.is_poisoned());
}

#[tokio::test]
async fn a_guest_says_what_it_can() {
    let vm = Vm::new();
    let (channel, mut guest) = connected(&vm.config()).await;
    let answer = async {
        assert_eq!(guest.read().await, Frame::Hello(Hello::of_this_build()));
        let hello = Hello {
            nonce: Some("n".into()),
            ..Hello::of_this_build()
        };
        guest.send(&Frame::Hello(hello)).await;
    };
    let (hello, ()) = tokio::join!(channel.hello(LIMIT), answer);
    let hello = hello.unwrap().unwrap();
    assert!(hello.supports(Extension::Nonce) && hello.is_same_build());
    assert_eq!(hello.nonce.as_deref(), Some("n"));
}

#[tokio::test]
async fn an_old_guest_is_not_broken_by_a_hello() {
    let vm = Vm::new();
    let (channel, mut guest) = connected(&vm.config()).await;
    let mut events = channel.events();
    let event = ErrorEvent {
        code: "UNKNOWN_FRAME".into(),
        message: "Hello?".into(),
    };
    let answer = async {
        guest.read().await;
        guest.send(&Frame::ErrorEvent(event.clone())).await;
        guest.read().await;
        guest.send(&Frame::ToolResult(result("c1"))).await;
    };
    let ask = async {
        assert_eq!(channel.hello(LIMIT).await.unwrap(), None);
        channel.dispatch(echo("c1"), LIMIT).await.unwrap();
    };
    tokio::join!(ask, answer);
    assert!(matches!(next(&mut events).await, ChannelEventKind::GuestError(got) if got == event));
}

#[tokio::test]
async fn a_restored_guest_is_renewed() {
    let vm = Vm::new();
    let (channel, mut guest) = connected(&vm.config()).await;
    let now = SystemTime::UNIX_EPOCH + Duration::new(1_767_323_045, 6);
    let answer = async {
        let Frame::Imprint(imprint) = guest.read().await else {
            panic!("no imprint")
        };
        assert_eq!(imprint.nonce, "n");
        guest
            .send(&Frame::Imprinted(Imprinted {
                request_id: imprint.request_id,
            }))
            .await;
        let Frame::Renew(renew) = guest.read().await else {
            panic!("no renew")
        };
        assert_eq!(
            (renew.seed.0, renew.unix_nanos),
            ([7; 32], 1_767_323_045_000_000_006)
        );
        let renewed = Renewed {
            request_id: renew.request_id,
            nonce: Some("n".into()),
            reseeded: true,
            clock_set: false,
            clock_offset_ms: -5,
            unix_nanos: None,
        };
        guest.send(&Frame::Renewed(renewed)).await;
    };
    let ask = async {
        channel.imprint("n", LIMIT).await.unwrap();
        channel.renew(&[7; 32], now, LIMIT).await.unwrap()
    };
    let (renewed, ()) = tokio::join!(ask, answer);
    assert_eq!(
        (renewed.nonce.as_deref(), renewed.clock_offset_ms),
        (Some("n"), -5)
    );
}

#[tokio::test]
async fn a_request_that_is_too_large_is_not_sent() {
    let vm = Vm::new();
    let (channel, mut guest) = connected(&vm.config()).await;
    let large = ToolDispatch {
        params: json!("x".repeat(16 << 20)),
        ..echo("c1")
    };
    let error = channel.dispatch(large, LIMIT).await.unwrap_err();
    assert!(matches!(error, Error::RequestTooLarge { .. }), "{error:?}");
    assert_eq!(error.code(), "SANDBOX_VSOCK_FRAME_TOO_LARGE");
    let answer = async {
        assert_eq!(guest.read().await, Frame::ToolDispatch(echo("c1")));
        guest.send(&Frame::ToolResult(result("c1"))).await;
    };
    let (got, ()) = tokio::join!(channel.dispatch(echo("c1"), LIMIT), answer);
    got.unwrap();
}

#[tokio::test]
async fn large_frames_cross_both_ways() {
    let vm = Vm::new();
    let (channel, mut guest) = connected(&vm.config()).await;
    let large = ToolDispatch {
        params: json!("x".repeat(8 << 20)),
        ..echo("c1")
    };
    let stdout = "y".repeat(8 << 20);
    let answer = async {
        assert_eq!(guest.read().await, Frame::ToolDispatch(large.clone()));
        guest
            .send(&Frame::ToolResult(ToolResult {
                stdout: stdout.clone(),
                ..result("c1")
            }))
            .await;
    };
    let (got, ()) = tokio::join!(channel.dispatch(large.clone(), LIMIT), answer);
    assert!(got.unwrap().result.stdout == stdout);
}

#[tokio::test]
async fn closing_ends_every_clone_and_request() {
    let vm = Vm::new();
    let (channel, mut guest) = connected(&vm.config()).await;
    let mut events = channel.events();
    let clone = channel.clone();
    let close = async {
        guest.read().await;
        clone.close();
        clone.close();
        guest.closed().await;
    };
    let (got, ()) = tokio::join!(channel.dispatch(echo("c1"), LIMIT), close);
    let by_us = |error: &Error| {
        matches!(
            error,
            Error::Closed {
                source: CloseCause::Us,
                ..
            }
        )
    };
    assert!(by_us(&got.unwrap_err()));
    assert!(
        by_us(&channel.open_fd_count(LIMIT).await.unwrap_err()),
        "later requests too"
    );
    assert!(by_us(&channel.closed().unwrap()) && channel.is_poisoned());
    assert!(matches!(next(&mut events).await, ChannelEventKind::Closed(reason) if by_us(&reason)));
    drop((channel, clone));
    assert!(events.recv().await.is_err(), "the reason is said once");
}

#[tokio::test]
async fn the_last_clone_closes_the_channel() {
    let vm = Vm::new();
    let (channel, mut guest) = connected(&vm.config()).await;
    let mut events = channel.events();
    let clone = channel.clone();
    drop(channel);
    assert!(!clone.is_poisoned());
    drop(clone);
    guest.closed().await;
    assert!(matches!(
        next(&mut events).await,
        ChannelEventKind::Closed(_)
    ));
}
