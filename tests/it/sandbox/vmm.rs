//! A stand-in for a VMM: the states, answers and files of v53.0, and the deviations that a test orders.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use chv_sandbox::guest::stand_in::StandIn;
use chv_sandbox::machine::SNAPSHOT_FILES;
use chv_sandbox::overlay::qcow2;
use rustix::process::Signal;
use serde_json::{Value, json};

use super::http::{answer_slowly, read_request};
use super::memory_of_vmm::{self, Mapping};
use super::orders::Orders;
use super::script::{Act, Opening, Script};

/// An api-socket with a VMM behind it, in this process. The guest of its VM is a stand-in too.
pub(crate) struct Vmm {
    socket: PathBuf,
    player: Arc<Player>,
    ended: Arc<Mutex<bool>>,
}

impl Vmm {
    pub(crate) fn start(socket: PathBuf, guest: StandIn) -> Vmm {
        let listener = UnixListener::bind(&socket).unwrap();
        let player = Arc::new(Player::new(guest, Arc::default(), None));
        let ended = Arc::new(Mutex::new(false));
        let (serving, over) = (Arc::clone(&player), Arc::clone(&ended));
        thread::spawn(move || {
            for stream in listener.incoming() {
                if *lock(&over) {
                    break;
                }
                let (stream, player) = (stream.unwrap(), Arc::clone(&serving));
                // The other end may close at any time.
                thread::spawn(move || drop(player.serve(stream)));
            }
        });
        Vmm {
            socket,
            player,
            ended,
        }
    }

    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    /// The script of this VMM, which other VMMs may share.
    pub(crate) fn script(&self) -> &Arc<Script> {
        &self.player.script
    }

    /// From now on, the `nth` call of `operation` meets `act`; 1 is the next.
    pub(crate) fn on(&self, operation: &'static str, nth: usize, act: Act) {
        self.script().on(operation, nth, act);
    }

    /// Runs `first` before the next call of `operation` is carried out.
    pub(crate) fn before(&self, operation: &'static str, first: impl FnOnce() + Send + 'static) {
        self.on(operation, 1, Act::First(Box::new(first)));
    }

    /// From now on VMMs that are processes map memory in this way.
    pub(crate) fn set_mapping(&self, mapping: Mapping) {
        *lock(&self.script().mapping) = mapping;
    }

    pub(crate) fn set_version(&self, version: &'static str) {
        *lock(&self.script().version) = version;
    }

    /// The calls that were received since the last call of this function.
    pub(crate) fn take_asked(&self) -> Vec<String> {
        std::mem::take(&mut lock(&self.script().asked))
    }

    /// The VM's state; `None` when there is none.
    pub(crate) fn state(&self) -> Option<&'static str> {
        self.player.state()
    }
}

impl Drop for Vmm {
    fn drop(&mut self) {
        *lock(&self.ended) = true;
        // The connection wakes the listener.
        drop(UnixStream::connect(&self.socket));
        self.player.guest.stop();
    }
}

/// The state and the answers of one VMM.
pub(crate) struct Player {
    guest: StandIn,
    script: Arc<Script>,
    vm: Mutex<Option<Vm>>,
    /// The process that has the VMM's files open, if there is one.
    orders: Option<Orders>,
    /// The calls that this VMM received since its start.
    asked: Mutex<Vec<String>>,
    /// Whether this VMM answers as if it carried out its calls, and carries out none.
    pretends: AtomicBool,
    /// How many snapshots it has restored.
    restored: AtomicUsize,
}

struct Vm {
    config: Value,
    state: &'static str,
}

impl Player {
    pub(crate) fn new(guest: StandIn, script: Arc<Script>, orders: Option<Orders>) -> Player {
        Player {
            guest,
            script,
            vm: Mutex::default(),
            orders,
            asked: Mutex::default(),
            pretends: AtomicBool::default(),
            restored: AtomicUsize::default(),
        }
    }

    /// The guest of its VM.
    pub(crate) fn guest(&self) -> &StandIn {
        &self.guest
    }

    /// The VMM ends, and its guest with it.
    pub(crate) fn end(&self) {
        *lock(&self.vm) = None;
        self.guest.stop();
        if let Some(orders) = &self.orders {
            orders.close();
        }
    }

