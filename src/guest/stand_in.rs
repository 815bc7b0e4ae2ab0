//! A stand-in for a guest, for tests where there is no KVM. A [`StandIn`] runs the real dispatcher in the test's
//! process, behind a hybrid-vsock socket like that of a VMM.
//!
//! The stand-in has the built-in tools or those of a [`Toolbox`], which may be functions of the test's process. Its
//! count of open descriptors and its memory usage are constants, its list of processes is empty, and it doesn't touch
//! the host's clock and random pool. A test can make it misbehave ([`Behaviour`]), change its count of open
//! descriptors, and make it forget the state that a guest keeps only in memory.

use std::fmt;
use std::fs;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::thread;
use std::time::Duration;

pub use super::dispatcher::Intercept;
use super::dispatcher::{Confinement, Dispatcher, Limits, System, Toolbox};
use super::protocol::{GuestProcess, MemUsage};
use crate::causes::Causes;
use crate::mutex::lock;

/// The count of open descriptors that the stand-in reports, unless [`StandIn::set_open_files`] changed it.
const OPEN_FILES: u64 = 12;

/// The longest line of the hybrid-vsock handshake that is read, in bytes.
const MAX_LINE: usize = 32;

/// How the stand-in treats new connections. Connections that are open already keep the behaviour that they began with.
#[derive(Clone, Default)]
pub enum Behaviour {
    /// The dispatcher of this build answers.
    #[default]
    Dispatcher,
    /// The connection is closed without an answer to the handshake, as a VMM does while nothing listens on the guest's
    /// port.
    NoListener,
    /// The handshake is answered, but no frame after it.
    Silent,
    /// Each frame is shown to this function. If it returns bytes, they are sent instead of the dispatcher's answer. If
    /// it returns `None`, the dispatcher answers.
    ///
    /// The function doesn't see records. If it answers a frame that opens a run with streams or a transfer of files,
    /// the records that follow are dropped.
    Intercepted(Intercept),
}

impl fmt::Debug for Behaviour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Behaviour::Dispatcher => "Dispatcher",
            Behaviour::NoListener => "NoListener",
            Behaviour::Silent => "Silent",
            Behaviour::Intercepted(_) => "Intercepted",
        })
    }
}

/// A stand-in for the guest of one VM. A test calls [`start`](Self::start) when the VM boots or is restored, and
/// [`stop`](Self::stop) when the VM is deleted.
///
/// The stand-in keeps its nonce over a stop and a start, like a guest that is restored from its own snapshot. Clones
/// are handles of the same guest; dropping the last one stops it.
#[derive(Clone)]
pub struct StandIn {
    shared: Arc<Shared>,
}

impl fmt::Debug for StandIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StandIn")
            .field("socket", &self.shared.socket)
            .finish_non_exhaustive()
    }
}

struct Shared {
    socket: PathBuf,
    toolbox: Toolbox,
    open_files: Arc<AtomicU64>,
    behaviour: Mutex<Behaviour>,
    dispatcher: Mutex<Dispatcher>,
    running: Mutex<Option<Running>>,
}

/// The state that exists while the VM runs.
struct Running {
    listener: UnixListener,
    connections: Arc<Mutex<Connections>>,
}

/// The connections that are open.
#[derive(Default)]
struct Connections {
    open: Vec<Weak<UnixStream>>,
    /// Whether the guest was stopped, so that no connection is added any more.
    ended: bool,
}

impl Connections {
    /// Adds a connection, and forgets those that were closed. Returns false if the guest was stopped.
    fn add(&mut self, connection: &Arc<UnixStream>) -> bool {
        self.open.retain(|open| open.strong_count() > 0);
        self.open.push(Arc::downgrade(connection));
        !self.ended
    }

    fn end(&mut self) {
        self.ended = true;
        for connection in self.open.drain(..).filter_map(|open| open.upgrade()) {
            // This fails if the connection has ended already.
            let _ = connection.shutdown(Shutdown::Both);
        }
    }
}

