//! The dispatcher: runs tools and answers queries for the host, over stream sockets.
//!
//! Inside a guest it serves the vsock connections of [`init`](super::init). It also runs in an
//! ordinary process behind a Unix socket, as the stand-in of a guest: then its [`System`] is a stand-in and its
//! [`Confinement`] that of [`Confinement::in_process`].

mod capture;
mod cgroup;
mod command;
mod confinement;
mod connection;
mod descriptors;
mod domain;
mod evidence;
mod files;
mod function;
mod in_flight;
mod listener;
mod processes;
mod relay;
mod running;
mod seccomp;
mod session;
mod stream;
mod streams;
mod system;
mod throwaway;
mod toolbox;
mod transfer;

use std::collections::BTreeSet;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use confinement::{CGROUP_ROOT, Confinement, Limits, be_killed_last};
pub use function::FunctionRun;
pub use listener::VsockListener;
pub use system::{LinuxSystem, System};
pub use toolbox::{MAX_PARAM, Toolbox, ToolsFileError};

use crate::guest::frame::FrameError;
use crate::guest::protocol::{DecodeError, Frame};
use crate::guest::record::{RecordError, RecordKind};
use confinement::Prepared;
use connection::{Connection, ShutDown};
use session::Session;

/// Most tools that run at the same time, over all connections. One more is refused.
pub const MAX_IN_FLIGHT: usize = 32;

/// Most runs with streams and transfers of files at the same time, over all connections. One more is refused.
pub const MAX_STREAMS: usize = 8;

/// The longest deadline that a dispatch may ask for, in milliseconds: one hour.
pub const MAX_DEADLINE_MS: u64 = 60 * 60 * 1000;

/// Runs tools and answers queries. Clones share everything: tools, nonce, and what is in flight.
#[derive(Clone)]
pub struct Dispatcher {
    shared: Arc<Shared>,
}

struct Shared {
    toolbox: Toolbox,
    confinement: Arc<Prepared>,
    /// The directory that is `/` for tools; its file system is synced after each tool.
    root: Option<PathBuf>,
    system: Box<dyn System>,
    /// What the host imprinted. Only in memory: a guest that was booted anew has none.
    nonce: Mutex<Option<String>>,
    /// The commands whose tools run now.
    in_flight: Mutex<BTreeSet<String>>,
    /// How many connections of their own there are.
    streams: Arc<AtomicUsize>,
    /// Where a throwaway layer is mounted; held while one is.
    throwaway: Mutex<Option<PathBuf>>,
}

/// What stands before a dispatcher: sees each frame of the host. The bytes that it returns are sent instead of the
/// dispatcher's answer; for `None` the dispatcher answers. Records pass it by.
pub type Intercept = Arc<dyn Fn(&Frame) -> Option<Vec<u8>> + Send + Sync>;

impl Dispatcher {
    /// A dispatcher of the tools in `toolbox`, run in `confinement`.
    ///
    /// The limits are those of `confinement`; [`Toolbox::limits`] says which ones the tools file asks for.
    ///
    /// # Errors
    ///
    /// When `confinement` can't be prepared: a root that isn't there or has a NUL byte in its path, or a seccomp filter for an
    /// architecture that has none.
    pub fn new(
        toolbox: Toolbox,
        confinement: &Confinement,
        system: impl System + 'static,
    ) -> io::Result<Dispatcher> {
        Ok(Dispatcher {
            shared: Arc::new(Shared {
                toolbox,
                confinement: Arc::new(Prepared::new(confinement)?),
                root: confinement.root.clone(),
                system: Box::new(system),
                nonce: Mutex::new(None),
                in_flight: Mutex::new(BTreeSet::new()),
                streams: Arc::default(),
                throwaway: Mutex::new(confinement.throwaway.clone()),
            }),
        })
    }

    /// Serves one connection, a stream socket in blocking mode, until its end, and shuts it down. Tools that still run then
    /// go on to their own end or deadline, and their results are lost; a run with streams ends with its connection.
    ///
    /// # Errors
    ///
    /// [`ServeError`] when the connection failed or the host broke the protocol; the host has been sent an
    /// `ErrorEvent` where that was possible.
    pub fn serve(&self, socket: impl Into<OwnedFd>) -> Result<(), ServeError> {
        self.serve_behind(None, socket.into())
    }

    /// As [`serve`](Self::serve), with `intercept` before it.
    ///
    /// # Errors
    ///
    /// As [`serve`](Self::serve).
    pub fn serve_intercepted(
        &self,
        socket: impl Into<OwnedFd>,
        intercept: &Intercept,
    ) -> Result<(), ServeError> {
        self.serve_behind(Some(intercept), socket.into())
    }

    fn serve_behind(
        &self,
        intercept: Option<&Intercept>,
        socket: OwnedFd,
    ) -> Result<(), ServeError> {
        let connection = Arc::new(Connection::new(socket).map_err(FrameError::Io)?);
        let _shut_down = ShutDown(&connection);
        Session::new(&self.shared, &connection, intercept).serve()
    }
}

/// A connection ended in another way than by the host closing it between two frames.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// A frame could not be read or written.
    #[error("the connection to the host is of no further use")]
    Frame(#[from] FrameError),
    /// The host sent a frame that only a guest sends, or one that opens a connection of its own after others.
    #[error("the host sent a {name} frame, which no guest takes at this place")]
    Unexpected {
        /// The frame's `type`.
        name: &'static str,
    },
    /// A record's header is none.
    #[error("the host's record can't be read")]
    Record(#[from] RecordError),
    /// The host sent a record that no guest takes, or not at this place.
    #[error("the host sent a {kind:?} record, which the run doesn't take at this place")]
    UnexpectedRecord {
        /// What the record holds.
        kind: RecordKind,
    },
    /// A record's JSON is not what the protocol has.
    #[error("the host's record is malformed")]
    MalformedRecord(#[from] DecodeError),
}

/// Locks a mutex whose data is valid whenever it is free, also after a panic elsewhere.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
