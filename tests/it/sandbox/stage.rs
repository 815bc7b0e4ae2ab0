//! Stand-ins for VMMs that are processes of their own: each is this test binary again. It has the api-socket and the
//! disks open, as a VMM has, and gets every answer from a [`Player`] in the test's process, through a socket of the
//! [`Stage`].

use std::env;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use chv_sandbox::guest::stand_in::StandIn;
use chv_sandbox::machine::VmmSource;
use chv_sandbox::sandbox::{ChvSandbox, SandboxConfig};
use chv_sandbox::vmm::{Confinement, Layer, VSOCK_SOCKET, VmmConfig};
use memmap2::{Mmap, MmapMut, MmapOptions};
use rustix::fs::FlockOperation;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::memory_of_vmm::Mapping;
use super::orders::Orders;
use super::script::Script;
use super::vmm::{Player, lock};
use crate::vmm::fake;

/// The place where spawned VMMs get their answers: a socket, and the players behind it.
#[derive(Clone)]
pub(crate) struct Stage {
    socket: PathBuf,
    run_root: PathBuf,
    played: Arc<Played>,
}

/// Every VMM that was started, in order.
#[derive(Default)]
struct Played {
    vmms: Mutex<Vec<Arc<Spawned>>>,
    another: Condvar,
}

/// A VMM that runs, or ran, as a process.
pub(crate) struct Spawned {
    pub(crate) pid: u32,
    pub(crate) run_dir: PathBuf,
    pub(crate) player: Player,
    has_ended: AtomicBool,
}

impl Stage {
    /// A stage in `directory`. The VMMs on it follow `script`, and each has a restored copy of `guest`.
    pub(crate) fn new(directory: &Path, guest: StandIn, script: Arc<Script>) -> Stage {
        let socket = directory.join("stage.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let played = Arc::<Played>::default();
        let all = Arc::clone(&played);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, all) = (stream.unwrap(), Arc::clone(&all));
                let (guest, script) = (guest.clone(), Arc::clone(&script));
                // The other end may close at any time.
                thread::spawn(move || drop(all.attend(stream, &guest, script)));
            }
        });
        Stage {
            socket,
            run_root: directory.join("run"),
            played,
        }
    }

    /// The configuration with which a sandbox starts VMMs on this stage.
    pub(crate) fn config(&self) -> VmmConfig {
        self.config_of(&env::current_exe().unwrap())
    }

    /// The same configuration with another copy of this test binary as the VMM's executable.
    pub(crate) fn config_of(&self, executable: &Path) -> VmmConfig {
        Stage::config_at(&self.socket, &self.run_root, executable)
    }

    /// The socket and the run root, with which another process starts VMMs on this stage.
    pub(crate) fn place(&self) -> (&Path, &Path) {
        (&self.socket, &self.run_root)
    }

    /// The configuration that starts VMMs on the stage with this socket and run root.
    pub(crate) fn config_at(socket: &Path, run_root: &Path, executable: &Path) -> VmmConfig {
        VmmConfig {
            binary: PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/it/vmm/fake-vmm"),
            env: vec![
                ("FAKE_VMM_PLAYER".into(), executable.into()),
                ("FAKE_VMM_TEST".into(), "sandbox::stage::serve".into()),
                ("FAKE_VMM_STAGE".into(), socket.into()),
            ],
            run_root: run_root.to_owned(),
            programs: fake::programs(executable),
            // The stand-in also has to stand for VMMs that copy a guest's memory.
            confinement: Confinement {
                without: vec![Layer::Rlimits],
                ..Confinement::default()
            },
            ..VmmConfig::default()
        }
    }

    /// A sandbox whose VMMs are on this stage.
    pub(crate) fn sandbox(&self, config: SandboxConfig) -> ChvSandbox {
        ChvSandbox::with_vmm(config, VmmSource::Spawn(self.config())).unwrap()
    }

    /// The VMM that was started last.
    pub(crate) fn last(&self) -> Arc<Spawned> {
        self.latest(|_| true).expect("one was started")
    }

    /// The VMM whose VM runs.
    pub(crate) fn serving(&self) -> Arc<Spawned> {
        let serving = self.latest(|vmm| vmm.player.state() == Some("Running"));
        serving.expect("one serves")
    }

    /// The VMM whose VM is or was restored last. VMMs that were started later are empty.
    pub(crate) fn staged(&self) -> Arc<Spawned> {
        let staged = self.latest(|vmm| vmm.runs() && vmm.overlay().is_some());
        staged.expect("one has a snapshot")
    }

    /// Every VMM that runs.
    pub(crate) fn running(&self) -> Vec<Arc<Spawned>> {
        let vmms = lock(&self.played.vmms);
        vmms.iter().filter(|vmm| vmm.runs()).cloned().collect()
    }

    fn latest(&self, is_it: impl Fn(&Spawned) -> bool) -> Option<Arc<Spawned>> {
        let vmms = lock(&self.played.vmms);
        vmms.iter().rev().find(|vmm| is_it(vmm)).cloned()
    }

    /// How many were started.
    pub(crate) fn count(&self) -> usize {
        lock(&self.played.vmms).len()
    }

    /// Whether no VMM has left a file or a process.
    pub(crate) fn is_empty(&self) -> bool {
        self.left().is_empty()
    }

    /// Checks that nothing of any VMM is left.
    #[track_caller]
    pub(crate) fn assert_empty(&self) {
        // A VMM that was killed may take a moment to end.
        let deadline = Instant::now() + Duration::from_secs(30);
        for vmm in &*lock(&self.played.vmms) {
            while vmm.runs() {
                assert!(Instant::now() < deadline, "VMM {} is left", vmm.pid);
                thread::yield_now();
            }
        }
        // The run directory of a VMM that was dropped is removed once its process has ended.
        while !self.left().is_empty() {
            assert!(Instant::now() < deadline, "{:?} is left", self.left());
            thread::yield_now();
        }
    }

    /// The run directories that are left. There are none before the first start.
    fn left(&self) -> Vec<PathBuf> {
        match self.run_root.read_dir() {
            Ok(left) => left.map(|entry| entry.unwrap().path()).collect(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => panic!("{error}"),
        }
    }
}