impl StandIn {
    /// A guest with the built-in tools. `socket` is the path of the VM's vsock socket, which [`start`](Self::start)
    /// creates.
    ///
    /// # Errors
    ///
    /// If there is no seccomp filter for the tools on this architecture.
    pub fn new(socket: impl Into<PathBuf>) -> io::Result<StandIn> {
        StandIn::with_toolbox(socket, Toolbox::built_in())
    }

    /// A guest with other tools, such as [functions of this process](Toolbox::with_function). The toolbox's limits
    /// apply, except the limit on processes: outside of a guest the kernel would count every process of the user.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn with_toolbox(socket: impl Into<PathBuf>, toolbox: Toolbox) -> io::Result<StandIn> {
        let open_files = Arc::new(AtomicU64::new(OPEN_FILES));
        Ok(StandIn {
            shared: Arc::new(Shared {
                socket: socket.into(),
                behaviour: Mutex::default(),
                dispatcher: Mutex::new(booted(&toolbox, &open_files)?),
                toolbox,
                open_files,
                running: Mutex::new(None),
            }),
        })
    }

    /// The same guest, restored from the same snapshot into another VM whose vsock socket is `socket`.
    ///
    /// Both guests share their memory, such as the nonce, and the count of open descriptors. The new one has the
    /// present [`Behaviour`] of this one. It doesn't run before its [`start`](Self::start).
    #[must_use]
    pub fn restored_at(&self, socket: impl Into<PathBuf>) -> StandIn {
        StandIn {
            shared: Arc::new(Shared {
                socket: socket.into(),
                open_files: Arc::clone(&self.shared.open_files),
                toolbox: self.shared.toolbox.clone(),
                behaviour: Mutex::new(lock(&self.shared.behaviour).clone()),
                dispatcher: Mutex::new(lock(&self.shared.dispatcher).clone()),
                running: Mutex::new(None),
            }),
        }
    }

    /// The path of the VM's vsock socket, as [`new`](Self::new) got it.
    pub fn socket(&self) -> &Path {
        &self.shared.socket
    }

    /// Boots or restores the VM: binds the vsock socket and serves its connections. A guest that runs is stopped first.
    ///
    /// # Errors
    ///
    /// If the socket can't be bound, for example because a file has its path.
    pub fn start(&self) -> io::Result<()> {
        self.stop();
        let listener = UnixListener::bind(&self.shared.socket)?;
        let running = Running {
            listener: listener.try_clone()?,
            connections: Arc::default(),
        };
        let connections = Arc::clone(&running.connections);
        let dispatcher = lock(&self.shared.dispatcher).clone();
        let shared = Arc::downgrade(&self.shared);
        *lock(&self.shared.running) = Some(running);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (Ok(stream), Some(shared)) = (stream, shared.upgrade()) else {
                    break;
                };
                let stream = Arc::new(stream);
                if !lock(&connections).add(&stream) {
                    break;
                }
                let behaviour = lock(&shared.behaviour).clone();
                let dispatcher = dispatcher.clone();
                thread::spawn(move || {
                    if let Err(error) = serve(&stream, &dispatcher, behaviour) {
                        tracing::debug!(error = %Causes(&*error), "a connection to the stand-in ended");
                    }
                    // This fails if the other end has closed the connection.
                    let _ = stream.shutdown(Shutdown::Both);
                });
            }
        });
        Ok(())
    }

    /// Deletes the VM: ends its connections and removes its socket. Does nothing if the guest doesn't run.
    pub fn stop(&self) {
        self.shared.stop();
    }

    /// Makes the next [`start`](Self::start) a boot instead of a restore: the guest has no nonce then.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn forget(&self) -> io::Result<()> {
        *lock(&self.shared.dispatcher) = booted(&self.shared.toolbox, &self.shared.open_files)?;
        Ok(())
    }

    /// The count of open descriptors that the guest reports: 12 unless [`set_open_files`](Self::set_open_files) changed
    /// it.
    pub fn open_files(&self) -> u64 {
        self.shared.open_files.load(Ordering::Acquire)
    }

    /// Sets the count of open descriptors that the guest reports, for this guest and those of
    /// [`restored_at`](Self::restored_at).
    pub fn set_open_files(&self, count: u64) {
        self.shared.open_files.store(count, Ordering::Release);
    }

    /// Sets how the guest treats connections that begin after this call.
    pub fn behave(&self, behaviour: Behaviour) {
        *lock(&self.shared.behaviour) = behaviour;
    }
}

