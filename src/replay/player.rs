//! [`Player`]: a server that plays a cassette on a Unix socket.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Mutex;
use tokio::task::{JoinHandle, JoinSet};

use super::cassette::{Answer, Cassette};
use super::descriptors::ClientStream;
use super::response::{CONTINUE, refusal};
use super::wire::{RawRequest, Reader};
use super::{Error, Script};
use crate::causes::Causes;

/// The error that a hook returns.
pub type HookError = Box<dyn std::error::Error + Send + Sync>;

type Hook =
    dyn Fn(Played) -> Pin<Box<dyn Future<Output = Result<(), HookError>> + Send>> + Send + Sync;

/// Serves a cassette on a Unix socket, as the recorded VMM would.
///
/// Many players can run in one process, each with its own socket. [`finish`](Player::finish) reports whether exactly
/// the recorded requests came. A player that is dropped without it removes its socket and logs a warning.
#[derive(Debug)]
pub struct Player {
    socket: PathBuf,
    stage: Arc<Stage>,
    server: JoinHandle<()>,
    finished: bool,
}

/// The settings of a [`Player`]: its socket, placeholders, faults and hook.
#[derive(Default)]
pub struct PlayerOptions {
    socket: PathBuf,
    substitutions: BTreeMap<String, String>,
    faults: BTreeMap<usize, Fault>,
    hook: Option<Box<Hook>>,
}

/// A fault of the player at one step, in place of the recorded answer. The step counts as played.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Fault {
    /// Sends the answer in pieces, cut at these offsets in bytes, with a pause before each piece except the first.
    Torn {
        /// The offsets. An offset at or beyond the end has no effect.
        at: Vec<usize>,
        /// The pause between two pieces.
        pause: Duration,
    },
    /// Sends the answer after this time.
    Late(Duration),
    /// Sends no answer, and keeps the connection open.
    Silent,
    /// Closes the connection after a part of the answer.
    Close {
        /// The number of bytes that are sent before.
        after: usize,
    },
    /// Sends these bytes in place of the answer.
    Bytes(Vec<u8>),
}

/// The step that was just matched, as passed to a hook.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Played {
    /// The step's number, from 1.
    pub step: usize,
    /// The HTTP method.
    pub method: String,
    /// The path, for example `/api/v1/vm.boot`.
    pub path: String,
    /// The status of the answer that is about to be sent. `None` if the connection is about to be closed.
    pub status: Option<u16>,
}

impl PlayerOptions {
    /// Creates options for a player that serves on `socket`, which must not exist yet.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        PlayerOptions {
            socket: socket.into(),
            ..Default::default()
        }
    }

    /// Sets `value` as the text for `${name}` in the cassette.
    #[must_use]
    pub fn substitute(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.substitutions.insert(name.into(), value.into());
        self
    }

    /// Sets a fault at a step. Steps are counted from 1.
    #[must_use]
    pub fn fault(mut self, step: usize, fault: Fault) -> Self {
        self.faults.insert(step, fault);
        self
    }

    /// Sets `hook`, which is called for each step that matched. The answer is sent when the hook is done.
    ///
    /// A VMM does more than answer: for example, it binds the vsock socket on `vm.boot`. A hook can do that in its
    /// place. While the hook runs, the player handles no other request. If the hook fails, the answer has status 500,
    /// and [`finish`](Player::finish) fails with [`Error::Hook`].
    #[must_use]
    pub fn on_exchange<F, Done>(mut self, hook: F) -> Self
    where
        F: Fn(Played) -> Done + Send + Sync + 'static,
        Done: Future<Output = Result<(), HookError>> + Send + 'static,
    {
        self.hook = Some(Box::new(move |played| Box::pin(hook(played))));
        self
    }
}

impl fmt::Debug for PlayerOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PlayerOptions")
            .field("socket", &self.socket)
            .field("substitutions", &self.substitutions)
            .field("faults", &self.faults)
            .finish_non_exhaustive()
    }
}

