//! The recorder: stands in front of a real api-socket and writes down what passes.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Mutex, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

use super::cassette::{
    Answer, Cassette, Exchange, RecordedRequest, RecordedResponse, RequestBody, ResponseBody,
};
use super::wire::{self, RawRequest, RawResponse, Reader, usual_headers};
use super::{Error, substitution};
use crate::client::{BODY_LIMIT, Client, Release};

/// A proxy in front of a VMM's api-socket that makes a [`Cassette`] of what passes through it.
///
/// Any client may connect to it, also several; their requests go to the VMM one after the other, and this is
/// the order of the cassette. Each takes a connection of its own to the VMM, so that what a VMM does to a
/// connection after a bad request doesn't reach the next one.
///
/// Requests and answers are passed on byte for byte. Open files that travel beside a request are not.
///
/// Made stable, so that recording again gives the same file: the prefixes given to
/// [`placeholder`](RecorderOptions::placeholder), and the process id in the answer of `vmm.ping`, which is always
/// recorded as 1. What a VMM draws at random (the MAC address of a network device without one) is not: give it in
/// the request.
#[derive(Debug)]
pub struct Recorder {
    listen: PathBuf,
    release: Release,
    notes: Option<String>,
    tape: Arc<Tape>,
    server: JoinHandle<()>,
    gone: watch::Receiver<bool>,
}

/// What to record, and how.
#[derive(Clone, Debug)]
pub struct RecorderOptions {
    api_socket: PathBuf,
    listen: PathBuf,
    /// Text and the name that stands for it.
    placeholders: Vec<(String, String)>,
    notes: Option<String>,
}

/// The longest time that a VMM may take for an answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(10 * 60);

/// As many connections as a VMM takes.
const MAX_CONNECTIONS: usize = 10;

impl RecorderOptions {
    /// Record the VMM at `api_socket`, and listen at `listen`, where nothing must be yet.
    pub fn new(api_socket: impl Into<PathBuf>, listen: impl Into<PathBuf>) -> Self {
        RecorderOptions {
            api_socket: api_socket.into(),
            listen: listen.into(),
            placeholders: Vec::new(),
            notes: None,
        }
    }

    /// Write `${name}` wherever `text` stands, in requests and answers. A name has capital letters, digits and
    /// underscores. Of two texts that both match at a place, the longer wins.
    #[must_use]
    pub fn placeholder(mut self, text: impl Into<String>, name: impl Into<String>) -> Self {
        self.placeholders.push((text.into(), name.into()));
        self
    }

    /// What a reader of the cassette should know.
    #[must_use]
    pub fn notes(mut self, notes: impl Into<String>) -> Self {
        self.notes = Some(notes.into());
        self
    }
}

impl Recorder {
    /// Asks the VMM for its release (this is not recorded) and starts to listen.
    ///
    /// Must be called within a tokio runtime, on which it goes on until it is finished or dropped.
    ///
    /// # Errors
    ///
    /// [`Error::VmmSocket`] or [`Error::Vmm`] when there is no VMM that answers, [`Error::Listen`] when the
    /// recorder's own socket can't be bound, [`Error::PlaceholderName`] when a placeholder can't be one.
    pub async fn start(options: RecorderOptions) -> Result<Recorder, Error> {
        let RecorderOptions {
            api_socket,
            listen,
            mut placeholders,
            notes,
        } = options;
        for (text, name) in &placeholders {
            if text.is_empty() || !substitution::is_placeholder(&format!("${{{name}}}")) {
                return Err(Error::PlaceholderName { name: name.clone() });
            }
        }
        placeholders.sort_by_key(|(text, _)| std::cmp::Reverse(text.len()));

        let release = Client::new(&api_socket)
            .map_err(|source| Error::VmmSocket { source })?
            .release()
            .await
            .map_err(|source| Error::Vmm {
                source: Box::new(source),
            })?;
        let failed = |source| Error::Listen {
            socket: listen.clone(),
            source,
        };
        // Idle for ever: its end is the end of the VMM.
        let lifeline = UnixStream::connect(&api_socket).await.map_err(failed)?;
        let listener = UnixListener::bind(&listen).map_err(failed)?;
        let tape = Arc::new(Tape {
            api_socket,
            placeholders,
            recorded: Mutex::default(),
        });
        let (say_gone, gone) = watch::channel(false);
        let server = tokio::spawn(serve(listener, lifeline, tape.clone(), say_gone));
        Ok(Recorder {
            listen,
            release,
            notes,
            tape,
            server,
            gone,
        })
    }

