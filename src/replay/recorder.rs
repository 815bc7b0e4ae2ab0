//! The recorder: stands in front of a real api-socket and writes down what passes.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::sleep;

use super::cassette::Cassette;
use super::descriptors::{ClientStream, DescriptorsLost};
use super::tape::{Connection, Tape};
use super::wire::Reader;
use super::{Error, substitution};
use crate::causes::Causes;
use crate::client::{Client, Release};
use crate::socket::SocketAddress;

/// A proxy in front of a VMM's api-socket that makes a [`Cassette`] of what passes through it.
///
/// Any client may connect to it, also several; their requests go to the VMM one after the other, and this is
/// the order of the cassette. Each takes a connection of its own to the VMM, so that what a VMM does to a
/// connection after a bad request doesn't reach the next one.
///
/// Requests and answers are passed on byte for byte. So are interim answers (1xx), which are not recorded, and the open
/// files that travel beside a request (`SCM_RIGHTS`), of which the cassette holds the number. A request with more than
/// 253 of them is refused with status 500, and [`finish`](Recorder::finish) fails.
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
    api_socket: SocketAddress,
    listen: PathBuf,
    /// Text and the name that stands for it.
    placeholders: Vec<(String, String)>,
    notes: Option<String>,
}

/// The pause before a connection that couldn't be accepted is tried again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// As many connections as a VMM takes.
const MAX_CONNECTIONS: usize = 10;

impl RecorderOptions {
    /// Record the VMM at `api_socket`, and listen at `listen`, where nothing must be yet.
    pub fn new(api_socket: impl Into<SocketAddress>, listen: impl Into<PathBuf>) -> Self {
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

        let release = Client::new(api_socket.clone())
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
        let lifeline = UnixStream::connect(api_socket.path())
            .await
            .map_err(failed)?;
        let listener = UnixListener::bind(&listen).map_err(failed)?;
        let tape = Arc::new(Tape::new(api_socket, placeholders));
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
        match self.finish_incomplete().await {
            (cassette, None) => Ok(cassette),
            (_, Some(failure)) => Err(failure),
        }
    }

    /// The same as [`finish`](Recorder::finish), and keeps what was recorded before a failure: the exchanges before the
    /// first that can't stand in a cassette, and its [`Error::Unrecordable`].
    pub async fn finish_incomplete(self) -> (Cassette, Option<Error>) {
        let (exchanges, failure) = self.tape.take(&self.server).await;
        let cassette = Cassette {
            release: self.release,
            notes: self.notes.clone(),
            exchanges,
        };
        (cassette, failure)
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.server.abort();
        if let Err(error) = std::fs::remove_file(&self.listen)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(
                socket = %self.listen.display(), error = %Causes(&error),
                "can't remove a recorder's socket"
            );
        }
    }
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
                // Such as too many open files: the client waits until there are fewer.
                Err(error) => {
                    tracing::warn!(error = %Causes(&error), "the recorder can't accept a connection yet");
                    sleep(ACCEPT_PAUSE).await;
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
    let mut client = Reader::new(ClientStream::new(stream));
    loop {
        match tape.exchange(&mut client).await {
            Ok(Connection::Kept) => {}
            Ok(Connection::Over) => return,
            Err(error) => {
                tracing::warn!(error = %Causes(&error), "what a client sent is no request that can be passed on");
                if let Some(lost) = DescriptorsLost::of(&error) {
                    let answer = tape.refuse(lost).await;
                    let _ = client.get_mut().stream().write_all(&answer).await;
                }
                return;
            }
        }
    }
}
