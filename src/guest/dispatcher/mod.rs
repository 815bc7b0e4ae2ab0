//! The [`Dispatcher`] runs tools and answers queries for the host, over stream sockets.
//!
//! Inside a guest, `chv-guest` runs one behind a [`VsockListener`], in a process that [`init`](super::init) starts. A
//! [stand-in](super::stand_in) for a guest runs one in an ordinary process, behind a Unix socket, with a [`System`]
//! that invents its readings and with [`Confinement::in_process`].

mod capture;
mod cgroup;
mod command;
mod confinement;
mod connection;
mod descriptor_count;
mod evidence;
mod files;
mod function;
mod in_flight;
mod landlock;
mod limits;
mod listener;
mod processes;
mod relay;
mod running;
mod seccomp;
mod session;
mod stream_connection;
mod stream_run;
mod system;
mod throwaway;
mod toolbox;
mod transfer;

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex};

pub(crate) use confinement::CGROUP_ROOT;
pub use confinement::Confinement;
pub(crate) use confinement::be_killed_last;
pub use function::FunctionRun;
pub use limits::Limits;
pub use listener::VsockListener;
pub use system::{LinuxSystem, System};
pub use toolbox::{Toolbox, ToolsFileError};

use crate::guest::frame::FrameError;
use crate::guest::protocol::{DecodeError, Frame};
use crate::guest::record::{RecordError, RecordKind};
use confinement::Prepared;
use connection::{Connection, ShutDown};
use session::Session;

/// The most tools that run at the same time, over all connections. A guest refuses one more.
pub const MAX_IN_FLIGHT: usize = 32;

/// The most runs with streams and transfers of files at the same time, over all connections. A guest refuses one more.
pub const MAX_STREAMS: usize = 8;

/// The longest deadline that a dispatch may ask for, in milliseconds: one hour.
pub const MAX_DEADLINE_MS: u64 = 60 * 60 * 1000;

/// Runs tools and answers queries. Clones share all state: the tools, the nonce, and the limits on tools and streams in
/// progress.
#[derive(Clone)]
pub struct Dispatcher {
    shared: Arc<Shared>,
}

impl fmt::Debug for Dispatcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dispatcher")
            .field("root", &self.shared.root)
            .finish_non_exhaustive()
    }
}

struct Shared {
    toolbox: Toolbox,
    confinement: Arc<Prepared>,
    /// The directory that is `/` for tools; its file system is synced after each tool.
    root: Option<PathBuf>,
    system: Box<dyn System>,
    /// The nonce of the host's `Imprint`. It is kept in memory only, so that a guest that was booted again has none.
    nonce: Mutex<Option<String>>,
    /// The commands whose tools run now.
    in_flight: Mutex<BTreeSet<String>>,
    /// How many runs with streams and transfers of files are open.
    streams: Arc<AtomicUsize>,
    /// Where a throwaway layer is mounted. The lock is held while one is mounted.
    throwaway: Mutex<Option<PathBuf>>,
}

/// A function of a [stand-in](super::stand_in::Behaviour::Intercepted) that sees each frame of the host before the
/// dispatcher does. If it returns bytes, they are sent instead of the dispatcher's answer. If it returns `None`, the
/// dispatcher answers. It doesn't see records.
pub type Intercept = Arc<dyn Fn(&Frame) -> Option<Vec<u8>> + Send + Sync>;

impl Dispatcher {
    /// A dispatcher that runs the tools of `toolbox` in `confinement`.
    ///
    /// The limits of every tool are those of `confinement`. A caller who wants those of the tools file copies
    /// [`Toolbox::limits`] into it first.
    ///
    /// # Errors
    ///
    /// If `confinement` can't be prepared: the root doesn't exist or its path has a NUL byte, or there is no seccomp
    /// filter for this architecture.
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

    /// Serves one connection, a stream socket in blocking mode, until it ends, and then shuts it down.
    ///
    /// Tools that still run at the end of the connection go on until their own end or deadline, and their results are
    /// lost. A run with streams is killed when its connection ends.
    ///
    /// # Errors
    ///
    /// [`ServeError`] if the connection fails or the host breaks the protocol. In the second case the host has been
    /// sent an [`ErrorEvent`](super::protocol::ErrorEvent) if that was possible.
    pub fn serve(&self, socket: impl Into<OwnedFd>) -> Result<(), ServeError> {
        self.serve_behind(None, socket.into())
    }

    /// As [`serve`](Self::serve), but shows each frame to `intercept` first.
    ///
    /// # Errors
    ///
    /// As [`serve`](Self::serve).
    pub(crate) fn serve_intercepted(
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

/// A connection failed, or the host broke the protocol. A host that closes its connection between two frames is no
/// error.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// A frame could not be read or written.
    #[error("the connection to the host is of no further use")]
    Frame(#[from] FrameError),
    /// The host sent a frame that only a guest sends; or it sent an `OpenRun`, `OpenPush` or `OpenPull` that wasn't the
    /// connection's first frame after a `Hello`.
    #[error("the host sent a {name} frame, which no guest takes at this place")]
    Unexpected {
        /// The frame's `type`.
        name: &'static str,
    },
    /// A record's header can't be read.
    #[error("the host's record can't be read")]
    Record(#[from] RecordError),
    /// The host sent a record that a host never sends in a run, or that isn't allowed at this place.
    #[error("the host sent a {kind:?} record, which the run doesn't take at this place")]
    UnexpectedRecord {
        /// The record's kind.
        kind: RecordKind,
    },
    /// A record's JSON breaks a rule of the protocol.
    #[error("the host's record is malformed")]
    MalformedRecord(#[from] DecodeError),
}
