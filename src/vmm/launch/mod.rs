//! [`Launch`] starts a VMM: it makes a confined, running process from a configuration.
//!
//! [`Launch::prepare`] makes everything that the process needs: the run directory, the api-socket, the confinement, the
//! record. [`Launch::start`] starts the process, on the spawner's thread.

mod child_plan;
mod command_line;
mod environment;
mod prepared_confinement;
mod signals;
mod vfork;

use std::ffi::{CString, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};
use tokio::sync::watch;

use super::child::Child;
use super::confinement::{CgroupConfig, Grants, Layer, LayerReport, catches_forks};
use super::leftovers::{self, Record};
use super::output::Log;
use super::output::pump::{self, Pipe};
use super::process_tree::ProcessTree;
use super::run_dir::{RemovedOnDrop, RunDir};
use super::spawned::{Console, SpawnedVmm};
use super::vmm_count::VmmCount;
use super::{Error, Process, VmmConfig, beyond_streams, binary, output, procfs};
use crate::broadcast;
use crate::files::create_private;
use crate::socket::SocketAddress;

use child_plan::ChildPlan;
use prepared_confinement::PreparedConfinement;

/// Everything that is prepared before the process is started.
pub(super) struct Launch {
    binary: PathBuf,
    config: VmmConfig,
    grants: Grants,
    confinement: PreparedConfinement,
    listener: UnixListener,
    api_socket: SocketAddress,
    record: Record,
    /// The file to which the process writes a copy of its `/proc/self/stat`.
    stat: File,
    run_dir: RemovedOnDrop,
    /// Dropped last, after the run directory is removed.
    living: VmmCount,
}

impl Launch {
    pub(super) fn prepare(
        config: VmmConfig,
        grants: Grants,
        living: VmmCount,
    ) -> Result<Launch, Error> {
        let binary = binary::find(&config.binary)?;
        procfs::check().map_err(Error::ProcMasked)?;
        let root = config.prepare_run_root()?;
        leftovers::before_a_spawn(&root)?;
        let run_dir = RunDir::create(&root)?;
        let confinement = PreparedConfinement::prepare(&binary, &config, &grants, &run_dir)?;
        let (listener, api_socket) = run_dir.bind_api_socket(config.keep_socket_names)?;
        let path = run_dir.record();
        let cgroup = confinement.cgroup.as_ref().map(|cgroup| cgroup.path());
        let record = procfs::socket_inode(&listener)
            .and_then(|inode| Record::new(&binary, inode, cgroup))
            .and_then(|record| record.write(&path).map(|()| record))
            .map_err(Error::run_dir("write the record", &path))?;
        let path = run_dir.stat();
        let stat = create_private(&path).map_err(Error::run_dir("create the record", &path))?;
        Ok(Launch {
            binary,
            config,
            grants,
            confinement,
            listener,
            api_socket,
            record,
            stat,
            run_dir,
            living,
        })
    }