    /// The VM's state; `None` when there is none.
    pub(crate) fn state(&self) -> Option<&'static str> {
        lock(&self.vm).as_ref().map(|vm| vm.state)
    }

    /// Sets the state of the VM without a call.
    pub(crate) fn set_state(&self, state: &'static str) {
        lock(&self.vm).as_mut().expect("there is a VM").state = state;
    }

    /// From now on this VMM answers as if it carried out its calls, and carries out none: its VM keeps running.
    pub(crate) fn pretend(&self) {
        self.pretends.store(true, Ordering::Release);
    }

    /// The calls that this VMM received since its start.
    pub(crate) fn asked(&self) -> Vec<String> {
        lock(&self.asked).clone()
    }

    /// How many snapshots this VMM has restored. The guest that runs belongs to the last.
    pub(crate) fn restored(&self) -> usize {
        self.restored.load(Ordering::Acquire)
    }

    /// Answers on a connection until it ends.
    pub(crate) fn serve(&self, mut stream: UnixStream) -> io::Result<()> {
        let mut reader = BufReader::new(stream.try_clone()?);
        while let Some((operation, body)) = read_request(&mut reader)? {
            lock(&self.script.asked).push(operation.clone());
            lock(&self.asked).push(operation.clone());
            let answer = match self.planned(&operation) {
                Some(Act::Close) => return Ok(()),
                Some(Act::Hang) => return io::copy(&mut reader, &mut io::sink()).map(drop),
                Some(Act::Refuse) => Err("The test refuses this"),
                Some(Act::Pretend) => Ok(Value::Null),
                Some(Act::Answer(bytes)) => return stream.write_all(&bytes),
                Some(Act::Slow) => return answer_slowly(&mut stream),
                Some(act @ (Act::Die | Act::DieAfter | Act::DieWithin | Act::Stop)) => {
                    return self.fail(&act, &operation, &body, stream, reader);
                }
                Some(Act::Drop(field)) => self.perform(&operation, &without(field, &body)),
                Some(Act::First(first)) => {
                    first();
                    self.perform(&operation, &body)
                }
                Some(Act::Then(then)) => {
                    let answer = self.perform(&operation, &body);
                    then();
                    answer
                }
                None => self.perform(&operation, &body),
            };
            let (status, body) = match answer {
                Ok(Value::Null) => ("204", String::new()),
                Ok(body) => ("200", body.to_string()),
                Err(why) => ("500", json!(["Error from API", why]).to_string()),
            };
            write!(
                stream,
                "HTTP/1.1 {status} \r\nServer: Cloud Hypervisor API\r\nConnection: keep-alive\r\n"
            )?;
            match body.len() {
                0 => stream.write_all(b"\r\n")?,
                length => write!(stream, "Content-Length: {length}\r\n\r\n{body}")?,
            }
        }
        Ok(())
    }

    /// Makes the process die or stop at a call.
    fn fail(
        &self,
        act: &Act,
        operation: &str,
        body: &str,
        mut stream: UnixStream,
        mut reader: impl BufRead,
    ) -> io::Result<()> {
        if let Act::DieAfter | Act::DieWithin = act {
            let _ = self.perform(operation, body);
        }
        if let Act::DieWithin = act {
            stream.write_all(b"HTTP/1.1 200 \r\nContent-Le")?;
        }
        let orders = self.orders.as_ref().expect("the VMM is a process");
        orders.signal(match act {
            Act::Stop => Signal::STOP,
            _ => Signal::KILL,
        });
        // The connection ends with the process.
        io::copy(&mut reader, &mut io::sink()).map(drop)
    }

    fn planned(&self, operation: &str) -> Option<Act> {
        let asks = ["vmm.ping", "vm.info"].contains(&operation);
        if asks || !self.pretends.load(Ordering::Acquire) {
            return self.script.planned(operation);
        }
        if operation == "vm.restore" {
            // The socket's name was removed after the last restore, and is needed after this one.
            let bound = self.guest.start();
            bound.expect("the socket can be bound again");
        }
        Some(Act::Pretend)
    }

    /// Carries out a call. Refusals have the words of v53.0.
    fn perform(&self, operation: &str, body: &str) -> Result<Value, &'static str> {
        let mut vm = lock(&self.vm);
        match (operation, vm.as_mut()) {
            ("vmm.ping", _) => {
                let version = *lock(&self.script.version);
                let pid = self.orders.as_ref().map_or(1, |orders| orders.inner_pid);
                return Ok(json!({
                    "build_version": format!("v{version}"), "version": version, "pid": pid, "features": [],
                }));
            }
            ("vm.info", Some(vm)) => {
                return Ok(
                    json!({ "config": vm.config, "state": vm.state, "memory_actual_size": 1 << 27 }),
                );
            }
            ("vm.create" | "vm.restore", Some(_)) => return Err("VM is already created"),
            ("vm.create", None) => {
                let config = serde_json::from_str(body).map_err(|_| "the body is not JSON")?;
                *vm = Some(Vm {
                    config,
                    state: "Created",
                });
            }
            ("vm.boot", Some(vm)) if vm.state == "Created" => {
                self.guest
                    .start()
                    .map_err(|_| "the vsock socket is in use")?;
                vm.state = "Running";
            }
            ("vm.pause", Some(vm)) if vm.state == "Running" => {
                self.tell("vm", "pausing");
                vm.state = "Paused";
                self.tell("vm", "paused");
            }
            ("vm.resume", Some(vm)) if vm.state == "Paused" => {
                self.tell("vm", "resuming");
                vm.state = "Running";
                self.tell("vm", "resumed");
            }
            ("vm.snapshot", Some(vm)) if vm.state == "Paused" => {
                take_snapshot(body, &vm.config).map_err(|_| "the files cannot be written")?;
            }
            ("vm.restore", None) => {
                self.tell("vm", "restoring");
                let config = self.read_snapshot(body)?;
                self.guest
                    .start()
                    .map_err(|_| "the vsock socket is in use")?;
                self.open_disks(&config);
                let mapping = *lock(&self.script.mapping);
                memory_of_vmm::take(self.orders.as_ref(), mapping, body, &config)?;
                *vm = Some(Vm {
                    config,
                    state: "Paused",
                });
                self.restored.fetch_add(1, Ordering::AcqRel);
                self.tell("vm", "restored");
            }
            ("vm.delete", _) => {
                self.guest.stop();
                self.order(Orders::close_everything);
                *vm = None;
            }
            ("vmm.shutdown", _) => {
                self.guest.stop();
                self.order(Orders::end);
                *vm = None;
            }
            (_, None) => return Err("VM is not created"),
            (_, Some(_)) => return Err("VM is not running"),
        }
        Ok(Value::Null)
    }

    /// Makes the process open the disks.
    fn open_disks(&self, config: &Value) {
        let opening = *lock(&self.script.opening);
        for disk in config["disks"].as_array().into_iter().flatten() {
            let path = disk["path"].as_str().expect("it was opened by this path");
            self.order(|orders| match (disk["readonly"] == true, opening) {
                (true, _) => orders.open(path, "read"),
                (false, Opening::Locked | Opening::NothingBeneath) => orders.open(path, "write"),
                (false, Opening::Unlocked) => orders.open(path, "unlocked"),
                (false, Opening::Inherited) => Ok(()),
                (false, Opening::Another) => {
                    let another = self.guest.socket().with_extension("another");
                    fs::copy(orders.path(Path::new(path)), &another)?;
                    orders.open(&another.display().to_string(), "write")
                }
            });
            if disk["backing_files"] == true && opening != Opening::NothingBeneath {
                self.order(|orders| {
                    let chain = qcow2::chain(&orders.path(Path::new(path)));
                    let beneath = chain.map_err(io::Error::other)?;
                    let mut beneath = beneath.backing().iter();
                    beneath.try_for_each(|it| orders.open(&it.path.display().to_string(), "read"))
                });
            }
        }
    }

    /// Reports an event through the event monitor, if there is a process.
    pub(crate) fn tell(&self, source: &str, event: &str) {
        self.order(|orders| orders.tell(source, event));
    }

    /// Gives an order to the process. A process that has ended has nothing open, so a failed order is ignored.
    fn order(&self, command: impl FnOnce(&Orders) -> io::Result<()>) {
        let moved = self.orders.as_ref().map_or(Ok(()), command);
        if let Err(error) = moved {
            tracing::debug!(%error, "the process of a VMM has ended");
        }
    }

    /// Opens every file that a restore opens, by the paths in the snapshot's own `config.json`.
    fn read_snapshot(&self, body: &str) -> Result<Value, &'static str> {
        let folder = folder_in(body, "source_url").ok_or("there is no source_url")?;
        let config = fs::read_to_string(folder.join("config.json"));
        let config: Value = serde_json::from_str(&config.map_err(|_| "config.json is missing")?)
            .map_err(|_| "config.json is not JSON")?;
        let disks = config["disks"].as_array().ok_or("there are no disks")?;
        let disks = disks
            .iter()
            .map(|disk| disk["path"].as_str().map(PathBuf::from));
        let state = Some(folder.join("state.json"));
        for path in [state].into_iter().chain(disks) {
            let path = path.ok_or("a disk has no path")?;
            let path = match &self.orders {
                Some(orders) => orders.path(&path),
                None => path,
            };
            File::open(path).map_err(|_| "a file cannot be opened")?;
        }
        match config["vsock"]["socket"].as_str() {
            Some(socket) if Path::new(socket) == self.guest.socket() => Ok(config),
            _ => Err("the vsock socket is not where the guest is"),
        }
    }
}

fn take_snapshot(body: &str, config: &Value) -> io::Result<()> {
    let folder = folder_in(body, "destination_url").ok_or(io::ErrorKind::InvalidInput)?;
    let [config_file, _, _] = SNAPSHOT_FILES.map(|name| folder.join(name));
    File::create_new(config_file)?.write_all(config.to_string().as_bytes())?;
    memory_of_vmm::write(&folder, config)
}

pub(crate) fn folder_in(body: &str, field: &str) -> Option<PathBuf> {
    let body: Value = serde_json::from_str(body).ok()?;
    Some(body[field].as_str()?.strip_prefix("file://")?.into())
}

fn without(field: &str, body: &str) -> String {
    let mut body: Value = serde_json::from_str(body).unwrap();
    body.as_object_mut().unwrap().remove(field).unwrap();
    body.to_string()
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
