//! The guest's first process ([`run`]): prepares the system, starts the dispatcher, and reaps the processes that end.
//!
//! ```text
//! kernel -> init: mounts, modules, disks, tools' root -> dispatcher (a child of init)
//!             ^                                               |
//!             +-- it ended: after a pause, start another one -+
//! ```
//!
//! The dispatcher is a process of its own for two reasons. It can wait for its tools itself, while the first process
//! reaps every other process that ends. And a crash of the dispatcher doesn't end the first process, upon which the
//! kernel would panic.

mod cmdline;
mod disks;
mod modules;
mod mounts;

use std::panic;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, WaitOptions};

use crate::causes::Causes;
use crate::guest::dispatcher;

/// The pause between the end of a dispatcher and the start of the next one, so that a lasting failure doesn't cause a
/// busy loop.
const PAUSE: Duration = Duration::from_secs(1);

/// Where the image's tools file may be, below the tools' root or, for the absolute path, in the initramfs, where no
/// tool can reach it. The first one that exists is used.
const TOOLS_FILES: [&str; 2] = ["/tools.json", "etc/chv-tools.json"];

/// The options of the dispatcher's command line.
#[derive(Debug)]
struct Prepared {
    port: u32,
    /// The directory that tools see as `/`.
    root: Option<PathBuf>,
    /// The file that declares tools, if the image has one.
    tools: Option<PathBuf>,
}

/// Runs the first process: prepares the system, then keeps a dispatcher running. It never returns.
///
/// If the system can't be prepared, the error is written to the console and no dispatcher is started. Such a guest
/// never answers, so the host's limit for a boot ends it.
pub fn run() -> ! {
    match panic::catch_unwind(prepare) {
        Ok(Ok(prepared)) => loop {
            // `supervise` returns only by a panic, which is a defect. The first process must not end for it.
            if panic::catch_unwind(|| supervise(&prepared)).is_err() {
                tracing::error!("the first process panicked");
            }
        },
        Ok(Err(error)) => {
            tracing::error!("{}", Causes(&error));
        }
        Err(_) => tracing::error!("the first process panicked"),
    }
    loop {
        thread::park();
    }
}

fn prepare() -> Result<Prepared, InitError> {
    mounts::kernel_file_systems()?;
    mounts::control_groups();
    be_killed_last();
    let port = cmdline::port()?;
    modules::load()?;
    let root = disks::tools_root()?;
    if let Some(root) = &root {
        mounts::inside_tools_root(root)?;
    }
    let base = root.as_deref().unwrap_or(Path::new("/"));
    let mut files = TOOLS_FILES.iter().map(|file| base.join(file));
    let tools = files.find(|file| file.exists());
    Ok(Prepared { port, root, tools })
}

/// Protects this process from the OOM killer, and the dispatcher that it starts, which inherits the setting.
fn be_killed_last() {
    if let Err(error) = dispatcher::be_killed_last() {
        tracing::warn!(error = %Causes(&error), "the OOM killer may kill the dispatcher");
    }
}

/// Keeps a dispatcher running, and reaps every other process that ends.
fn supervise(prepared: &Prepared) -> ! {
    loop {
        match start_dispatcher(prepared) {
            Ok(dispatcher) => {
                reap_until(dispatcher);
                tracing::error!("the dispatcher ended; another one is started after {PAUSE:?}");
            }
            Err(error) => {
                tracing::error!(error = %Causes(&error), "the dispatcher could not be started")
            }
        }
        thread::sleep(PAUSE);
    }
}

fn start_dispatcher(prepared: &Prepared) -> std::io::Result<Pid> {
    let mut command = Command::new("/proc/self/exe");
    command.arg("--port").arg(prepared.port.to_string());
    if let Some(root) = &prepared.root {
        command.arg("--root").arg(root);
    }
    if let Some(tools) = &prepared.tools {
        command.arg("--tools").arg(tools);
    }
    let dispatcher = command.stdin(Stdio::null()).env_clear().spawn()?;
    Ok(Pid::from_child(&dispatcher))
}

/// Reaps every child, started or adopted, until `last` has ended.
fn reap_until(last: Pid) {
    loop {
        match rustix::process::wait(WaitOptions::empty()) {
            Ok(Some((pid, _))) if pid == last => return,
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => {
                tracing::error!(error = %Causes(&error), "waiting for the dispatcher failed");
                return;
            }
        }
    }
}

/// The guest could not be prepared.
#[derive(Debug, thiserror::Error)]
enum InitError {
    /// A file or directory of the guest could not be used.
    #[error("{} could not be {what}", path.display())]
    File {
        what: &'static str,
        path: PathBuf,
        source: std::io::Error,
    },
    /// A file system could not be mounted.
    #[error("{kind} could not be mounted on {}", at.display())]
    Mount {
        kind: &'static str,
        at: PathBuf,
        source: Errno,
    },
    /// `chv.port` on the kernel's command line isn't a vsock port.
    #[error(
        "the kernel's command line says chv.port={value}, which is not a vsock port (0 to 4294967294)"
    )]
    Port { value: String },
}
