//! A stand-in for a guest, for tests where there is no KVM: the real dispatcher, in this process, behind a
//! hybrid-vsock socket as a VMM has one.
//!
//! It has the built-in tools, or those of a [`Toolbox`], which may be functions of this process. Its descriptors, clock and
//! random pool are made up. It can be told to misbehave ([`Behaviour`]), to have other
//! descriptors open, and to forget what a guest keeps only in memory.

use std::fmt;
use std::fs;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

pub use super::dispatcher::Intercept;
use super::dispatcher::{Confinement, Dispatcher, Limits, System, Toolbox};
use super::protocol::{GuestProcess, MemUsage};
use crate::causes::Causes;

/// What the stand-in says it has open, unless it is told otherwise.
const OPEN_FILES: u64 = 12;

/// The longest line of the handshake, in bytes.
const MAX_LINE: usize = 32;

/// How the stand-in treats a connection that begins from now on.
#[derive(Clone, Default)]
pub enum Behaviour {
    /// As a guest of this build does.
    #[default]
    Dispatcher,
    /// The connection is closed without a word, as a VMM does while nothing listens on the guest's port.
    NoListener,
    /// The handshake is answered, and nothing after it.
    Silent,
    /// Each frame is shown to this function. The bytes that it returns are sent instead of the dispatcher's answer;
    /// for `None` the dispatcher answers. Records pass it by; where it answers a frame that opens a connection of its own,
    /// they are dropped.
    Intercepted(Intercept),
}

/// A guest that comes and goes with its VM: [`start`](Self::start) at the VM's boot or restore,
/// [`stop`](Self::stop) at its delete.
///
/// Like a real one it remembers over a restore what it was told before the snapshot. Clones are the same guest;
/// the last one stops it.
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

/// What there is while the VM runs.
struct Running {
    ended: Arc<AtomicBool>,
    connections: Arc<Mutex<Vec<UnixStream>>>,
}

impl StandIn {
    /// A guest with the built-in tools, whose VM's vsock socket is `socket`. It doesn't run yet.
    ///
    /// # Errors
    ///
    /// On an architecture for which the tools' seccomp filter doesn't exist.
    pub fn new(socket: impl Into<PathBuf>) -> io::Result<StandIn> {
        StandIn::with_toolbox(socket, Toolbox::built_in())
    }

    /// A guest with other tools, such as [functions of this process](Toolbox::with_function). The toolbox's limits hold, but for
    /// that of processes, which the kernel counts by user.
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

    /// The same guest in another VM, restored from the same snapshot: what it keeps in memory and has open is the same,
    /// its VM's vsock socket is another. It doesn't run yet, and treats connections as this one does now.
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

    /// The socket of [`new`](Self::new).
    pub fn socket(&self) -> &Path {
        &self.shared.socket
    }

    /// The VM boots or is restored: the socket is bound, as a VMM does it. One that runs already is stopped first.
    ///
    /// # Errors
    ///
    /// What binding the socket failed with, such as a file that is there already.
    pub fn start(&self) -> io::Result<()> {
        self.stop();
        let listener = UnixListener::bind(&self.shared.socket)?;
        let running = Running {
            ended: Arc::default(),
            connections: Arc::default(),
        };
        let (ended, connections) = (Arc::clone(&running.ended), Arc::clone(&running.connections));
        let dispatcher = lock(&self.shared.dispatcher).clone();
        let shared = Arc::downgrade(&self.shared);
        *lock(&self.shared.running) = Some(running);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (Ok(stream), Some(shared)) = (stream, shared.upgrade()) else {
                    break;
                };
                if ended.load(Ordering::Acquire) {
                    break;
                }
                if let Ok(ours) = stream.try_clone() {
                    lock(&connections).push(ours);
                }
                let behaviour = lock(&shared.behaviour).clone();
                let dispatcher = dispatcher.clone();
                thread::spawn(move || {
                    if let Err(error) = serve(&stream, &dispatcher, behaviour) {
                        tracing::debug!(error = %Causes(&*error), "a connection to the stand-in ended");
                    }
                    // It has ended already if the other end closed it.
                    let _ = stream.shutdown(Shutdown::Both);
                });
            }
        });
        Ok(())
    }

    /// The VM is deleted: its connections die, and its socket goes. Does nothing to one that doesn't run.
    pub fn stop(&self) {
        self.shared.stop();
    }

    /// From the next start on, the guest is one that was booted anew: it has forgotten what it kept in memory.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn forget(&self) -> io::Result<()> {
        *lock(&self.shared.dispatcher) = booted(&self.shared.toolbox, &self.shared.open_files)?;
        Ok(())
    }

    /// How many descriptors the guest says it has open.
    pub fn open_files(&self) -> u64 {
        self.shared.open_files.load(Ordering::Acquire)
    }

    /// How many descriptors the guest says it has open, from now on.
    pub fn set_open_files(&self, count: u64) {
        self.shared.open_files.store(count, Ordering::Release);
    }

    /// How it treats the connections that begin from now on.
    pub fn behave(&self, behaviour: Behaviour) {
        *lock(&self.shared.behaviour) = behaviour;
    }
}

impl Shared {
    fn stop(&self) {
        let Some(running) = lock(&self.running).take() else {
            return;
        };
        running.ended.store(true, Ordering::Release);
        // Wakes the listener, so that it sees the end.
        let _ = UnixStream::connect(&self.socket);
        for connection in lock(&running.connections).drain(..) {
            // It may have ended by itself.
            let _ = connection.shutdown(Shutdown::Both);
        }
        if let Err(error) = fs::remove_file(&self.socket) {
            tracing::debug!(error = %Causes(&error), "the stand-in's socket is gone already");
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The dispatcher of a guest that was booted just now.
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

/// The VMM's half of the handshake, then the guest.
fn serve(
    mut stream: &UnixStream,
    dispatcher: &Dispatcher,
    behaviour: Behaviour,
) -> Result<(), Box<dyn std::error::Error>> {
    if !is_connect(stream)? || matches!(behaviour, Behaviour::NoListener) {
        // A VMM closes without a word.
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

/// Reads the line that opens a connection, and nothing beyond it; whether it is one.
fn is_connect(mut stream: &UnixStream) -> io::Result<bool> {
    let mut line = Vec::with_capacity(MAX_LINE);
    let mut byte = [0];
    while line.len() < MAX_LINE && byte != [b'\n'] && stream.read(&mut byte)? == 1 {
        line.extend(byte);
    }
    Ok(line.starts_with(b"CONNECT ") && line.ends_with(b"\n"))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a guest's kernel would say, made up.
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