    /// Starts the process. Runs on the spawner thread.
    pub(super) fn start(self) -> Result<(SpawnedVmm, Child), Error> {
        let log_path = self.run_dir.log();
        let log = Log::create(&log_path).map_err(Error::run_dir("create the log", &log_path))?;
        let console_path = self.run_dir.console();
        let console = Log::create(&console_path)
            .map_err(Error::run_dir("create the console's log", &console_path))?;
        let (log, console) = (Arc::new(log), Arc::new(console));
        let (event_sender, events) = broadcast::channel(output::BACKLOG);
        let failed = |source| Error::Spawn {
            binary: self.binary.clone(),
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
        let arguments = command_line::arguments(&self.config, &self.listener, &event_writer);

        let PreparedConfinement {
            restrictions,
            mut cgroup,
            held,
            mut layers,
        } = self.confinement;
        let inherits_all = !self.config.confinement.wants(Layer::Environment);
        let environment =
            environment::environment(self.run_dir.name(), &self.config.env, inherits_all);
        let mut inherited = self.grants.descriptors;
        inherited.extend([self.listener.into(), event_writer, console_writer]);
        let mut plan = ChildPlan {
            program: Some(c_string(self.binary.clone()).map_err(failed)?),
            arguments: c_strings([self.binary.clone().into()].into_iter().chain(arguments))
                .map_err(failed)?,
            environment: environment.map_err(failed)?,
            stdio: [
                dev_null().map_err(failed)?,
                log_writer.try_clone().map_err(failed)?,
                log_writer,
            ],
            inherited,
            record: Some(beyond_streams(self.stat).map_err(failed)?),
            restrictions,
        };
        let id = layers.start(&mut plan)?.map_err(failed)?;
        // This closes this process's copies of the listener and of the pipes' writing ends. So connecting to a dead VMM
        // is refused, and its pipes reach their end when it ends.
        drop(plan);
        let process =
            match Process::open(id.as_raw_nonzero().get() as u32, self.record.listener_inode) {
                Ok(process) => process,
                Err(source) => {
                    child_plan::kill_and_reap(id);
                    return Err(failed(source));
                }
            };

        let layers = layers.into_reports();
        for layer in &layers {
            tracing::debug!(pid = process.pid(), %layer, "a layer of a VMM's confinement");
        }
        let in_force = |layer| {
            layers
                .iter()
                .any(|report| report.layer == layer && report.is_in_force())
        };
        if !in_force(Layer::Cgroup) {
            cgroup = None;
        }
        let process_tree = ProcessTree {
            process,
            mark: self.run_dir.name().to_owned(),
            is_caught: catches_forks(&layers),
            cgroup: cgroup.map(Arc::new),
        };
        pump::watch(
            process_tree.process.pid(),
            vec![event_pipe, log_pipe, console_pipe],
        );
        let (ended_sender, ended) = watch::channel(None);
        let child = Child {
            process_tree: process_tree.clone(),
            log: Arc::clone(&log),
            ended: ended_sender,
            living: self.living,
        };
        let running = SpawnedVmm {
            binary: self.binary,
            process_tree,
            log,
            console,
            events,
            ended,
            api_socket: self.api_socket,
            layers,
            _held: held,
            run_dir: self.run_dir,
        };
        Ok((running, child))
    }
}

/// Determines which layers of confinement this host allows. It starts a trial process with all layers, as for a VMM,
/// which exits at once. `cgroup` configures the parent of the VMMs' control groups. Blocks for some milliseconds.
///
/// # Errors
///
/// - [`Error::Trial`]: the trial process can't be started, even without any layer.
/// - [`Error::Grant`]: the confinement can't be prepared.
pub fn available(cgroup: &CgroupConfig) -> Result<Vec<LayerReport>, Error> {
    let PreparedConfinement {
        restrictions,
        cgroup: _removed_at_the_end,
        held: _,
        mut layers,
    } = PreparedConfinement::trial(cgroup)?;
    let stdio = || -> io::Result<[OwnedFd; 3]> { Ok([dev_null()?, dev_null()?, dev_null()?]) };
    let mut plan = ChildPlan {
        program: None,
        arguments: Vec::new(),
        environment: Vec::new(),
        stdio: stdio().map_err(Error::Grant)?,
        inherited: Vec::new(),
        record: None,
        restrictions,
    };
    layers.start(&mut plan)?.map_err(Error::Trial)?;
    Ok(layers.into_reports())
}

fn dev_null() -> io::Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    beyond_streams(rustix::fs::open(c"/dev/null", flags, Mode::empty())?)
}

fn c_string(text: impl Into<OsString>) -> io::Result<CString> {
    let text = text.into().into_vec();
    CString::new(text).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))
}

fn c_strings(texts: impl Iterator<Item = OsString>) -> io::Result<Vec<CString>> {
    texts.map(c_string).collect()
}