impl Player {
    /// Starts to serve `cassette`. When this returns, the socket accepts connections.
    ///
    /// Must be called within a tokio runtime. The player runs on it until it is finished or dropped.
    ///
    /// # Errors
    ///
    /// [`Error::Placeholder`] if a placeholder has no value, and [`Error::Listen`] if the socket can't be bound: a file
    /// is at its path, or the path has 108 bytes or more.
    pub async fn start(cassette: Cassette, options: PlayerOptions) -> Result<Player, Error> {
        let script = Script::new(cassette, &options.substitutions)?;
        let listener = UnixListener::bind(&options.socket).map_err(|source| Error::Listen {
            socket: options.socket.clone(),
            source,
        })?;
        let stage = Arc::new(Stage {
            socket: options.socket.clone(),
            state: Mutex::new(State {
                script,
                failed_hook: None,
            }),
            faults: options.faults,
            hook: options.hook,
        });
        let server = tokio::spawn(serve(listener, stage.clone()));
        Ok(Player {
            socket: options.socket,
            stage,
            server,
            finished: false,
        })
    }

    /// The path of the socket on which the player serves.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Stops serving, removes the socket, and reports whether the replay was complete.
    ///
    /// # Errors
    ///
    /// [`Error::Hook`] if a hook failed, [`Error::Mismatch`] if a request did not match the recorded one, and
    /// [`Error::Leftover`] if recorded steps were not played.
    pub async fn finish(mut self) -> Result<(), Error> {
        self.finished = true;
        self.server.abort();
        let mut state = self.stage.state.lock().await;
        if let Some((step, source)) = state.failed_hook.take() {
            return Err(Error::Hook { step, source });
        }
        state.script.finish()
    }
}

impl Drop for Player {
    fn drop(&mut self) {
        self.server.abort();
        remove_socket(&self.socket);
        if !self.finished {
            tracing::warn!(
                socket = %self.socket.display(),
                "a replay was dropped before `finish` checked that it was complete"
            );
        }
    }
}

/// The state that the connections of one player share.
struct Stage {
    socket: PathBuf,
    state: Mutex<State>,
    faults: BTreeMap<usize, Fault>,
    hook: Option<Box<Hook>>,
}

struct State {
    script: Script,
    failed_hook: Option<(usize, HookError)>,
}

impl fmt::Debug for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stage").finish_non_exhaustive()
    }
}

/// The outcome of one request.
enum Cue {
    Answer(Vec<u8>, Option<Fault>),
    Close,
    /// The VMM ended at this step: the player closes its socket.
    Exit,
}

/// The number of connections that a VMM accepts at once.
const MAX_CONNECTIONS: usize = 10;

async fn serve(listener: UnixListener, stage: Arc<Stage>) {
    // Dropping the set ends the connections together with the server.
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(ended) = connections.join_next() => match ended {
                Ok(Ended::Exit) => return remove_socket(&stage.socket),
                Ok(Ended::Connection) | Err(_) => continue,
            },
        };
        match accepted {
            Ok((mut stream, _)) if connections.len() >= MAX_CONNECTIONS => {
                let answer = refusal(503, vec!["Too many open connections".to_owned()]);
                let _ = stream.try_write(&answer);
                let _ = stream.shutdown().await;
            }
            Ok((stream, _)) => {
                connections.spawn(converse(stream, stage.clone()));
            }
            Err(error) => {
                tracing::warn!(
                    socket = %stage.socket.display(),
                    error = %Causes(&error),
                    "a replay can't accept connections and stops listening"
                );
                return;
            }
        }
    }
}

enum Ended {
    Connection,
    Exit,
}