    /// The socket on which it listens.
    pub fn socket(&self) -> &Path {
        &self.listen
    }

    /// The VMM's release.
    pub fn release(&self) -> Release {
        self.release
    }

    /// Waits until the VMM has gone.
    pub async fn ended(&self) {
        let mut gone = self.gone.clone();
        // An error says that the server ended, which it does when the VMM has gone.
        let _ = gone.wait_for(|gone| *gone).await;
    }

    /// Stops listening, removes the socket and returns what was recorded, once an exchange that has begun is
    /// complete.
    ///
    /// # Errors
    ///
    /// [`Error::Unrecordable`] for the first exchange that can't stand in a cassette.
    pub async fn finish(self) -> Result<Cassette, Error> {
        let mut recorded = self.tape.recorded.lock().await;
        self.server.abort();
        if let Some(failure) = recorded.failure.take() {
            return Err(failure);
        }
        Ok(Cassette {
            release: self.release,
            notes: self.notes.clone(),
            exchanges: std::mem::take(&mut recorded.exchanges),
        })
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.server.abort();
        if let Err(error) = std::fs::remove_file(&self.listen)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(socket = %self.listen.display(), %error, "can't remove a recorder's socket");
        }
    }
}

/// What the connections of one recorder share.
#[derive(Debug)]
struct Tape {
    api_socket: PathBuf,
    placeholders: Vec<(String, String)>,
    recorded: Mutex<Recorded>,
}

#[derive(Debug, Default)]
struct Recorded {
    exchanges: Vec<Exchange>,
    bytes: u64,
    failure: Option<Error>,
}

async fn serve(
    listener: UnixListener,
    mut lifeline: UnixStream,
    tape: Arc<Tape>,
    say_gone: watch::Sender<bool>,
) {
    let mut connections = JoinSet::new();
    let mut byte = [0];
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                // One more than a VMM would take is turned away as a VMM turns it away: by closing.
                Ok((stream, _)) if connections.len() < MAX_CONNECTIONS => {
                    connections.spawn(converse(stream, tape.clone()));
                }
                Ok(_) => tracing::warn!("more connections than a VMM takes"),
                Err(error) => {
                    tracing::warn!(%error, "the recorder stops listening");
                    return;
                }
            },
            Some(_) = connections.join_next() => {}
            _ = lifeline.read(&mut byte) => break,
        }
    }
    // From here on a client must be refused, as it would be by the VMM that has gone. The answer that a VMM
    // sent just before it went is still passed on.
    drop(listener);
    let _ = say_gone.send(true);
    while connections.join_next().await.is_some() {}
}

async fn converse(stream: UnixStream, tape: Arc<Tape>) {
    let mut reader = Reader::new(stream);
    loop {
        match reader.request().await {
            Ok(Some(request)) => match tape.exchange(request).await {
                Some(answer) => {
                    if reader.get_mut().write_all(&answer).await.is_err() {
                        return;
                    }
                }
                None => return,
            },
            Ok(None) => return,
            Err(error) => {
                tracing::warn!(%error, "what a client sent is no request and is not recorded");
                return;
            }
        }
    }
}