impl Played {
    /// Serves one connection of a VMM: its first, by which it gets orders, or one that it passes on from its
    /// api-socket.
    fn attend(
        &self,
        mut stream: UnixStream,
        guest: &StandIn,
        script: Arc<Script>,
    ) -> io::Result<()> {
        let line = read_line(&mut stream)?;
        let (inner_pid, run_dir) = line.split_once(' ').ok_or(io::ErrorKind::InvalidData)?;
        let inner_pid = inner_pid.parse().map_err(io::Error::other)?;
        // The VMM only knows its process id in its own namespace.
        let peer = rustix::net::sockopt::socket_peercred(&stream)?;
        let pid = peer.pid.as_raw_nonzero().get() as u32;
        if run_dir.is_empty() {
            return self.wait_for(pid).player.serve(stream);
        }
        let run_dir = PathBuf::from(run_dir);
        let (done, dones) = mpsc::channel();
        let orders = Orders::new(pid, inner_pid, stream.try_clone()?, dones);
        let guest = guest.restored_at(run_dir.join("rw").join(VSOCK_SOCKET));
        let vmm = Arc::new(Spawned {
            pid,
            run_dir,
            player: Player::new(guest, script, Some(orders)),
            has_ended: AtomicBool::new(false),
        });
        lock(&self.vmms).push(Arc::clone(&vmm));
        self.another.notify_all();
        for line in BufReader::new(stream).lines() {
            line?;
            // The thread that gave the order waits for this.
            let _ = done.send(());
        }
        drop(done);
        vmm.has_ended.store(true, Ordering::Relaxed);
        vmm.player.end();
        Ok(())
    }

