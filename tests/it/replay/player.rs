//! The scripted server ([`Player`]), and the client in front of it, when one of the two misbehaves.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chv_sandbox::api::{Operation, Request};
use chv_sandbox::client::{Client, DeadlineOutcome, Deadlines, ErrorKind};
use chv_sandbox::replay::{Cassette, Error, Fault, Player, PlayerOptions};
use serde_json::json;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

const PING: &str = r#"{"request":{"method":"GET","path":"/api/v1/vmm.ping"},
    "response":{"status":200,"body":{"version":"53.0.0","build_version":"v53.0.0","pid":1,"features":[]}}}"#;
const BOOT: &str =
    r#"{"request":{"method":"PUT","path":"/api/v1/vm.boot"},"response":{"status":204}}"#;
const CLOSED: &str = r#"{"request":{"method":"PUT","path":"/api/v1/vm.boot"},"closed":true}"#;

/// A limit that no answered call reaches.
const GENEROUS: Duration = Duration::from_secs(30);
/// A limit for calls that are not answered.
const SHORT: Duration = Duration::from_millis(200);

fn cassette(exchanges: &[&str]) -> Cassette {
    let exchanges = exchanges.join(",");
    format!(r#"{{"format":1,"release":"v53.0","exchanges":[{exchanges}]}}"#)
        .parse()
        .unwrap()
}

async fn play(
    exchanges: &[&str],
    with: impl FnOnce(PlayerOptions) -> PlayerOptions,
) -> (Player, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let options = with(PlayerOptions::new(folder.path().join("s")));
    let player = Player::start(cassette(exchanges), options).await.unwrap();
    (player, folder)
}

fn client(player: &Player, limit: Duration) -> Client {
    let deadlines = Deadlines {
        probe: limit,
        lifecycle: limit,
        ..Deadlines::default()
    };
    Client::new(player.socket())
        .unwrap()
        .with_deadlines(deadlines)
}

fn request(operation: Operation) -> Request<Option<serde_json::Value>> {
    Request::raw(operation, None)
}

#[tokio::test]
async fn an_unrecorded_call_is_refused_and_remembered() {
    let (player, _folder) = play(&[PING, BOOT], |options| options).await;
    let client = client(&player, GENEROUS);
    let error = client.send(request(Operation::VmBoot)).await.unwrap_err();
    assert_eq!(error.status(), Some(500));
    assert_eq!(error.messages()[0], "This was not recorded");
    // The remaining calls are answered as recorded, and the replay still fails at its end.
    client.send(request(Operation::VmmPing)).await.unwrap();
    client.send(request(Operation::VmBoot)).await.unwrap();
    let error = player.finish().await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "step 1 of 2: expected GET /api/v1/vmm.ping, got PUT /api/v1/vm.boot"
    );
}

#[tokio::test]
async fn steps_left_over_fail() {
    let (player, _folder) = play(&[PING, BOOT], |options| options).await;
    client(&player, GENEROUS)
        .send(request(Operation::VmmPing))
        .await
        .unwrap();
    let error = player.finish().await.unwrap_err();
    assert!(
        matches!(
            error,
            Error::Leftover {
                left: 1,
                total: 2,
                step: 2,
                ..
            }
        ),
        "{error}"
    );
}

#[tokio::test]
async fn a_torn_answer_is_read_whole() {
    let at: Vec<usize> = (1..200).collect();
    let pause = Duration::from_micros(100);
    let (player, _folder) = play(&[PING, BOOT], |options| {
        options.fault(1, Fault::Torn { at, pause })
    })
    .await;
    let client = client(&player, GENEROUS);
    let answer = client
        .send(request(Operation::VmmPing))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(answer["version"], json!("53.0.0"));
    client.send(request(Operation::VmBoot)).await.unwrap();
    player.finish().await.unwrap();
}

#[tokio::test]
async fn a_silent_answer_is_a_deadline() {
    let (player, _folder) = play(&[PING, BOOT, PING], |options| {
        options.fault(1, Fault::Silent).fault(2, Fault::Silent)
    })
    .await;
    let client = client(&player, SHORT);
    for (operation, outcome) in [
        (Operation::VmmPing, DeadlineOutcome::ReadOnly),
        (Operation::VmBoot, DeadlineOutcome::Unknown),
    ] {
        let error = client.send(request(operation)).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Deadline { outcome });
    }
    // The VMM answers again on a new connection.
    let client = client.with_deadlines(Deadlines::default());
    client.send(request(Operation::VmmPing)).await.unwrap();
    player.finish().await.unwrap();
}