impl Tape {
    /// Passes a request on and writes it down with its answer, whose bytes are returned; `None` when the
    /// VMM closed.
    async fn exchange(&self, request: RawRequest) -> Option<Vec<u8>> {
        // Held until the answer is there: this is what makes an order of them.
        let mut recorded = self.recorded.lock().await;
        let asked = format!("{} {}", request.method, request.path);
        let answer = timeout(ANSWER_LIMIT, self.ask(&request.bytes)).await;
        let (answer, bytes, size) = match answer {
            Ok(Ok(answer)) => answer.map_or((Ok(Answer::Closed), None, 0), |answer| {
                let size = answer.bytes.len();
                let bytes = answer.bytes.clone();
                (
                    recorded_response(answer).map(Answer::Response),
                    Some(bytes),
                    size,
                )
            }),
            Ok(Err(error)) if error.kind() == io::ErrorKind::InvalidData => {
                (Err("the answer is not HTTP"), None, 0)
            }
            // There is no VMM any more.
            Ok(Err(error)) => {
                tracing::warn!(%error, %asked, "not recorded: the VMM can't be reached");
                return None;
            }
            Err(_) => (Err("no answer came"), None, 0),
        };
        // Of a body that no VMM reads, only the length is kept.
        let kept = request.bytes.len().min(BODY_LIMIT);
        recorded.bytes += (kept + size) as u64;
        let exchange = answer.and_then(|answer| {
            Ok(Exchange {
                request: recorded_request(request)?,
                answer,
            })
        });
        let exchange = match exchange {
            // Written with indents, JSON is several times as long.
            Ok(_) if recorded.bytes > Cassette::MAX_BYTES / 4 => {
                Err("the cassette has become too large")
            }
            Ok(exchange) => self.stable(exchange),
            Err(reason) => Err(reason),
        };
        match exchange {
            Ok(exchange) => recorded.exchanges.push(exchange),
            Err(reason) => {
                let step = recorded.exchanges.len() + 1;
                recorded.failure.get_or_insert(Error::Unrecordable {
                    step,
                    request: asked,
                    reason,
                });
            }
        }
        bytes
    }

    /// Asks the VMM; `None` when it closes without an answer.
    async fn ask(&self, request: &[u8]) -> io::Result<Option<RawResponse>> {
        let stream = UnixStream::connect(&self.api_socket).await?;
        match wire::exchange(stream, request).await {
            Err(error) if error.kind() != io::ErrorKind::InvalidData => Ok(None),
            answer => answer,
        }
    }

    /// The same exchange without what differs from run to run.
    fn stable(&self, mut exchange: Exchange) -> Result<Exchange, &'static str> {
        if exchange.request.path.ends_with("/vmm.ping")
            && let Answer::Response(RecordedResponse {
                body: ResponseBody::Json(Value::Object(ping)),
                ..
            }) = &mut exchange.answer
            && let Some(pid) = ping.get_mut("pid")
        {
            *pid = 1.into();
        }
        let mut ambiguous = false;
        substitution::rewrite(&mut exchange, &mut |text| {
            ambiguous |= substitution::has_placeholder(text);
            for (real, name) in &self.placeholders {
                if text.contains(real) {
                    *text = text.replace(real, &format!("${{{name}}}"));
                }
            }
        });
        if ambiguous {
            return Err("it has a text that would be taken for a placeholder");
        }
        Ok(exchange)
    }
}

fn recorded_request(request: RawRequest) -> Result<RecordedRequest, &'static str> {
    let RawRequest {
        method, path, body, ..
    } = request;
    let body = if body.is_empty() {
        RequestBody::None
    } else if body.len() > BODY_LIMIT {
        RequestBody::Length(body.len() as u64)
    } else if let Ok(json) = serde_json::from_slice(&body) {
        RequestBody::Json(json)
    } else {
        let text = String::from_utf8(body).map_err(|_| "its body is not UTF-8")?;
        RequestBody::Text(text)
    };
    Ok(RecordedRequest { method, path, body })
}

fn recorded_response(response: RawResponse) -> Result<RecordedResponse, &'static str> {
    let RawResponse {
        status,
        headers,
        body,
        ..
    } = response;
    let body = if body.is_empty() {
        ResponseBody::Empty
    } else if let Ok(json) = serde_json::from_slice(&body) {
        ResponseBody::Json(json)
    } else {
        let text = String::from_utf8(body).map_err(|_| "the answer's body is not UTF-8")?;
        ResponseBody::Text(text)
    };
    Ok(RecordedResponse {
        status,
        headers: (headers != usual_headers(status)).then_some(headers),
        body,
    })
}
