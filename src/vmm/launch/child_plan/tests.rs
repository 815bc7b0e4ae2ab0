//! Starts whose parent is a process of its own: this test binary again, with one of its ignored tests.

use std::env;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use memmap2::{Advice, MmapMut};
use rustix::fs::{CWD, mkfifoat};

use super::*;
use crate::vmm::launch::dev_null;

const LIMIT: Duration = Duration::from_secs(60);

/// The variable that names the FIFO to the process that plays the parent.
const FIFO: &str = "CHILD_PLAN_FIFO";

/// The variable that names the file for the number of page faults.
const COUNT: &str = "CHILD_PLAN_COUNT";

fn plan(program: Option<&CStr>, arguments: &[&CStr]) -> ChildPlan {
    ChildPlan {
        program: program.map(CStr::to_owned),
        arguments: arguments
            .iter()
            .map(|&argument| argument.to_owned())
            .collect(),
        environment: Vec::new(),
        stdio: std::array::from_fn(|_| dev_null().unwrap()),
        inherited: Vec::new(),
        record: None,
        restrictions: Restrictions::default(),
    }
}

/// This test binary, which will run one of its ignored tests.
fn parent(test: &str) -> Command {
    let mut parent = Command::new(env::current_exe().unwrap());
    let test = format!("vmm::launch::child_plan::tests::{test}");
    parent.args(["--exact", &test, "--ignored", "--nocapture"]);
    parent.stdout(Stdio::null()).stderr(Stdio::null());
    parent
}

/// Opens a FIFO for writing. Its reading end must be open.
fn writer(path: &str, flags: OFlags) -> OwnedFd {
    rustix::fs::open(
        path,
        OFlags::WRONLY | OFlags::CLOEXEC | flags,
        Mode::empty(),
    )
    .unwrap()
}

#[test]
#[ignore = "plays a parent for another test"]
fn start_behind_a_full_fifo() {
    let Ok(fifo) = env::var(FIFO) else { return };
    let full = writer(&fifo, OFlags::NONBLOCK);
    while rustix::io::write(&full, &[1; 4096]).is_ok() {}
    while rustix::io::write(&full, &[1]).is_ok() {}
    drop(full);
    let mut plan = plan(Some(c"/bin/sleep"), &[c"sleep", c"1000"]);
    // The write of the process id waits until the FIFO is read, which is before the signal is requested.
    plan.restrictions.cgroup = Some(writer(&fifo, OFlags::empty()));
    plan.inherited = vec![writer(&fifo, OFlags::empty())];
    plan.start().unwrap();
}

#[test]
fn a_child_whose_parent_dies_before_the_death_signal_is_requested_ends() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("fifo");
    mkfifoat(CWD, &path, Mode::RUSR | Mode::WUSR).unwrap();
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let reader = rustix::fs::open(&path, flags, Mode::empty()).unwrap();
    let mut parent = parent("start_behind_a_full_fifo")
        .env(FIFO, &path)
        .spawn()
        .unwrap();

    let deadline = Instant::now() + LIMIT;
    let child = loop {
        if let Some(child) = first_child(parent.id()) {
            break child;
        }
        assert!(Instant::now() < deadline, "no child was started");
        std::thread::yield_now();
    };
    parent.kill().unwrap();
    let status = parent.wait().unwrap();
    assert_eq!(status.signal(), Some(libc::SIGKILL), "{status}");

    // A program would keep the FIFO open, so its end means that the child has ended without executing one.
    let limit = Timespec::try_from(LIMIT).unwrap();
    let mut bytes = [0; 4096];
    loop {
        let mut ready = [PollFd::new(&reader, PollFlags::IN)];
        if poll(&mut ready, Some(&limit)).unwrap() == 0 {
            rustix::process::kill_process(child, Signal::KILL).unwrap();
            panic!("the child goes on without a parent");
        }
        if rustix::io::read(&reader, &mut bytes).unwrap() == 0 {
            break;
        }
    }
}

/// The first child of any thread of a process.
fn first_child(process: u32) -> Option<Pid> {
    let threads = std::fs::read_dir(format!("/proc/{process}/task")).ok()?;
    threads.flatten().find_map(|thread| {
        let children = std::fs::read_to_string(thread.path().join("children")).ok()?;
        Pid::from_raw(children.split(' ').next()?.parse().ok()?)
    })
}

#[test]
#[ignore = "plays a parent for another test"]
fn write_before_and_after_a_start() {
    const PAGE: usize = 4096;
    if env::var(COUNT).is_err() {
        return;
    }
    let mut memory = MmapMut::map_anon(16 << 20).unwrap();
    memory.advise(Advice::NoHugePage).unwrap();
    let mut write = || memory.iter_mut().step_by(PAGE).for_each(|byte| *byte += 1);
    write();
    let before = page_faults();
    plan(None, &[]).start().unwrap();
    write();
    let faults = page_faults() - before;
    std::fs::write(env::var(COUNT).unwrap(), faults.to_string()).unwrap();
}

/// The page faults of this thread that needed no input.
fn page_faults() -> u64 {
    let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
    let fields = stat.rsplit(')').next().unwrap();
    fields.split_whitespace().nth(7).unwrap().parse().unwrap()
}

#[test]
fn a_start_copies_no_memory_of_the_parent() {
    let directory = tempfile::tempdir().unwrap();
    let count = directory.path().join("count");
    let mut parent = parent("write_before_and_after_a_start");
    assert!(parent.env(COUNT, &count).status().unwrap().success());
    let faults = std::fs::read_to_string(count).unwrap();
    let faults: u64 = faults.parse().unwrap();
    // The memory has 4,096 pages, and each would fault after a fork.
    assert!(faults < 1000, "{faults} page faults");
}
