//! The one thread that starts VMMs, and reaps them.
//!
//! The kernel sends the parent-death signal when the *thread* that started a child ends, not the process: a VMM that was
//! started from a runtime's worker or blocking thread would die with that thread. So one thread starts them all and
//! never ends. Since it lives that long, it also looks after its children, which makes a [`Vmm`](super::Vmm)
//! independent of any async runtime.

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use tokio::sync::{oneshot, watch};
use tokio::time::timeout;

use super::child::Child;
use super::confinement::{Grants, Held, LayerReport};
use super::family::Family;
use super::launch::Launch;
use super::output::Log;
use super::run_dir::RemovedOnDrop;
use super::{EndedReceiver, Error, Event, Process, VmmConfig};
use crate::broadcast;
use crate::socket::SocketAddress;

/// A VMM that was started. Dropping it kills the process with its forks and removes the run directory.
#[derive(Debug)]
pub(super) struct Running {
    /// The executable.
    pub(super) binary: PathBuf,
    pub(super) family: Family,
    pub(super) log: Arc<Log>,
    pub(super) console: Console,
    /// Never read: others subscribe through it.
    pub(super) events: broadcast::Receiver<Event>,
    pub(super) ended: EndedReceiver,
    pub(super) api_socket: SocketAddress,
    /// What became of each layer of its boundary.
    pub(super) layers: Vec<LayerReport>,
    pub(super) _held: Held,
    pub(super) run_dir: RemovedOnDrop,
}

/// The console of a VM that the VMM may make.
#[derive(Debug)]
pub(super) struct Console {
    /// Under this name the VMM opens the pipe that it has inherited, as often as it makes a VM.
    pub(super) path: PathBuf,
    pub(super) log: Arc<Log>,
}

impl Running {
    pub(super) fn process(&self) -> &Process {
        &self.family.process
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Err(error) = self.family.kill() {
            tracing::error!(pid = self.process().pid(), %error, "a VMM couldn't be killed");
        }
    }
}

/// Starts a VMM; see [`Vmm::spawn`](super::Vmm::spawn). The process isn't ready yet.
pub(super) async fn spawn(config: &VmmConfig, grants: Grants) -> Result<Running, Error> {
    let config = config.clone();
    let living = Living::begin();
    let launch = tokio::task::spawn_blocking(move || Launch::prepare(config, grants, living))
        .await
        .map_err(|stopped| Error::NoSpawner {
            source: Some(stopped.into()),
        })??;
    let (reply, answer) = oneshot::channel();
    submit(Request { launch, reply })?;
    // If the caller is gone, the reply fails, which kills the VMM and removes its directory.
    answer
        .await
        .map_err(|_| Error::NoSpawner { source: None })?
}

struct Request {
    launch: Launch,
    reply: oneshot::Sender<Result<Running, Error>>,
}

/// The way to the thread.
struct Spawner {
    requests: mpsc::Sender<Request>,
    /// Wakes the thread from its poll.
    wake: Arc<OwnedFd>,
}

/// Started with the first request.
static SPAWNER: Mutex<Option<Spawner>> = Mutex::new(None);

fn submit(request: Request) -> Result<(), Error> {
    let mut spawner = SPAWNER.lock().unwrap_or_else(PoisonError::into_inner);
    let spawner = match &mut *spawner {
        Some(spawner) => spawner,
        none => none.insert(start_thread().map_err(|source| Error::NoSpawner {
            source: Some(source),
        })?),
    };
    spawner
        .requests
        .send(request)
        .map_err(|_| Error::NoSpawner { source: None })?;
    wake(&spawner.wake).map_err(|source| Error::NoSpawner {
        source: Some(source),
    })
}

pub(super) fn wake(eventfd: &OwnedFd) -> io::Result<()> {
    match rustix::io::write(eventfd, &1_u64.to_ne_bytes()) {
        // A full counter wakes just as well.
        Ok(_) | Err(rustix::io::Errno::AGAIN) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn start_thread() -> io::Result<Spawner> {
    let (requests, incoming) = mpsc::channel();
    let wake = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
    let woken = Arc::clone(&wake);
    thread::Builder::new()
        .name("vmm-spawner".to_owned())
        .spawn(move || run(&incoming, &woken))?;
    Ok(Spawner { requests, wake })
}

/// How many processes are about to be started here, or were and aren't reaped yet.
static LIVING: LazyLock<watch::Sender<usize>> = LazyLock::new(|| watch::Sender::new(0));

/// A process, from before its run directory is made until it is reaped.
pub(super) struct Living(());

impl Living {
    fn begin() -> Living {
        LIVING.send_modify(|living| *living += 1);
        Living(())
    }
}

impl Drop for Living {
    fn drop(&mut self) {
        LIVING.send_modify(|living| *living -= 1);
    }
}

/// Waits until every VMM that this process started, or is about to start, has ended and was reaped, with whatever it had
/// started itself; `false` if that took longer than `limit`.
///
/// For a program that is about to end after it dropped a [`Vmm`](super::Vmm): one that was told to die dies anyway, and
/// what it had started is cleared away by this process.
pub async fn all_ended(limit: Duration) -> bool {
    let mut living = LIVING.subscribe();
    timeout(limit, living.wait_for(|living| *living == 0))
        .await
        .is_ok()
}

/// The thread: waits for requests and ends of children, and never ends itself.
fn run(requests: &mpsc::Receiver<Request>, woken: &OwnedFd) {
    let mut children: Vec<Child> = Vec::new();
    loop {
        wait_for_anything(&children, woken);
        let _ = rustix::io::read(woken, &mut [0; 8]);
        for request in requests.try_iter() {
            let answer = request.launch.start().map(|(running, child)| {
                children.push(child);
                running
            });
            // If nobody wants it any more, it is dropped here, which kills the process; it is reaped as any other.
            let _ = request.reply.send(answer);
        }
        let ended = children.extract_if(.., |child| child.family.process.has_ended());
        ended.for_each(Child::reap);
    }
}

fn wait_for_anything(children: &[Child], woken: &OwnedFd) {
    let mut descriptors = vec![PollFd::new(woken, PollFlags::IN)];
    for child in children {
        descriptors.push(PollFd::new(&child.family.process, PollFlags::IN));
    }
    match poll(&mut descriptors, None) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(error) => {
            // Out of memory is all that is left. Look at everything, after a breath.
            tracing::error!(%error, "waiting for VMMs failed");
            thread::sleep(std::time::Duration::from_millis(100));
        }
    }
}
