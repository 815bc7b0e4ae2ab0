//! The frames of the channel, apart from those of tools: queries, greetings, renewals, and frames that end it.

use chv_sandbox::guest::BUILD_ID;
use chv_sandbox::guest::dispatcher::{Confinement, Dispatcher, LinuxSystem, ServeError, Toolbox};
use chv_sandbox::guest::protocol::{
    ErrorEvent, Extension, Frame, GuestQuery, Hello, Imprint, Imprinted, QueryKind, QueryResult,
    Renew, Renewed, Seed,
};
use jiff::Timestamp;
use serde_json::json;
use uuid::Uuid;

use super::host::{FakeSystem, Host, LIMIT};

pub(super) fn query(kind: QueryKind) -> GuestQuery {
    GuestQuery {
        query_id: Uuid::new_v4(),
        query_kind: kind,
        ts: Timestamp::now(),
    }
}

fn hello() -> Frame {
    Frame::Hello(Hello::of_this_build())
}

/// The nonce in the guest's hello.
fn nonce(host: &Host) -> Option<String> {
    match host.ask(&hello()) {
        Frame::Hello(hello) => {
            assert_eq!(hello.build_id, BUILD_ID);
            assert!(
                Extension::ALL
                    .iter()
                    .all(|extension| hello.supports(*extension))
            );
            hello.nonce
        }
        other => panic!("{other:?} is no hello"),
    }
}

fn error_code(frame: Frame) -> String {
    match frame {
        Frame::ErrorEvent(ErrorEvent { code, .. }) => code,
        other => panic!("{other:?} is no error"),
    }
}

#[test]
fn queries_are_answered() {
    let host = Host::new();
    for (kind, expected) in [
        (QueryKind::OpenFdCount, json!({"open_fd_count": 7})),
        (
            QueryKind::MemUsage,
            json!({"bytes_used": 1, "bytes_total": 2}),
        ),
        (
            QueryKind::ProcessList,
            json!({"processes": [{"name": "init", "pid": 1}]}),
        ),
    ] {
        let query = query(kind);
        match host.ask(&Frame::GuestQuery(query.clone())) {
            Frame::GuestResponse(response) => {
                assert_eq!(response.query_id, query.query_id);
                let response = serde_json::to_value(response).unwrap();
                assert_eq!(response["result"], expected);
            }
            other => panic!("{other:?} is no response"),
        }
    }
    host.close().unwrap();
}

#[test]
fn a_reading_that_fails_is_an_error_event_and_no_answer() {
    let system = FakeSystem {
        fails: true,
        ..FakeSystem::default()
    };
    let host = Host::with(Toolbox::built_in(), &Confinement::in_process(), system);
    for kind in [
        QueryKind::OpenFdCount,
        QueryKind::MemUsage,
        QueryKind::ProcessList,
    ] {
        let answer = host.ask(&Frame::GuestQuery(query(kind)));
        assert_eq!(error_code(answer), "GUEST_QUERY_FAILED");
    }
    host.close().unwrap();
}

#[test]
fn the_real_system_gives_readings() {
    let confinement = Confinement::in_process();
    let host = Host::with(Toolbox::built_in(), &confinement, LinuxSystem::new());
    let read = |kind| match host.ask(&Frame::GuestQuery(query(kind))) {
        Frame::GuestResponse(response) => response.result,
        other => panic!("{other:?} is no response"),
    };
    let memory = read(QueryKind::MemUsage);
    assert!(
        matches!(&memory, QueryResult::MemUsage(usage) if usage.bytes_used > 0),
        "{memory:?}"
    );
    let list = read(QueryKind::ProcessList);
    assert!(
        matches!(&list, QueryResult::ProcessList(list) if !list.processes.is_empty()),
        "{list:?}"
    );
    // A process that may not look at every process returns no count, because a count that leaves some out would be
    // wrong.
    match host.ask(&Frame::GuestQuery(query(QueryKind::OpenFdCount))) {
        Frame::GuestResponse(response) => assert!(
            matches!(response.result, QueryResult::OpenFdCount(count) if count.open_fd_count >= 3)
        ),
        refused => assert_eq!(error_code(refused), "GUEST_QUERY_FAILED"),
    }
}

#[test]
fn a_nonce_stays_over_connections_and_not_over_a_restart() {
    let dispatcher = || {
        let confinement = Confinement::in_process();
        Dispatcher::new(Toolbox::built_in(), &confinement, FakeSystem::default()).unwrap()
    };
    let first = dispatcher();
    let host = Host::connect(first.clone());
    assert_eq!(nonce(&host), None);
    let request_id = Uuid::new_v4();
    let imprint = |nonce: &str| {
        Frame::Imprint(Imprint {
            request_id,
            nonce: nonce.to_owned(),
        })
    };
    let imprinted = Frame::Imprinted(Imprinted { request_id });
    assert_eq!(host.ask(&imprint("n1")), imprinted);
    let refused = host.ask(&imprint(&"n".repeat(257)));
    assert_eq!(error_code(refused), "SANDBOX_VSOCK_PROTOCOL_ERROR");
    host.close().unwrap();

    let host = Host::connect(first);
    assert_eq!(nonce(&host).as_deref(), Some("n1"));
    assert_eq!(nonce(&Host::connect(dispatcher())), None);
}