#[tokio::test]
async fn a_late_answer_is_waited_for() {
    let (player, _folder) = play(&[BOOT], |options| options.fault(1, Fault::Late(SHORT))).await;
    client(&player, GENEROUS)
        .send(request(Operation::VmBoot))
        .await
        .unwrap();
    player.finish().await.unwrap();
}

#[tokio::test]
async fn an_answer_cut_anywhere_is_an_error() {
    for after in [0, 1, 12, 40, 120] {
        let (player, _folder) =
            play(&[PING], |options| options.fault(1, Fault::Close { after })).await;
        let error = client(&player, GENEROUS)
            .send(request(Operation::VmmPing))
            .await
            .unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::VmmGone, "after {after} bytes");
        player.finish().await.unwrap();
    }
}

#[tokio::test]
async fn bytes_that_are_no_answer_are_a_decode_error() {
    let (player, _folder) = play(&[PING], |options| {
        options.fault(1, Fault::Bytes(b"\0\x01garbage\r\n\r\n".to_vec()))
    })
    .await;
    let error = client(&player, GENEROUS)
        .send(request(Operation::VmmPing))
        .await
        .unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Decode);
    player.finish().await.unwrap();
}

#[tokio::test]
async fn a_vmm_that_ended_is_gone_for_good() {
    let (player, _folder) = play(&[PING, CLOSED], |options| options).await;
    let client = client(&player, GENEROUS);
    client.send(request(Operation::VmmPing)).await.unwrap();
    for kind in [ErrorKind::VmmGone, ErrorKind::NoListener] {
        let error = client.send(request(Operation::VmBoot)).await.unwrap_err();
        assert_eq!(*error.kind(), kind);
    }
    assert!(!player.socket().exists());
    player.finish().await.unwrap();
}

#[tokio::test]
async fn the_hook_is_done_before_the_answer_comes() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = seen.clone();
    let (player, _folder) = play(&[PING, BOOT], |options| {
        options.on_exchange(move |played| {
            let log = log.clone();
            async move {
                tokio::task::yield_now().await;
                log.lock()
                    .unwrap()
                    .push((played.step, played.path, played.status));
                Ok(())
            }
        })
    })
    .await;
    let client = client(&player, GENEROUS);
    client.send(request(Operation::VmmPing)).await.unwrap();
    assert_eq!(
        *seen.lock().unwrap(),
        [(1, "/api/v1/vmm.ping".to_owned(), Some(200))]
    );
    client.send(request(Operation::VmBoot)).await.unwrap();
    assert_eq!(
        seen.lock().unwrap()[1],
        (2, "/api/v1/vm.boot".to_owned(), Some(204))
    );
    player.finish().await.unwrap();
}

#[tokio::test]
async fn a_hook_that_fails_fails_the_replay() {
    let (player, _folder) = play(&[BOOT], |options| {
        options.on_exchange(|_| async { Err("no vsock socket".into()) })
    })
    .await;
    let error = client(&player, GENEROUS)
        .send(request(Operation::VmBoot))
        .await
        .unwrap_err();
    assert_eq!(error.status(), Some(500));
    let error = player.finish().await.unwrap_err();
    assert_eq!(error.to_string(), "the hook failed at step 1");
}

#[tokio::test]
async fn the_socket_goes_with_the_player() {
    let (player, folder) = play(&[PING], |options| options).await;
    let socket = folder.path().join("s");
    assert!(socket.exists());
    drop(player);
    assert!(!socket.exists());
    let error = Player::start(
        cassette(&[]),
        PlayerOptions::new(folder.path().join("a".repeat(108))),
    )
    .await
    .unwrap_err();
    assert!(matches!(error, Error::Listen { .. }), "{error}");
}

#[tokio::test]
async fn players_do_not_disturb_each_other() {
    let mut players = Vec::new();
    for _ in 0..20 {
        players.push(play(&[PING, BOOT], |options| options).await);
    }
    for operation in [Operation::VmmPing, Operation::VmBoot] {
        for (player, _) in &players {
            client(player, GENEROUS)
                .send(request(operation))
                .await
                .unwrap();
        }
    }
    for (player, _folder) in players {
        player.finish().await.unwrap();
    }
}

#[tokio::test]
async fn the_eleventh_connection_is_turned_away() {
    let (player, _folder) = play(&[], |options| options).await;
    let mut kept = Vec::new();
    for _ in 0..10 {
        kept.push(answered(player.socket()).await);
    }
    let mut answer = String::new();
    let mut stream = UnixStream::connect(player.socket()).await.unwrap();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
}

/// Opens a connection, and makes sure that it is served: a call on it was answered.
async fn answered(socket: &Path) -> UnixStream {
    let mut stream = UnixStream::connect(socket).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    stream.read_exact(&mut [0; 12]).await.unwrap();
    stream
}
