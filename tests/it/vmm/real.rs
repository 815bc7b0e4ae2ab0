//! The VMM process with the real VMM that `CLOUD_HYPERVISOR` names.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use chv_sandbox::api::{Operation, Request};
use chv_sandbox::limits::TimeLimits;
use chv_sandbox::vmm::{Action, Exit, ShutdownStep, Vmm, VmmConfig, reclaim};
use tempfile::tempdir;
use tokio::time::timeout;

use super::agent::{Agent, runs};
use super::left_behind::wait_until_gone;
use super::{GENEROUS, SHORT, fake, is_empty};
use crate::real::vmm_binary;

fn config(run_root: &Path, binary: PathBuf) -> VmmConfig {
    VmmConfig {
        binary,
        run_root: run_root.to_owned(),
        ..VmmConfig::default()
    }
}

#[tokio::test]
#[ignore = "needs a real VMM: set CLOUD_HYPERVISOR"]
async fn it_starts_answers_and_is_stopped_by_each_step() {
    let Some(binary) = vmm_binary() else { return };
    let root = tempdir().unwrap();
    let check = async |limits: TimeLimits, stopped: bool, step: ShutdownStep, exit: Exit| {
        let config = VmmConfig {
            limits,
            ..config(root.path(), binary.clone())
        };
        let start = Instant::now();
        let vmm = Vmm::spawn(&config).await.unwrap();
        let release = vmm.client().release().await.unwrap();
        let process = vmm.process().unwrap();
        println!("{release} ready after {:?}", start.elapsed());
        assert!(process.holds_listener().unwrap());
        assert!(!process.open_files().unwrap().is_empty());
        if stopped {
            let pid = rustix::process::Pid::from_raw(process.pid() as i32).unwrap();
            rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
        }
        let report = vmm.shutdown().await;
        println!("{release} {report:?}");
        assert_eq!((report.step, report.exit), (step, Some(exit)));
        assert!(is_empty(root.path()));
        assert!(!runs(process.pid()));
    };

    let limits = TimeLimits::default();
    check(limits, false, ShutdownStep::Api, Exit::Code(0)).await;
    let hasty = limits.vmm_shutdown(Duration::ZERO);
    check(hasty, false, ShutdownStep::Terminate, Exit::Code(0)).await;
    // A stopped process stands for one that is stuck.
    let stuck = limits.vmm_shutdown(SHORT).vmm_terminate(SHORT);
    check(stuck, true, ShutdownStep::Kill, Exit::Signal(9)).await;
}

#[tokio::test]
#[ignore = "needs a real VMM: set CLOUD_HYPERVISOR"]
async fn its_events_are_read() {
    let Some(binary) = vmm_binary() else { return };
    let root = tempdir().unwrap();
    let vmm = Vmm::spawn(&config(root.path(), binary)).await.unwrap();
    let mut events = vmm.events();
    let nothing_to_boot = "{\"payload\": {\"kernel\": \"/nonexistent\"}}";
    for (operation, body) in [
        (Operation::VmCreate, Some(nothing_to_boot.into())),
        (Operation::VmDelete, None),
    ] {
        let request = Request::raw(operation, body);
        vmm.client().send(request).await.unwrap();
    }
    // The event of the VMM's own shutdown is not expected, because the VMM often exits before it has written it.
    loop {
        let event = timeout(GENEROUS, events.recv()).await.unwrap().unwrap();
        println!("{event:?}");
        if (&*event.source, &*event.event) == ("vm", "deleted") {
            break;
        }
    }
    vmm.shutdown().await;
}

#[test]
#[ignore = "needs a real VMM: set CLOUD_HYPERVISOR"]
fn it_outlives_the_runtime_that_spawned_it() {
    let Some(binary) = vmm_binary() else { return };
    let root = tempdir().unwrap();
    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
    };
    let config = config(root.path(), binary);
    let outer = runtime();
    let spawned = outer.spawn_blocking(move || runtime().block_on(Vmm::spawn(&config)).unwrap());
    let vmm = outer.block_on(spawned).unwrap();
    drop(outer);
    runtime().block_on(async {
        timeout(SHORT, vmm.ended()).await.unwrap_err();
        assert_eq!(vmm.shutdown().await.step, ShutdownStep::Api);
    });
}

#[test]
#[ignore = "needs a real VMM: set CLOUD_HYPERVISOR"]
fn nothing_is_left_of_it_after_its_agent_was_killed() {
    let Some(binary) = vmm_binary() else { return };
    let root = tempdir().unwrap();
    let mut agent = Agent::start(&config(root.path(), binary));
    agent.kill();
    wait_until_gone(agent.vmm);
    let found = reclaim(root.path()).unwrap();
    println!("{found:?}");
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].action, Action::Removed);
    assert!(!runs(agent.vmm));
    assert!(is_empty(root.path()));
}

#[test]
#[ignore = "needs a real VMM: set CLOUD_HYPERVISOR"]
fn it_is_killed_if_it_survived_its_agent() {
    let Some(binary) = vmm_binary() else { return };
    let root = tempdir().unwrap();
    let mut agent = Agent::start(&fake::surviving_real(root.path(), &binary));
    agent.kill();
    assert!(runs(agent.vmm));
    let found = reclaim(root.path()).unwrap();
    assert_eq!(
        found[0].action,
        Action::Killed {
            pids: vec![agent.vmm]
        }
    );
    assert!(!runs(agent.vmm));
    assert!(is_empty(root.path()));
}