    /// The newest VMM with this process id. The kernel uses ids again, so one that has ended is given only after a wait.
    fn wait_for(&self, pid: u32) -> Arc<Spawned> {
        let runs = |vmm: &Arc<Spawned>| vmm.pid == pid && !vmm.has_ended.load(Ordering::Relaxed);
        let (vmms, limit) = (lock(&self.vmms), Duration::from_secs(2));
        // From the newest on, since there may be thousands of older ones.
        let waited = self
            .another
            .wait_timeout_while(vmms, limit, |vmms| !vmms.iter().rev().any(runs));
        let vmms = waited.unwrap().0;
        let newest = vmms.iter().rfind(|vmm| vmm.pid == pid).cloned();
        newest.expect("a VMM connects for its orders first")
    }
}

impl Spawned {
    /// Kills the VMM, as the kernel does when memory runs out.
    pub(crate) fn kill(&self) {
        send(self.pid, Signal::KILL);
    }

    /// Stops the VMM with SIGSTOP, and waits until each of its threads has stopped: it does nothing more.
    pub(crate) fn stop(&self) {
        send(self.pid, Signal::STOP);
        let deadline = Instant::now() + Duration::from_secs(30);
        let runs = |thread: std::fs::DirEntry| {
            let stat = std::fs::read_to_string(thread.path().join("stat"));
            let stat = stat.unwrap_or_default();
            let state = stat.rsplit(')').next().unwrap().trim_start();
            // Stopped, or ended.
            !state.is_empty() && !state.starts_with(['T', 'Z', 'X'])
        };
        let threads = || std::fs::read_dir(format!("/proc/{}/task", self.pid));
        while threads().is_ok_and(|threads| threads.flatten().any(runs)) {
            assert!(Instant::now() < deadline, "VMM {} does not stop", self.pid);
            thread::yield_now();
        }
    }

    /// Whether the VMM runs. A zombie doesn't.
    pub(crate) fn runs(&self) -> bool {
        // Once it has ended, another process may have its id.
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid));
        !self.has_ended.load(Ordering::Relaxed)
            && stat.is_ok_and(|stat| !stat.rsplit(')').next().unwrap().starts_with(" Z"))
    }

    /// The nameless file that is the VMM's overlay. Another process reaches it by the descriptor that the VMM
    /// inherited. `None` before the VMM was staged.
    pub(crate) fn overlay(&self) -> Option<PathBuf> {
        let config = self.run_dir.join("ro/snapshot/config.json");
        let config: Value = serde_json::from_str(&std::fs::read_to_string(config).ok()?).ok()?;
        let path = config["disks"][1]["path"].as_str()?;
        let own = Path::new(path).strip_prefix("/proc/self").ok()?;
        Some(Path::new("/proc").join(self.pid.to_string()).join(own))
    }

    /// Reports an event, as a VMM does that another process has asked for something.
    pub(crate) fn tell(&self, source: &str, event: &str) {
        self.player.tell(source, event);
    }
}

/// Sends a signal to a process, which may have ended.
pub(super) fn send(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(pid as i32).unwrap();
    match kill_process(pid, signal) {
        Err(rustix::io::Errno::SRCH) => {}
        sent => sent.unwrap(),
    }
}

