//! The one thread that starts VMMs, and reaps them.
//!
//! The kernel sends the parent-death signal when the *thread* that started a child ends, not the process: a VMM that was
//! started from a runtime's worker or blocking thread would die with that thread. So one thread starts them all and
//! never ends. Since it lives that long, it also looks after its children, which makes a [`Vmm`](super::Vmm)
//! independent of any async runtime.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, LazyLock, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::FdFlags;
use rustix::process::Signal;
use tokio::sync::{oneshot, watch};
use tokio::time::timeout;

use super::child::Child;
use super::identity::{Record, create_private};
use super::log::Log;
use super::proof::SocketFile;
use super::pump::{self, Pipe};
use super::run_dir::{RemovedOnDrop, RunDir};
use super::{
    EndedReceiver, Error, Event, Process, VmmConfig, binary, events, procfs, reclaim, run_root,
};
use crate::broadcast;

/// A VMM that was started. Dropping it kills the process and removes the run directory.
#[derive(Debug)]
pub(super) struct Running {
    /// The executable.
    pub(super) binary: PathBuf,
    pub(super) process: Process,
    pub(super) log: Arc<Log>,
    pub(super) console: Console,
    /// Never read: others subscribe through it.
    pub(super) events: broadcast::Receiver<Event>,
    pub(super) ended: EndedReceiver,
    /// The file of the api-socket as it was bound.
    pub(super) socket_file: SocketFile,
    pub(super) run_dir: RemovedOnDrop,
}

/// The console of a VM that the VMM may make.
#[derive(Debug)]
pub(super) struct Console {
    /// Under this name the VMM opens the pipe that it has inherited, as often as it makes a VM.
    pub(super) path: PathBuf,
    pub(super) log: Arc<Log>,
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Err(error) = self.process.signal(Signal::KILL) {
            tracing::error!(pid = self.process.pid(), %error, "a VMM couldn't be killed");
        }
    }
}

