//! The tier that needs a real VMM, named by `CLOUD_HYPERVISOR`, and KVM.
//!
//! [`native`], [`memory`] and [`failures`] need no guest that answers: they boot kernels of a few bytes. [`cycle`] boots a packed
//! image, named by `CHV_SANDBOX_IMAGE`. What can't run says so and passes.

#![expect(
    clippy::print_stdout,
    reason = "what a real VMM took and said is of interest"
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

/// The real VMM, if one is named and can run here; says so if not.
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

/// Says something past the test harness, which keeps back what a test prints that passes.
fn say(what: impl fmt::Display) {
    // There is nobody left to tell that nobody can be told.
    let _ = writeln!(io::stderr(), "{what}");
}

/// The real VMM, run below `folder`, and able to take snapshots.
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

/// Neither a run directory nor a process is left of any VMM that ran below `folder`. One that was dropped has been
/// killed, and may take a moment to die.
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

/// The processes, this one aside, that have files open in `folder`, or the sockets that were made there: a VMM has its
/// api-socket, whatever became of its name.
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

/// `limit`, multiplied by `CHV_SANDBOX_PATIENCE`: emulated machines need 10 or so.
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