#[test]
#[ignore = "plays a VMM for other tests"]
#[expect(clippy::print_stdout, reason = "it says that it was skipped")]
fn serve() {
    let (Some(stage), Ok(args)) = (env::var_os("FAKE_VMM_STAGE"), env::var("FAKE_VMM_ARGS")) else {
        println!("skipped: only of use to other tests");
        return;
    };
    let stage = PathBuf::from(stage);
    let mut args = args.split(' ').skip_while(|arg| *arg != "--api-socket");
    let number = args.nth(1).unwrap().strip_prefix("fd=").unwrap();
    // SAFETY: the parent passed this descriptor to this process for this use, and it is taken once.
    let listener = unsafe { OwnedFd::from_raw_fd(number.parse().unwrap()) };
    let listener = UnixListener::from(listener);
    let number = args.nth(1).unwrap().strip_prefix("fd=").unwrap();
    // SAFETY: as above.
    let events = unsafe { OwnedFd::from_raw_fd(number.parse().unwrap()) };
    let mut events = File::from(events);
    let address = listener.local_addr().unwrap();
    let run_dir = address.as_pathname().unwrap().parent().unwrap();
    let mut orders = UnixStream::connect(&stage).unwrap();
    writeln!(orders, "{} {}", process::id(), run_dir.display()).unwrap();
    thread::spawn(move || {
        for connection in listener.incoming() {
            let (connection, stage) = (connection.unwrap(), stage.clone());
            thread::spawn(move || drop(relay(connection, &stage)));
        }
    });
    let mut open: Vec<File> = Vec::new();
    let mut maps: Vec<Mapped> = Vec::new();
    for order in BufReader::new(orders.try_clone().unwrap()).lines() {
        let order = order.unwrap();
        match order.split_once(' ') {
            Some((how, path)) if how.starts_with("map:") => maps.push(map(how, path)),
            Some((source, event)) if source.starts_with("event:") => {
                let source = &source["event:".len()..];
                let timestamp = json!({ "secs": 1, "nanos": 0 });
                let event = json!({ "timestamp": timestamp, "source": source, "event": event });
                write!(events, "{event:#}\n\n").unwrap();
            }
            Some((how, path)) => {
                let file = OpenOptions::new()
                    .read(true)
                    .write(how != "read")
                    .open(path);
                let file = file.unwrap();
                if how == "write" {
                    rustix::fs::fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive)
                        .unwrap();
                }
                open.push(file);
            }
            None if order == "exit" => break,
            None => {
                open.clear();
                maps.clear();
            }
        }
        writeln!(orders).unwrap();
    }
    process::exit(0);
}

/// What the stand-in has mapped.
#[expect(dead_code, reason = "they are only there to be mapped")]
enum Mapped {
    Private(MmapMut),
    Shared(Mmap),
}

fn map(how: &str, path: &str) -> Mapped {
    let mut how = how.split(':').skip(1);
    let kind = how.next().unwrap();
    let mut number = || how.next().unwrap().parse().unwrap();
    let (offset, length): (u64, u64) = (number(), number());
    let mut file = File::open(path).unwrap();
    if kind == format!("{:?}", Mapping::AnotherFile) {
        let memfd = rustix::fs::memfd_create(c"copy", rustix::fs::MemfdFlags::CLOEXEC);
        let mut copy = File::from(memfd.unwrap());
        io::copy(&mut file, &mut copy).unwrap();
        file = copy;
    }
    let mut options = MmapOptions::new();
    options.offset(offset).len(length as usize);
    // SAFETY: the file is sealed, or a copy that is this process's alone, and the bytes are not looked at.
    unsafe {
        match kind == format!("{:?}", Mapping::Shared) {
            true => Mapped::Shared(options.map(&file).unwrap()),
            false => Mapped::Private(options.map_copy(&file).unwrap()),
        }
    }
}

/// Passes one connection to the api-socket on to the stage.
fn relay(mut connection: UnixStream, stage: &Path) -> io::Result<()> {
    let mut player = UnixStream::connect(stage)?;
    writeln!(player, "{} ", process::id())?;
    let (mut requests, mut passed) = (connection.try_clone()?, player.try_clone()?);
    thread::spawn(move || {
        // Either end may close at any time.
        let _ = io::copy(&mut requests, &mut passed);
        let _ = passed.shutdown(Shutdown::Write);
    });
    let _ = io::copy(&mut player, &mut connection);
    connection.shutdown(Shutdown::Both)
}

/// Reads a line, and no byte after it.
fn read_line(stream: &mut UnixStream) -> io::Result<String> {
    let mut line = Vec::new();
    let mut byte = [0];
    loop {
        stream.read_exact(&mut byte)?;
        match byte {
            [b'\n'] => break,
            [byte] => line.push(byte),
        }
    }
    String::from_utf8(line).map_err(io::Error::other)
}
