//! [`Recorder`]: a proxy in front of a real api-socket that records the exchanges that pass through it.

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
use super::recording::{Connection, Recording};
use super::wire::Reader;
use super::{Error, placeholder};
use crate::causes::Causes;
use crate::client::{Client, Release};
use crate::socket::SocketAddress;

/// A proxy in front of a VMM's api-socket that makes a [`Cassette`] of what passes through it.
///
/// Several clients may connect at once. Their requests go to the VMM one after the other, and this is their order in
/// the cassette. Each request has a connection of its own to the VMM, so that an error on one connection doesn't reach
/// the next request.
///
/// Requests and answers are passed on byte for byte. Interim answers (1xx) are passed on but not recorded. Open files
/// that are sent with a request (`SCM_RIGHTS`) are passed on, and the cassette holds their number. A request with more
/// than 253 of them is answered with status 500, and [`finish`](Recorder::finish) fails.
///
/// Two things are replaced so that recording again gives the same file: the prefixes that were given to
/// [`placeholder`](RecorderOptions::placeholder), and the process id in the answer to `vmm.ping`, which is always
/// recorded as 1. Values that a VMM chooses at random, such as the MAC address of a network device, are not replaced:
/// set them in the request.
#[derive(Debug)]
pub struct Recorder {
    listen: PathBuf,
    release: Release,
    notes: Option<String>,
    tape: Arc<Recording>,
    server: JoinHandle<()>,
    gone: watch::Receiver<bool>,
}

/// The settings of a [`Recorder`].
#[derive(Clone, Debug)]
pub struct RecorderOptions {
    api_socket: SocketAddress,
    listen: PathBuf,
    /// Pairs of a text and the name of its placeholder.
    placeholders: Vec<(String, String)>,
    notes: Option<String>,
}

/// The pause before the recorder tries again to accept a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The number of connections that a VMM accepts at once.
const MAX_CONNECTIONS: usize = 10;

impl RecorderOptions {
    /// Creates options to record the VMM at `api_socket`. The recorder will listen on `listen`, which must not exist
    /// yet.
    pub fn new(api_socket: impl Into<SocketAddress>, listen: impl Into<PathBuf>) -> Self {
        RecorderOptions {
            api_socket: api_socket.into(),
            listen: listen.into(),
            placeholders: Vec::new(),
            notes: None,
        }
    }

    /// Writes `${name}` in place of `text` in requests and answers. A name has capital letters, digits and underscores.
    /// Where two texts match, the longer one is replaced.
    #[must_use]
    pub fn placeholder(mut self, text: impl Into<String>, name: impl Into<String>) -> Self {
        self.placeholders.push((text.into(), name.into()));
        self
    }

    /// Sets the notes of the cassette, for its readers.
    #[must_use]
    pub fn notes(mut self, notes: impl Into<String>) -> Self {
        self.notes = Some(notes.into());
        self
    }
}

impl Recorder {
    /// Asks the VMM for its release, which is not recorded, and starts to listen.
    ///
    /// Must be called within a tokio runtime. The recorder runs on it until it is finished or dropped.
    ///
    /// # Errors
    ///
    /// [`Error::VmmSocket`] and [`Error::Vmm`] if no VMM answers at the api-socket, [`Error::Listen`] if the recorder's
    /// own socket can't be bound, and [`Error::PlaceholderName`] if a placeholder is not valid.
    pub async fn start(options: RecorderOptions) -> Result<Recorder, Error> {
        let RecorderOptions {
            api_socket,
            listen,
            mut placeholders,
            notes,
        } = options;
        for (text, name) in &placeholders {
            if text.is_empty() || !placeholder::is_placeholder(&format!("${{{name}}}")) {
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
        // No request is sent on this connection. The VMM closes it when it ends.
        let idle = UnixStream::connect(api_socket.path())
            .await
            .map_err(failed)?;
        let listener = UnixListener::bind(&listen).map_err(failed)?;
        let tape = Arc::new(Recording::new(api_socket, placeholders));
        let (ended, gone) = watch::channel(false);
        let server = tokio::spawn(serve(listener, idle, tape.clone(), ended));
        Ok(Recorder {
            listen,
            release,
            notes,
            tape,
            server,
            gone,
        })
    }

    /// The path of the socket on which the recorder listens.
    pub fn socket(&self) -> &Path {
        &self.listen
    }

    /// The release of the VMM.
    pub fn release(&self) -> Release {
        self.release
    }

    /// Waits until the VMM has ended.
    pub async fn ended(&self) {
        let mut gone = self.gone.clone();
        // An error means that the server task ended. It does so when the VMM has ended.
        let _ = gone.wait_for(|gone| *gone).await;
    }

    /// Stops listening, removes the socket and returns the cassette. An exchange that has begun is completed first.
    ///
    /// # Errors
    ///
    /// [`Error::Unrecordable`] for the first exchange that a cassette can't hold.
    pub async fn finish(self) -> Result<Cassette, Error> {
        match self.finish_incomplete().await {
            (cassette, None) => Ok(cassette),
            (_, Some(failure)) => Err(failure),
        }
    }

    /// As [`finish`](Recorder::finish), but returns the recording also after a failure: the exchanges before the first
    /// one that a cassette can't hold, and the [`Error::Unrecordable`] for that one.
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
                "can't remove the socket of a recorder"
            );
        }
    }
}

async fn serve(
    listener: UnixListener,
    mut idle: UnixStream,
    tape: Arc<Recording>,
    ended: watch::Sender<bool>,
) {
    let mut connections = JoinSet::new();
    let mut byte = [0];
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                // A VMM also closes a connection beyond its limit.
                Ok((stream, _)) if connections.len() < MAX_CONNECTIONS => {
                    connections.spawn(converse(stream, tape.clone()));
                }
                Ok(_) => tracing::warn!("the recorder closed a connection: a VMM takes no more at once"),
                // The process may have too many open files, for example. The client waits until some are closed.
                Err(error) => {
                    tracing::warn!(error = %Causes(&error), "the recorder can't accept a connection yet");
                    sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_) = connections.join_next() => {}
            _ = idle.read(&mut byte) => break,
        }
    }
    // From here on a client is refused, as it would be by a VMM that has ended. An answer that the VMM sent just before
    // its end is still passed on.
    drop(listener);
    let _ = ended.send(true);
    while connections.join_next().await.is_some() {}
}

async fn converse(stream: UnixStream, tape: Arc<Recording>) {
    let mut client = Reader::new(ClientStream::new(stream));
    loop {
        match tape.exchange(&mut client).await {
            Ok(Connection::Kept) => {}
            Ok(Connection::Over) => return,
            Err(error) => {
                tracing::warn!(error = %Causes(&error), "the recorder can't pass on a client's request");
                if let Some(lost) = DescriptorsLost::of(&error) {
                    let answer = tape.refuse(lost).await;
                    let _ = client.get_mut().stream().write_all(&answer).await;
                }
                return;
            }
        }
    }
}
