//! The tests that need KVM and a real VMM, which `CLOUD_HYPERVISOR` names.
//!
//! [`native`], [`memory`], [`failures`], [`qcow2`] and [`tap`] need no guest that answers: they boot kernels of a few
//! bytes. [`cycle`] boots a packed image, which `CHV_SANDBOX_IMAGE` names. A test that can't run says so and passes.

#![expect(
    clippy::print_stdout,
    reason = "the output has the times and answers of a real VMM"
)]

mod cycle;
mod failures;
mod idle_vm;
mod memory;
mod native;
mod nested_state;
mod qcow2;
mod tap;

use std::env;
use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use chv_sandbox::vmm::VmmConfig;

pub(crate) use nested_state::environment as snapshot_environment;

/// The real VMM, if `CLOUD_HYPERVISOR` names one and it can run here. Otherwise says why not, and returns `None`.
pub(crate) fn vmm_binary() -> Option<PathBuf> {
    let Some(binary) = env::var_os("CLOUD_HYPERVISOR") else {
        skipped("CLOUD_HYPERVISOR names no VMM");
        return None;
    };
    if let Err(error) = OpenOptions::new().read(true).write(true).open("/dev/kvm") {
        skipped(format!("/dev/kvm can't be opened: {error}"));
        return None;
    }
    Some(binary.into())
}

pub(crate) fn skipped(why: impl fmt::Display) {
    let thread = thread::current();
    let test = thread.name().unwrap_or("a test");
    say(format!("{test} was skipped: {why}"));
}

/// Writes to standard error directly: the test harness captures what a passing test prints.
fn say(what: impl fmt::Display) {
    // There is no other place to report a failure of standard error.
    let _ = writeln!(io::stderr(), "{what}");
}

/// The configuration of the real VMM, run below `folder` and able to take snapshots.
async fn vmm_config(folder: &Path) -> Option<VmmConfig> {
    let binary = vmm_binary()?;
    Some(VmmConfig {
        env: snapshot_environment(&binary).await,
        binary,
        run_root: run_root(folder),
        ..VmmConfig::default()
    })
}

fn run_root(folder: &Path) -> PathBuf {
    folder.join("run")
}

/// Checks that neither a run directory nor a process is left of any VMM that ran below `folder`. A VMM that was dropped
/// has been killed, and may take a moment to end.
fn assert_nothing_left(folder: &Path) {
    let run_root = run_root(folder);
    let deadline = Instant::now() + patient(Duration::from_secs(5));
    loop {
        let entries = fs::read_dir(&run_root).into_iter().flatten();
        let files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        let processes = processes_with_files_in(&run_root);
        if files.is_empty() && processes.is_empty() {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "left: {files:?}, processes {processes:?}"
        );
        thread::sleep(Duration::from_millis(10));
    }
}

/// The processes, without this one, that have files in `folder` open or sockets that were bound there. A VMM is found
/// by its api-socket even if the socket's name was removed.
pub(crate) fn processes_with_files_in(folder: &Path) -> Vec<u32> {
    let sockets = fs::read_to_string("/proc/net/unix").unwrap();
    let sockets = sockets.lines().filter_map(|line| {
        let mut columns = line.split_whitespace().skip(6);
        let (inode, path) = (columns.next()?, columns.next()?);
        let is_there = Path::new(path).starts_with(folder);
        is_there.then(|| PathBuf::from(format!("socket:[{inode}]")))
    });
    let sockets: Vec<_> = sockets.collect();
    let opens = |pid: &u32| {
        let open = fs::read_dir(format!("/proc/{pid}/fd"));
        let links = open.into_iter().flatten().flatten();
        let mut targets = links.filter_map(|link| fs::read_link(link.path()).ok());
        targets.any(|target| target.starts_with(folder) || sockets.contains(&target))
    };
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| *pid != std::process::id())
        .filter(opens)
        .collect()
}

fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(pid as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

/// `limit`, multiplied by `CHV_SANDBOX_PATIENCE`. Emulated machines need a factor of about 10.
fn patient(limit: Duration) -> Duration {
    limit * patience()
}

fn patience() -> u32 {
    setting("CHV_SANDBOX_PATIENCE", 1)
}

/// A number from the environment.
fn setting(name: &str, default: u32) -> u32 {
    match env::var(name) {
        Ok(text) => text
            .parse()
            .unwrap_or_else(|_| panic!("{name} is no number: {text}")),
        Err(_) => default,
    }
}