impl Shared {
    fn stop(&self) {
        let Some(running) = lock(&self.running).take() else {
            return;
        };
        // Ends the listener's thread, whose `accept` fails from now on. The socket's file may be gone already, so the
        // thread can't be woken by a connection.
        let _ = rustix::net::shutdown(&running.listener, rustix::net::Shutdown::Both);
        lock(&running.connections).end();
        if let Err(error) = fs::remove_file(&self.socket) {
            tracing::debug!(error = %Causes(&error), "the stand-in's socket could not be removed");
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The dispatcher of a guest that has just booted: it has no nonce.
fn booted(toolbox: &Toolbox, open_files: &Arc<AtomicU64>) -> io::Result<Dispatcher> {
    let system = MadeUp {
        open_files: Arc::clone(open_files),
    };
    let confinement = Confinement::in_process();
    let limits = Limits {
        processes: confinement.limits.processes,
        ..toolbox.limits().clone()
    };
    let confinement = Confinement {
        limits,
        ..confinement
    };
    Dispatcher::new(toolbox.clone(), &confinement, system)
}

/// Answers the handshake as the VMM does, then serves the connection as the guest.
fn serve(
    mut stream: &UnixStream,
    dispatcher: &Dispatcher,
    behaviour: Behaviour,
) -> Result<(), Box<dyn std::error::Error>> {
    if !is_connect(stream)? || matches!(behaviour, Behaviour::NoListener) {
        // A VMM closes such a connection without an answer.
        return Ok(());
    }
    stream.write_all(b"OK 1073741824\n")?;
    match behaviour {
        Behaviour::Silent => {
            io::copy(&mut stream, &mut io::sink())?;
        }
        Behaviour::Intercepted(intercept) => {
            dispatcher.serve_intercepted(stream.try_clone()?, &intercept)?;
        }
        Behaviour::Dispatcher | Behaviour::NoListener => dispatcher.serve(stream.try_clone()?)?,
    }
    Ok(())
}

/// Reads the first line and nothing beyond it. Returns whether it is a `CONNECT` line.
fn is_connect(mut stream: &UnixStream) -> io::Result<bool> {
    let mut line = Vec::with_capacity(MAX_LINE);
    let mut byte = [0];
    while line.len() < MAX_LINE && byte != [b'\n'] && stream.read(&mut byte)? == 1 {
        line.extend(byte);
    }
    Ok(line.starts_with(b"CONNECT ") && line.ends_with(b"\n"))
}

/// Invented readings in the place of those of a guest's kernel.
struct MadeUp {
    open_files: Arc<AtomicU64>,
}

impl System for MadeUp {
    fn open_fd_count(&self) -> io::Result<u64> {
        Ok(self.open_files.load(Ordering::Acquire))
    }

    fn mem_usage(&self) -> io::Result<MemUsage> {
        Ok(MemUsage {
            bytes_used: 64 << 20,
            bytes_total: 128 << 20,
        })
    }

    fn process_list(&self) -> io::Result<Vec<GuestProcess>> {
        Ok(Vec::new())
    }

    fn reseed(&self, _seed: &[u8; 32]) -> io::Result<()> {
        Ok(())
    }

    fn set_clock(&self, _now: Duration) -> io::Result<()> {
        Ok(())
    }
}
