//! A stand-in for a guest: the real dispatcher, in this process, behind a hybrid-vsock socket.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use chv_sandbox::guest::dispatcher::{Confinement, Dispatcher, System, Toolbox};
use chv_sandbox::guest::protocol::{GuestProcess, MemUsage};

/// What the stand-in says it has open.
const OPEN_FILES: u64 = 12;

/// The longest line of the handshake, in bytes.
const MAX_LINE: u64 = 32;

/// A guest that comes and goes with its VM. Like a real one it remembers over a restore what it was told before
/// the snapshot, since its dispatcher stays the same.
pub(super) struct Guest {
    socket: PathBuf,
    dispatcher: Arc<Dispatcher>,
    running: Option<Running>,
}

/// What there is while the VM runs.
struct Running {
    ended: Arc<AtomicBool>,
    connections: Arc<Mutex<Vec<UnixStream>>>,
}

impl Guest {
    pub(super) fn new(socket: PathBuf) -> io::Result<Self> {
        let dispatcher = Dispatcher::new(Toolbox::built_in(), &Confinement::in_process(), MadeUp)?;
        Ok(Guest {
            socket,
            dispatcher: Arc::new(dispatcher),
            running: None,
        })
    }

    /// The VM boots or is restored: the socket is bound, as a VMM does it.
    pub(super) fn start(&mut self) -> io::Result<()> {
        let listener = UnixListener::bind(&self.socket)?;
        let ended = Arc::new(AtomicBool::new(false));
        let connections = Arc::new(Mutex::new(Vec::new()));
        self.running = Some(Running {
            ended: Arc::clone(&ended),
            connections: Arc::clone(&connections),
        });
        let dispatcher = Arc::clone(&self.dispatcher);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { break };
                if ended.load(Ordering::Acquire) {
                    break;
                }
                if let Ok(ours) = stream.try_clone() {
                    lock(&connections).push(ours);
                }
                let dispatcher = Arc::clone(&dispatcher);
                thread::spawn(move || {
                    if let Err(error) = serve(&stream, &dispatcher) {
                        tracing::debug!(%error, "a connection to the stand-in ended");
                    }
                });
            }
        });
        Ok(())
    }

    /// The VM is deleted: its connections die, and its socket goes.
    pub(super) fn stop(&mut self) {
        let Some(running) = self.running.take() else {
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
            tracing::debug!(%error, "the stand-in's socket is gone already");
        }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The VMM's half of the handshake, then the guest's dispatcher.
fn serve(stream: &UnixStream, dispatcher: &Dispatcher) -> Result<(), Box<dyn std::error::Error>> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    reader.by_ref().take(MAX_LINE).read_line(&mut line)?;
    if !line.starts_with("CONNECT ") || !line.ends_with('\n') {
        // A VMM closes without a word.
        return Ok(());
    }
    let mut writer = stream.try_clone()?;
    writer.write_all(b"OK 1073741824\n")?;
    Ok(dispatcher.serve(reader, writer)?)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// What a guest's kernel would say, made up.
struct MadeUp;

impl System for MadeUp {
    fn open_fd_count(&self) -> io::Result<u64> {
        Ok(OPEN_FILES)
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
