//! The recorder, in front of a player that stands for the VMM: the recording must be the same as the cassette that was
//! played.

mod descriptors;
mod interim;

use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use chv_sandbox::api::{Operation, Request};
use chv_sandbox::client::{Client, ErrorKind};
use chv_sandbox::replay::{Cassette, Error, Player, PlayerOptions, Recorder, RecorderOptions};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::client::server::{Server, accept, answer, ping};

/// A limit that is reached only when a test fails.
const LIMIT: Duration = Duration::from_secs(30);

/// The call that the recorder makes for itself at its start, and does not record.
const PING: &str = r#"{"request":{"method":"GET","path":"/api/v1/vmm.ping"},
    "response":{"status":200,"body":{"build_version":"v53.0.0","version":"53.0.0","features":[],"pid":4711}}}"#;

/// A session with every form of body, as the VMM sees it.
const PLAYED: &str = r#"
    {"request":{"method":"GET","path":"/api/v1/vmm.ping"},
     "response":{"status":200,"body":{"build_version":"v53.0.0","version":"53.0.0","features":[],"pid":4711}}},
    {"request":{"method":"PUT","path":"/api/v1/vm.snapshot","body":{"destination_url":"file:///tmp/run-7/s"}},
     "response":{"status":500,"body":["Error","/tmp/run-7/s exists","/tmp/run-7-more"]}},
    {"request":{"method":"PUT","path":"/api/v1/vm.create","raw":"{ /tmp/run-7"},
     "response":{"status":400,"headers":["Server: Firecracker API","Connection: keep-alive"],"text":"{ \"a\nb\" }"}},
    {"request":{"method":"PUT","path":"/api/v1/vm.create","length":60000},"response":{"status":400}},
    {"request":{"method":"PUT","path":"/api/v1/vm.boot"},"response":{"status":204}},
    {"request":{"method":"PUT","path":"/api/v1/vm.delete"},"closed":true}"#;

