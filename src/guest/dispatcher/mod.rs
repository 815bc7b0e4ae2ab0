//! The dispatcher: runs tools and answers queries for the host, over any pair of blocking streams.
//!
//! Inside a guest it serves the vsock connections of [`init`](super::init). It also runs in an
//! ordinary process behind a Unix socket, as the stand-in of a guest: then its [`System`] is a stand-in and its
//! [`Confinement`] that of [`Confinement::in_process`].

mod command;
mod confinement;
mod descriptors;
mod evidence;
mod listener;
mod processes;
mod run;
mod seccomp;
mod session;
mod system;
mod toolbox;

use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use confinement::{Confinement, Limits};
pub use listener::VsockListener;
pub use system::{LinuxSystem, System};
pub use toolbox::{MAX_PARAM, Toolbox, ToolsFileError};

use crate::guest::frame::FrameError;
use confinement::Prepared;
use session::Session;

/// Most tools that run at the same time, over all connections. One more is refused.
pub const MAX_IN_FLIGHT: usize = 32;

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
    /// The directory whose file system is synced after each tool.
    synced: Option<PathBuf>,
    system: Box<dyn System>,
    /// What the host imprinted. Only in memory: a guest that was booted anew has none.
    nonce: Mutex<Option<String>>,
    /// The commands whose tools run now.
    in_flight: Mutex<BTreeSet<String>>,
}

impl Dispatcher {
    /// A dispatcher of the tools in `toolbox`, run in `confinement`.
    ///
    /// The limits are those of `confinement`; [`Toolbox::limits`] says which ones the tools file asks for.
    ///
    /// # Errors
    ///
    /// When `confinement` can't be prepared: a root with a NUL byte in its path, or a seccomp filter for
    /// an architecture that has none.
    pub fn new(
        toolbox: Toolbox,
        confinement: &Confinement,
        system: impl System + 'static,
    ) -> io::Result<Dispatcher> {
        Ok(Dispatcher {
            shared: Arc::new(Shared {
                toolbox,
                confinement: Arc::new(Prepared::new(confinement)?),
                synced: confinement.root.clone(),
                system: Box::new(system),
                nonce: Mutex::new(None),
                in_flight: Mutex::new(BTreeSet::new()),
            }),
        })
    }

    /// Serves one connection until its end. Tools that still run then go on to their own end or deadline, and
    /// their results are lost.
    ///
    /// The caller shuts the connection down when this returns; until then the peer can't see its end, since a
    /// running tool keeps `writer`.
    ///
    /// # Errors
    ///
    /// [`ServeError`] when the connection failed or the host broke the protocol; the host has been sent an
    /// `ErrorEvent` where that was possible.
    pub fn serve(
        &self,
        reader: impl Read,
        writer: impl Write + Send + 'static,
    ) -> Result<(), ServeError> {
        Session::new(Arc::clone(&self.shared), writer).serve(reader)
    }
}

/// A connection ended in another way than by the host closing it between two frames.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// A frame could not be read or written.
    #[error("the connection to the host is of no further use")]
    Frame(#[from] FrameError),
    /// The host sent a frame that only a guest sends.
    #[error("the host sent a {name} frame, which no guest takes")]
    Unexpected {
        /// The frame's `type`.
        name: &'static str,
    },
}

/// Locks a mutex whose data is valid whenever it is free, also after a panic elsewhere.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