/// Starts a VMM; see [`Vmm::spawn`](super::Vmm::spawn). The process isn't ready yet.
pub(super) async fn spawn(config: &VmmConfig, descriptors: Vec<OwnedFd>) -> Result<Running, Error> {
    let config = config.clone();
    let living = Living::begin();
    let launch = tokio::task::spawn_blocking(move || Launch::prepare(config, living, descriptors))
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

/// All that is there before the process.
struct Launch {
    binary: PathBuf,
    config: VmmConfig,
    /// What the process is to inherit besides.
    descriptors: Vec<OwnedFd>,
    listener: UnixListener,
    socket_file: SocketFile,
    record: Record,
    /// Where the process leaves a copy of its `/proc/self/stat`.
    stat: File,
    run_dir: RemovedOnDrop,
    /// Dropped last, when nothing is left to clear away.
    living: Living,
}

impl Launch {
    fn prepare(
        config: VmmConfig,
        living: Living,
        descriptors: Vec<OwnedFd>,
    ) -> Result<Launch, Error> {
        let binary = binary::find(&config.binary)?;
        let root = run_root::prepare(&config.run_root)?;
        reclaim(&root)?;
        let run_dir = RunDir::create(&root)?;
        let listener = run_dir.bind_api_socket()?;
        let path = run_dir.api_socket();
        let socket_file =
            SocketFile::at(&path).map_err(Error::run_dir("look at the api-socket", &path))?;
        let path = run_dir.record();
        let record = procfs::socket_inode(&listener)
            .and_then(|inode| Record::new(&binary, inode))
            .and_then(|record| record.write(&path).map(|()| record))
            .map_err(Error::run_dir("write the record", &path))?;
        let path = run_dir.stat();
        let stat = create_private(&path).map_err(Error::run_dir("create the record", &path))?;
        Ok(Launch {
            binary,
            config,
            descriptors,
            listener,
            socket_file,
            record,
            stat,
            run_dir,
            living,
        })
    }

    /// Starts the process. Runs on the spawner thread.
    fn start(self) -> Result<(Running, Child), Error> {
        let Launch {
            living,
            binary,
            config,
            descriptors,
            listener,
            socket_file,
            record,
            stat,
            run_dir,
        } = self;
        let log_path = run_dir.log();
        let log = Log::create(&log_path).map_err(Error::run_dir("create the log", &log_path))?;
        let console_path = run_dir.console();
        let console = Log::create(&console_path)
            .map_err(Error::run_dir("create the console's log", &console_path))?;
        let (log, console) = (Arc::new(log), Arc::new(console));
        let (event_sender, events) = broadcast::channel(events::BACKLOG);
        let failed = |source| Error::Spawn {
            binary: binary.clone(),
            source,
        };
        pump::start().map_err(failed)?;
        let (event_pipe, event_writer) = Pipe::events(event_sender).map_err(failed)?;
        let (log_pipe, log_writer) = Pipe::log(Arc::clone(&log)).map_err(failed)?;
        let (console_pipe, console_writer) = Pipe::console(Arc::clone(&console)).map_err(failed)?;
        let console = Console {
            path: format!("/proc/self/fd/{}", console_writer.as_raw_fd()).into(),
            log: console,
        };

        let mut command = Command::new(&binary);
        command
            .arg("--api-socket")
            .arg(format!("fd={}", listener.as_raw_fd()))
            .arg("--event-monitor")
            .arg(format!("fd={}", event_writer.as_raw_fd()))
            .args((0..config.verbosity).map(|_| "-v"))
            .env("MALLOC_ARENA_MAX", "1")
            .envs(config.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(log_writer.try_clone().map_err(failed)?)
            .stderr(log_writer)
            .process_group(0);
        let mut inherited = descriptors;
        inherited.extend([listener.into(), event_writer, console_writer]);
        before_exec(&mut command, inherited, stat);
        let mut child = command.spawn().map_err(failed)?;
        // With it go our copies of the listener and of the pipes' writing ends: from now on connecting to a dead VMM is
        // refused, and its events end when it does.
        drop(command);

        let process = match Process::open(child.id(), record.listener_inode) {
            Ok(process) => process,
            Err(source) => {
                let _ = child.kill().and_then(|()| child.wait());
                return Err(failed(source));
            }
        };
        let (ended_sender, ended) = watch::channel(None);
        pump::watch(process.pid(), vec![event_pipe, log_pipe, console_pipe]);
        let child = Child {
            process: process.clone(),
            log: Arc::clone(&log),
            ended: ended_sender,
            living,
        };
        let running = Running {
            binary,
            process,
            log,
            console,
            events,
            ended,
            socket_file,
            run_dir,
        };
        Ok((running, child))
    }
}

/// What the child does between fork and exec: it ties its life to this thread, puts itself on record, and keeps
/// `descriptors` open under the numbers that they have here.
///
/// The numbers stay: a `dup2` to fixed ones could hit the pipe over which the standard library reports a failed exec.
fn before_exec(command: &mut Command, descriptors: Vec<OwnedFd>, record: File) {
    let parent = rustix::process::getpid();
    let steps = move || {
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        // If the parent died before that, the signal will never come.
        if rustix::process::getppid() != Some(parent) {
            return Err(io::Error::from_raw_os_error(libc::ESRCH));
        }
        let mut stat = [0; 1024];
        let own_stat = rustix::fs::open(
            c"/proc/self/stat",
            OFlags::RDONLY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        let length = rustix::io::read(&own_stat, &mut stat)?;
        rustix::io::write(&record, &stat[..length])?;
        for descriptor in &descriptors {
            rustix::io::fcntl_setfd(descriptor, FdFlags::empty())?;
        }
        Ok(())
    };
    // SAFETY: the closure runs between fork and exec, where only what is async-signal-safe is allowed. It makes bare
    // system calls (prctl, getppid, open, read, write, close, fcntl) on memory of its own, takes no lock and allocates
    // nothing: an `io::Error` made from a number is just the number.
    unsafe {
        command.pre_exec(steps);
    }
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
        let ended = children.extract_if(.., |child| child.process.has_ended());
        ended.for_each(Child::reap);
    }
}

fn wait_for_anything(children: &[Child], woken: &OwnedFd) {
    let mut descriptors = vec![PollFd::new(woken, PollFlags::IN)];
    for child in children {
        descriptors.push(PollFd::new(&child.process, PollFlags::IN));
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