fn cassette(exchanges: &str) -> Cassette {
    // A newline in the texts above is part of a JSON string, where it must be escaped.
    format!(r#"{{"format":1,"release":"v53.0","notes":"a note","exchanges":[{exchanges}]}}"#)
        .replace("a\nb", "a\\nb")
        .parse()
        .unwrap()
}

async fn vmm(folder: &Path, exchanges: &str) -> Player {
    Player::start(cassette(exchanges), PlayerOptions::new(folder.join("vmm")))
        .await
        .unwrap()
}

fn options(folder: &Path) -> RecorderOptions {
    RecorderOptions::new(folder.join("vmm"), folder.join("s")).notes("a note")
}

/// A recorder in front of a server that the test scripts.
struct Scene {
    server: Server,
    recorder: Recorder,
    /// A connection to the recorder.
    client: UnixStream,
    _folder: TempDir,
}

impl Scene {
    /// A recorder in front of a server that answers the recorder's ping and then runs `script`.
    async fn with(script: impl FnOnce(&UnixListener) + Send + 'static) -> Scene {
        let folder = tempfile::tempdir().unwrap();
        let server = Server::run(|listener| {
            let mut asked = accept(listener);
            answer(&mut asked, &ping("53.0.0"));
            // The recorder keeps this connection open to notice the end of the VMM.
            let _lifeline = accept(listener);
            script(listener);
        });
        let options = RecorderOptions::new(server.socket(), folder.path().join("s"));
        let recorder = Recorder::start(options.notes("a note")).await.unwrap();
        let client = UnixStream::connect(recorder.socket()).await.unwrap();
        Scene {
            server,
            recorder,
            client,
            _folder: folder,
        }
    }

    /// A recorder in front of a server that answers nothing more, and ends when the sender is dropped.
    async fn idle() -> (Scene, mpsc::Sender<()>) {
        let (alive, ended) = mpsc::channel();
        let scene = Scene::with(move |_| assert!(ended.recv().is_err())).await;
        (scene, alive)
    }

    async fn write(&mut self, text: &str) {
        self.client.write_all(text.as_bytes()).await.unwrap();
    }

    /// Reads bytes from the recorder, which must be `expected`.
    async fn read(&mut self, expected: &str) {
        let mut bytes = vec![0; expected.len()];
        timeout(LIMIT, self.client.read_exact(&mut bytes))
            .await
            .unwrap_or_else(|_| panic!("{expected:?} did not come"))
            .unwrap();
        assert_eq!(String::from_utf8_lossy(&bytes), expected);
    }

    /// Checks that nothing more comes and that the connection is closed.
    async fn expect_end(&mut self) {
        let mut rest = Vec::new();
        // A connection reset counts as the end: the recorder closes with unread bytes.
        let read = timeout(LIMIT, self.client.read_to_end(&mut rest)).await;
        let _ = read.expect("the recorder closes the connection");
        assert_eq!(String::from_utf8_lossy(&rest), "");
    }

    /// Ends the recording, and checks that the server's script succeeded.
    async fn finish(self) -> Result<Cassette, Error> {
        let recorded = self.recorder.finish().await;
        tokio::task::spawn_blocking(|| self.server.finish())
            .await
            .unwrap();
        recorded
    }

    /// The same as [`finish`](Scene::finish), and checks that `exchanges` were recorded.
    async fn expect_recorded(self, exchanges: &str) {
        let recorded = self.finish().await.unwrap();
        assert_eq!(recorded.to_string(), cassette(exchanges).to_string());
    }
}

/// Sends one request on a connection of its own and returns what came back.
async fn ask(socket: &Path, method: &str, path: &str, body: &[u8]) -> String {
    let length = body.len();
    let mut bytes =
        format!("{method} {path} HTTP/1.1\r\nContent-Length: {length}\r\n\r\n").into_bytes();
    bytes.extend_from_slice(body);
    let mut stream = UnixStream::connect(socket).await.unwrap();
    stream.write_all(&bytes).await.unwrap();
    let mut answer = vec![0; 4096];
    let length = timeout(LIMIT, stream.read(&mut answer))
        .await
        .unwrap()
        .unwrap();
    String::from_utf8_lossy(&answer[..length]).into_owned()
}

#[tokio::test]
async fn passing_exchanges_are_recorded_and_made_stable() {
    let folder = tempfile::tempdir().unwrap();
    let player = vmm(folder.path(), &[PING, PLAYED].join(",")).await;
    let recorder = Recorder::start(
        options(folder.path())
            .placeholder("/tmp/run-7", "RUN")
            .placeholder("/tmp/run-7-more", "MORE"),
    )
    .await
    .unwrap();

    // The player's tests check the first three byte for byte; here it is enough that the calls succeed.
    let socket = recorder.socket();
    let ping = ask(socket, "GET", "/api/v1/vmm.ping", b"").await;
    assert!(
        ping.ends_with(
            r#"{"build_version":"v53.0.0","features":[],"pid":4711,"version":"53.0.0"}"#
        ),
        "{ping}"
    );
    let snapshot = br#"{"destination_url": "file:///tmp/run-7/s"}"#;
    ask(socket, "PUT", "/api/v1/vm.snapshot", snapshot).await;
    let bad = ask(socket, "PUT", "/api/v1/vm.create", b"{ /tmp/run-7").await;
    assert!(
        bad.starts_with("HTTP/1.1 400 \r\nServer: Firecracker API\r\n"),
        "{bad}"
    );
    ask(socket, "PUT", "/api/v1/vm.create", &[b'x'; 60_000]).await;
    ask(socket, "PUT", "/api/v1/vm.boot", b"").await;
    assert_eq!(ask(socket, "PUT", "/api/v1/vm.delete", b"").await, "");

    let recorded = recorder.finish().await.unwrap();
    player.finish().await.unwrap();
    let expected = PLAYED
        .replace("4711", "1")
        .replace("/tmp/run-7-more", "${MORE}")
        .replace("/tmp/run-7", "${RUN}");
    assert_eq!(recorded.to_string(), cassette(&expected).to_string());
    assert!(!folder.path().join("s").exists());
}

#[tokio::test]
async fn it_ends_with_the_vmm() {
    let folder = tempfile::tempdir().unwrap();
    let player = vmm(folder.path(), PING).await;
    let recorder = Recorder::start(options(folder.path())).await.unwrap();
    player.finish().await.unwrap();
    timeout(LIMIT, recorder.ended()).await.unwrap();
    let client = Client::new(recorder.socket()).unwrap();
    let error = client
        .send(Request::raw(Operation::VmInfo, None))
        .await
        .unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::NoListener);
    assert!(recorder.finish().await.unwrap().exchanges.is_empty());
}

#[tokio::test]
async fn there_must_be_a_vmm() {
    let folder = tempfile::tempdir().unwrap();
    let error = Recorder::start(options(folder.path())).await.unwrap_err();
    assert!(matches!(error, Error::Vmm { .. }), "{error}");
    let long = RecorderOptions::new("/a".repeat(100), folder.path().join("s"));
    let error = Recorder::start(long).await.unwrap_err();
    assert!(matches!(error, Error::VmmSocket { .. }), "{error}");
}

#[tokio::test]
async fn a_placeholder_needs_a_name_and_a_text() {
    for (text, name) in [("", "RUN"), ("/tmp", ""), ("/tmp", "run"), ("/tmp", "A}B")] {
        let folder = tempfile::tempdir().unwrap();
        let options = options(folder.path()).placeholder(text, name);
        let error = Recorder::start(options).await.unwrap_err();
        assert!(
            matches!(error, Error::PlaceholderName { .. }),
            "{text:?} {name:?}: {error}"
        );
    }
}

#[tokio::test]
async fn exchanges_that_cannot_be_played_again_are_not_recorded() {
    let text =
        r#"{"request":{"method":"PUT","path":"/a","raw":"'${RUN"},"response":{"status":204}}"#;
    let folder = tempfile::tempdir().unwrap();
    let player = vmm(folder.path(), &[PING, text].join(",")).await;
    let recorder = Recorder::start(options(folder.path())).await.unwrap();
    // The body differs from the recorded one, so the player refuses it with a 500 that quotes it.
    ask(recorder.socket(), "PUT", "/a", b"'${RUN}").await;
    let error = recorder.finish().await.unwrap_err();
    assert!(
        matches!(error, Error::Unrecordable { step: 1, .. }),
        "{error}"
    );
    drop(player);
}