async fn converse(stream: UnixStream, stage: Arc<Stage>) -> Ended {
    let mut reader = Reader::new(ClientStream::new(stream));
    loop {
        let request = match next_request(&mut reader).await {
            Ok(Some(request)) => request,
            Ok(None) => return Ended::Connection,
            Err(error) => {
                tracing::warn!(
                    socket = %stage.socket.display(),
                    error = %Causes(&error),
                    "a client of a replay sent no valid request"
                );
                return Ended::Connection;
            }
        };
        // The player closes the descriptors. A VMM would keep them.
        let descriptors = reader.get_mut().take_descriptors().len();
        let stream = reader.get_mut().stream();
        let sent = match stage.play(request, descriptors).await {
            Cue::Close => return Ended::Connection,
            Cue::Exit => return Ended::Exit,
            Cue::Answer(bytes, None) => stream.write_all(&bytes).await.map(|()| true),
            Cue::Answer(bytes, Some(fault)) => misbehave(stream, &bytes, fault).await,
        };
        // The client may have closed the connection before its answer. That is not an error of the replay.
        if !sent.unwrap_or(false) {
            return Ended::Connection;
        }
    }
}

/// Reads the next request. If the client waits for an interim response before it sends the body, it gets one, as from a
/// VMM.
async fn next_request(reader: &mut Reader<ClientStream>) -> io::Result<Option<RawRequest>> {
    let Some(head) = reader.request_head().await? else {
        return Ok(None);
    };
    if head.expects && !reader.has_body_of(&head) {
        reader.get_mut().stream().write_all(CONTINUE).await?;
    }
    reader.rest_of(head).await.map(Some)
}

impl Stage {
    async fn play(&self, request: RawRequest, descriptors: usize) -> Cue {
        let RawRequest {
            method, path, body, ..
        } = request;
        let mut state = self.state.lock().await;
        let (step, answer) = match state.script.play(&method, &path, &body, descriptors) {
            Ok((step, exchange)) => (step, exchange.answer.clone()),
            Err(mismatch) => {
                tracing::warn!(socket = %self.socket.display(), "{}", Causes(&mismatch));
                let lines = vec!["This was not recorded".to_owned(), mismatch.to_string()];
                return Cue::Answer(refusal(500, lines), None);
            }
        };
        let status = match &answer {
            Answer::Response(response) => Some(response.status),
            Answer::Closed => None,
        };
        if let Some(hook) = &self.hook {
            let played = Played {
                step,
                method,
                path,
                status,
            };
            if let Err(error) = hook(played).await {
                let lines = vec!["The hook failed".to_owned(), error.to_string()];
                state.failed_hook.get_or_insert((step, error));
                return Cue::Answer(refusal(500, lines), None);
            }
        }
        match answer {
            Answer::Response(response) => {
                Cue::Answer(response.to_bytes(), self.faults.get(&step).cloned())
            }
            Answer::Closed if state.script.peek().is_none() => Cue::Exit,
            Answer::Closed => Cue::Close,
        }
    }
}

/// Sends an answer with the given fault. Returns `false` if the connection is to be closed.
async fn misbehave(stream: &mut UnixStream, answer: &[u8], fault: Fault) -> io::Result<bool> {
    match fault {
        Fault::Torn { at, pause } => {
            let mut sent = 0;
            for cut in at.into_iter().chain([answer.len()]) {
                if sent < cut && cut <= answer.len() {
                    if sent > 0 {
                        tokio::time::sleep(pause).await;
                    }
                    stream.write_all(&answer[sent..cut]).await?;
                    sent = cut;
                }
            }
            Ok(true)
        }
        Fault::Late(delay) => {
            tokio::time::sleep(delay).await;
            stream.write_all(answer).await.map(|()| true)
        }
        Fault::Silent => {
            // Reads and drops what the client sends, until it closes the connection.
            while stream.read(&mut [0; 1024]).await? > 0 {}
            Ok(false)
        }
        Fault::Close { after } => {
            let end = after.min(answer.len());
            stream.write_all(&answer[..end]).await.map(|()| false)
        }
        Fault::Bytes(bytes) => stream.write_all(&bytes).await.map(|()| true),
    }
}

fn remove_socket(socket: &Path) {
    if let Err(error) = std::fs::remove_file(socket)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(socket = %socket.display(), error = %Causes(&error), "can't remove the socket of a replay");
    }
}
