//! [`Orders`]: what a test has a stand-in for a VMM do.

use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::mpsc::Receiver;

use rustix::process::Signal;

use super::memory_of_vmm::Mapping;
use super::stage::send;
use super::vmm::lock;

/// Gives orders to the process of a VMM, and waits until each is carried out.
pub(crate) struct Orders {
    pid: u32,
    /// The process id in the process's own namespace.
    pub(crate) inner_pid: u32,
    /// `None` once the process has ended.
    connection: Mutex<Option<(UnixStream, Receiver<()>)>>,
}

impl Orders {
    /// Sends orders over `stream`. `done` gets a message for each that was carried out.
    pub(super) fn new(pid: u32, inner_pid: u32, stream: UnixStream, done: Receiver<()>) -> Orders {
        Orders {
            pid,
            inner_pid,
            connection: Mutex::new(Some((stream, done))),
        }
    }

    /// Closes the connection: the process has ended.
    pub(super) fn close(&self) {
        *lock(&self.connection) = None;
    }

    /// The path by which another process opens the file that the VMM opens as `path`.
    pub(crate) fn path(&self, path: &Path) -> PathBuf {
        match path.strip_prefix("/proc/self") {
            Ok(own) => Path::new("/proc").join(self.pid.to_string()).join(own),
            Err(_) => path.to_owned(),
        }
    }

    /// Sends a signal to the process, which may have ended.
    pub(crate) fn signal(&self, signal: Signal) {
        send(self.pid, signal);
    }

    /// Opens a disk: for reading, for writing with a lock, or, as no VMM does, for writing without one.
    pub(crate) fn open(&self, path: &str, how: &str) -> io::Result<()> {
        self.order(&format!("{how} {path}"))
    }

    /// Maps bytes of the file as a VMM maps memory, or in the wrong way that `how` names.
    pub(crate) fn map(&self, how: Mapping, offset: u64, length: u64, path: &str) -> io::Result<()> {
        self.order(&format!("map:{how:?}:{offset}:{length} {path}"))
    }

    pub(crate) fn close_everything(&self) -> io::Result<()> {
        self.order("close")
    }

    pub(crate) fn end(&self) -> io::Result<()> {
        self.order("exit")
    }

    /// Writes to the event monitor.
    pub(crate) fn tell(&self, source: &str, event: &str) -> io::Result<()> {
        self.order(&format!("event:{source} {event}"))
    }

    fn order(&self, line: &str) -> io::Result<()> {
        let mut connection = lock(&self.connection);
        let (stream, done) = connection.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        writeln!(stream, "{line}")?;
        done.recv().map_err(io::Error::other)
    }
}
