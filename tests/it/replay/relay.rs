//! A second player of cassettes: wiremock, a mock HTTP server on TCP, behind a relay that listens on a Unix socket.
//!
//! It shares the cassettes and the matching rule with the crate's scripted server and no other code. A cassette that
//! both players replay does not depend on how one of them writes HTTP.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};

use chv_sandbox::replay::{Answer, Cassette, Error, Exchange, Script};
use tempfile::TempDir;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpStream, UnixListener};
use tokio::task::JoinSet;
use wiremock::matchers::any;
use wiremock::{Mock, MockServer, Request, Respond, ResponseTemplate};

/// A cassette played by wiremock on a Unix socket.
pub(crate) struct Relay {
    folder: TempDir,
    script: Arc<Mutex<Script>>,
    _mock: MockServer,
    /// The tasks end when this is dropped.
    _relay: JoinSet<()>,
}

impl Relay {
    pub(crate) async fn start(
        cassette: Cassette,
        substitutions: &BTreeMap<String, String>,
    ) -> Relay {
        let script = Arc::new(Mutex::new(Script::new(cassette, substitutions).unwrap()));
        let mock = MockServer::start().await;
        // This mock has the higher priority: a mock server closes a connection instead of answering only for a mock
        // that does nothing else.
        let closing = script.clone();
        Mock::given(move |request: &Request| close_next(&mut closing.lock().unwrap(), request))
            .respond_with_err(|_: &Request| std::io::Error::other("the recorded VMM closed here"))
            .with_priority(1)
            .mount(&mock)
            .await;
        Mock::given(any())
            .respond_with(Scripted(script.clone()))
            .with_priority(2)
            .mount(&mock)
            .await;

        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("s")).unwrap();
        let mut relay = JoinSet::new();
        relay.spawn(serve(listener, *mock.address()));
        Relay {
            folder,
            script,
            _mock: mock,
            _relay: relay,
        }
    }

    pub(crate) fn socket(&self) -> std::path::PathBuf {
        Path::join(self.folder.path(), "s")
    }

    /// Checks that every step was asked for, and nothing else.
    pub(crate) fn finish(&self) -> Result<(), Error> {
        self.script.lock().unwrap().finish()
    }
}

async fn serve(listener: UnixListener, mock: SocketAddr) {
    let mut connections = JoinSet::new();
    while let Ok((mut unix, _)) = listener.accept().await {
        connections.spawn(async move {
            if let Ok(mut tcp) = TcpStream::connect(mock).await {
                // When one side closes early, the relay of this connection ends, so the other side sees it.
                let _ = copy_bidirectional(&mut unix, &mut tcp).await;
            }
        });
    }
}

/// Plays the next step if the recorded VMM closed the connection there.
fn close_next(script: &mut Script, request: &Request) -> bool {
    matches!(
        script.peek(),
        Some(Exchange {
            answer: Answer::Closed,
            ..
        })
    ) && script
        .play(request.method.as_str(), &target(request), &request.body, 0)
        .is_ok()
}

struct Scripted(Arc<Mutex<Script>>);

impl Respond for Scripted {
    fn respond(&self, request: &Request) -> ResponseTemplate {
        let mut script = self.0.lock().unwrap();
        match script.play(request.method.as_str(), &target(request), &request.body, 0) {
            Ok((_, exchange)) => match &exchange.answer {
                Answer::Response(response) => ResponseTemplate::new(response.status)
                    .set_body_raw(response.body.to_bytes(), "application/json"),
                Answer::Closed => unreachable!("the mock before this one plays those"),
            },
            Err(mismatch) => ResponseTemplate::new(500).set_body_string(mismatch.to_string()),
        }
    }
}

/// The path and the query of a request, as they were sent.
fn target(request: &Request) -> String {
    match request.url.query() {
        Some(query) => format!("{}?{query}", request.url.path()),
        None => request.url.path().to_owned(),
    }
}