#[test]
fn renewal_reseeds_and_sets_the_clock() {
    let renew = Renew {
        request_id: Uuid::new_v4(),
        seed: Seed([9; 32]),
        unix_nanos: 7_250_000_001,
    };
    let renewed = |nonce: Option<&str>, done: bool| Renewed {
        request_id: renew.request_id,
        nonce: nonce.map(str::to_owned),
        reseeded: done,
        clock_set: done,
        clock_offset_ms: 2_250,
        // The stand-in records this time and sets no clock.
        unix_nanos: Some(5_000_000_000),
    };
    let system = FakeSystem::default();
    let changes = system.changes.clone();
    let host = Host::with(Toolbox::built_in(), &Confinement::in_process(), system);
    let answer = host.ask(&Frame::Renew(renew.clone()));
    assert_eq!(answer, Frame::Renewed(renewed(None, true)));
    assert_eq!(
        *changes.lock().unwrap(),
        ["set clock 7250000001", "reseed 9"]
    );

    let system = FakeSystem {
        fails: true,
        ..FakeSystem::default()
    };
    let host = Host::with(Toolbox::built_in(), &Confinement::in_process(), system);
    let imprint = Imprint {
        request_id: Uuid::new_v4(),
        nonce: "n".to_owned(),
    };
    host.ask(&Frame::Imprint(imprint));
    let answer = host.ask(&Frame::Renew(renew.clone()));
    assert_eq!(answer, Frame::Renewed(renewed(Some("n"), false)));
}

#[test]
fn a_malformed_frame_is_told_and_ends_the_connection() {
    #[track_caller]
    fn check(bytes: &[u8], expected: &str) {
        let host = Host::new();
        host.send_bytes(bytes);
        assert_eq!(error_code(host.receive()), expected);
        assert!(matches!(host.closed(), ServeError::Frame(_)));
    }
    let framed = |body: &str| {
        let mut bytes = (body.len() as u32).to_be_bytes().to_vec();
        bytes.extend(body.as_bytes());
        bytes
    };
    check(&[0; 4], "SANDBOX_FRAME_MALFORMED");
    check(&[0xff; 4], "SANDBOX_VSOCK_FRAME_TOO_LARGE");
    check(&framed("{"), "SANDBOX_FRAME_MALFORMED");
    check(&framed("null"), "SANDBOX_FRAME_MALFORMED");
    check(
        &framed(r#"{"type":"ToolDispatch"}"#),
        "SANDBOX_FRAME_MALFORMED",
    );
}

#[test]
fn a_frame_that_only_a_guest_sends_ends_the_connection() {
    let host = Host::new();
    let answer = host.ask(&Frame::Imprinted(Imprinted {
        request_id: Uuid::new_v4(),
    }));
    assert_eq!(error_code(answer), "SANDBOX_VSOCK_PROTOCOL_ERROR");
    assert!(matches!(
        host.closed(),
        ServeError::Unexpected { name: "Imprinted" }
    ));
}

#[test]
fn a_frame_of_a_newer_host_is_told_and_passed_over() {
    let host = Host::new();
    let body = br#"{"type":"Telepathy","of":[1]}"#;
    host.send_bytes(&(body.len() as u32).to_be_bytes());
    host.send_bytes(body);
    assert_eq!(error_code(host.receive()), "SANDBOX_VSOCK_PROTOCOL_ERROR");
    assert_eq!(nonce(&host), None);
    host.close().unwrap();
}

#[test]
fn a_torn_frame_ends_the_connection() {
    let host = Host::new();
    host.send_bytes(&[0, 0, 0, 9, b'{']);
    assert!(matches!(host.close(), Err(ServeError::Frame(_))));
}

#[test]
fn answers_come_in_the_order_in_which_they_are_ready() {
    let directory = tempfile::tempdir().unwrap();
    let flag = directory.path().join("flag");
    let wait = json!({"script": format!("until [ -e '{}' ]; do sleep 0.05; done", flag.display())});
    let host = Host::new();
    host.dispatch("slow", "sh", wait.clone(), LIMIT);
    host.dispatch("slow", "echo", json!({"message": "duplicate"}), LIMIT);
    assert_eq!(
        error_code(host.receive()),
        "SANDBOX_VSOCK_DUPLICATE_REQUEST"
    );

    let answer = host.ask(&Frame::GuestQuery(query(QueryKind::OpenFdCount)));
    assert!(matches!(answer, Frame::GuestResponse(_)));
    host.dispatch("quick", "echo", json!({"message": "hi"}), LIMIT);
    assert_eq!(host.result().command_id, "quick");

    for number in 1..32 {
        host.dispatch(&number.to_string(), "sh", wait.clone(), LIMIT);
    }
    host.dispatch("one too many", "whoami", json!({}), LIMIT);
    let refused = host.result();
    assert_eq!(
        (refused.command_id.as_str(), refused.exit_code),
        ("one too many", 254)
    );

    std::fs::write(&flag, "").unwrap();
    let mut ended: Vec<_> = (0..32).map(|_| host.result()).collect();
    assert!(
        ended.iter().all(|result| result.exit_code == 0),
        "{ended:?}"
    );
    ended.sort_by(|a, b| a.command_id.cmp(&b.command_id));
    ended.dedup_by(|a, b| a.command_id == b.command_id);
    assert_eq!(ended.len(), 32);
    assert_eq!(host.run("whoami", json!({})).exit_code, 0);
    host.close().unwrap();
}

#[test]
fn a_command_id_is_bounded() {
    let host = Host::new();
    host.dispatch(&"c".repeat(257), "whoami", json!({}), LIMIT);
    assert_eq!(error_code(host.receive()), "SANDBOX_VSOCK_PROTOCOL_ERROR");
    host.dispatch(&"c".repeat(256), "whoami", json!({}), LIMIT);
    assert_eq!(host.result().exit_code, 0);
}
