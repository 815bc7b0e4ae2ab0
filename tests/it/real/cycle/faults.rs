//! Faults at each step of a sandbox with a real VMM and a real guest: the VMM that serves, or the spare that waits, is
//! killed or stopped at several moments of the step, or files are taken away before it.
//!
//! For each cell: the call ends within its limits with a typed error or with what was asked for, no reset is verified
//! by accident, and a shutdown leaves no process and no file.

use std::env;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use chv_sandbox::sandbox::{
    ChvSandbox, Error, Sandbox, SandboxState, Strategy, ToolInvocation, TransferOptions,
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tokio::time::{Instant, sleep, timeout};

use super::{Stage, Stopwatch, limits};
use crate::real::{assert_nothing_left, patient, processes_with_files_in, skipped, vmm_binary};

/// A call of a sandbox that a fault meets.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Step {
    Boot,
    Tool,
    Stream,
    Push,
    Reset,
    Refill,
    Shutdown,
}

/// What happens to VMMs. Every process that runs below the run root is meant, as at a boot there may be one or two.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    Killed(When),
    Stopped(When),
    /// The run directories are moved away before the step.
    NoRunDirectory,
    /// The golden snapshot is moved away before the step.
    NoGoldenSnapshot,
}

/// Before the step, or once a part of the time has passed that the step takes.
#[derive(Clone, Copy, Debug, PartialEq)]
enum When {
    Before,
    Early,
    Halfway,
    Late,
}

const STEPS: [Step; 7] = [
    Step::Boot,
    Step::Tool,
    Step::Stream,
    Step::Push,
    Step::Reset,
    Step::Refill,
    Step::Shutdown,
];

const FAULTS: [Fault; 9] = [
    Fault::Killed(When::Before),
    Fault::Killed(When::Early),
    Fault::Killed(When::Halfway),
    Fault::Killed(When::Late),
    Fault::Stopped(When::Before),
    Fault::Stopped(When::Early),
    Fault::Stopped(When::Late),
    Fault::NoRunDirectory,
    Fault::NoGoldenSnapshot,
];

const STRATEGIES: [(Strategy, u32); 2] = [(Strategy::Fresh, 1), (Strategy::InPlace, 0)];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a real VMM and an image: set CLOUD_HYPERVISOR and CHV_SANDBOX_IMAGE"]
async fn end_in_typed_errors_and_leave_nothing() {
    if vmm_binary().is_none() {
        return;
    }
    if env::var_os("CHV_SANDBOX_IMAGE").is_none() {
        skipped("CHV_SANDBOX_IMAGE names no image with a guest");
        return;
    }
    let stage = &Stage::set().await;
    let watch = Stopwatch::start();
    let (mut survived, mut failed) = (0, 0);
    for (strategy, spares) in STRATEGIES {
        for step in STEPS {
            let took = measure(stage, strategy, spares, step).await;
            for fault in FAULTS {
                let said = Cell {
                    strategy,
                    step,
                    fault,
                }
                .run(stage, spares, took)
                .await;
                survived += 1;
                failed += usize::from(said.is_err());
            }
        }
    }
    watch.say(format!(
        "{survived} faults at {} steps survived; {failed} calls failed with typed errors",
        STEPS.len()
    ));
}

/// A sandbox of one test, with limits that a stopped VMM exceeds soon.
fn sandbox(stage: &Stage, strategy: Strategy, spares: u32) -> ChvSandbox {
    let short = patient(Duration::from_secs(2));
    let mut limits = limits();
    (limits.vmm_lifecycle, limits.vmm_transfer) = (short, short);
    (limits.vmm_probe, limits.vmm_start) = (short, short);
    (limits.settle, limits.query, limits.boot) = (short, short, short);
    (limits.frame_idle, limits.frame_total, limits.tool_grace) = (short, short, short);
    let config = stage
        .config_of(stage.origin().strategy(strategy).spares(spares))
        .limits(limits);
    ChvSandbox::new(config).unwrap()
}

/// How long the step takes when nothing happens to it.
async fn measure(stage: &Stage, strategy: Strategy, spares: u32, step: Step) -> Duration {
    let sandbox = sandbox(stage, strategy, spares);
    if step != Step::Boot {
        sandbox.boot().await.unwrap();
    }
    let began = Instant::now();
    let said = step.take(stage, &sandbox).await;
    let took = began.elapsed();
    said.unwrap_or_else(|error| panic!("{step:?} without a fault: {error:?}"));
    sandbox.shutdown().await;
    assert_nothing_left(stage.folder());
    took
}

impl Step {
    async fn take(self, stage: &Stage, sandbox: &ChvSandbox) -> Result<(), Error> {
        match self {
            Step::Boot => drop(sandbox.boot().await?),
            Step::Tool => drop(
                sandbox
                    .execute_tool(sh("seq 2000 | sort -n | tail -n 1"))
                    .await?,
            ),
            Step::Stream => {
                let mut tool = sandbox.start(sh("seq 200000")).await?;
                drop(tool.collect_output(4096).await?);
            }
            Step::Push => {
                let tree = stage.folder().join("to-be-pushed");
                fs::create_dir_all(&tree).unwrap();
                for n in 0..20 {
                    fs::write(tree.join(n.to_string()), [n; 40_000]).unwrap();
                }
                drop(
                    sandbox
                        .push(&tree, "in", &TransferOptions::default())
                        .await?,
                );
            }
            Step::Reset => assert!(sandbox.reset().await?.is_verified()),
            // Once with the spare of the boot, once with the one that was made beside the tool.
            Step::Refill => {
                assert!(sandbox.reset().await?.is_verified());
                drop(sandbox.execute_tool(sh("true")).await?);
                assert!(sandbox.reset().await?.is_verified());
            }
            Step::Shutdown => sandbox.shutdown().await,
        }
        Ok(())
    }
}

fn sh(script: &str) -> ToolInvocation {
    ToolInvocation::new("sh", json!({ "script": script })).with_deadline(super::traces::deadline())
}

#[derive(Debug)]
struct Cell {
    strategy: Strategy,
    step: Step,
    fault: Fault,
}

impl Cell {
    async fn run(&self, stage: &Stage, spares: u32, took: Duration) -> Result<(), Error> {
        let Cell {
            strategy,
            step,
            fault,
        } = *self;
        let sandbox = sandbox(stage, strategy, spares);
        if step != Step::Boot {
            sandbox
                .boot()
                .await
                .unwrap_or_else(|error| panic!("{self:?}: {error:?}"));
        }
        let moved = fault.takes_files(stage);
        let call = step.take(stage, &sandbox);
        let befalls = fault.befalls_vmms(stage, took);
        let limit = patient(Duration::from_secs(120));
        let (said, ()) = timeout(limit, async { tokio::join!(call, befalls) })
            .await
            .unwrap_or_else(|_| panic!("{self:?}: the call hangs"));
        if let (Fault::NoGoldenSnapshot, Some((from, to))) = (fault, &moved) {
            fs::rename(from, to).unwrap();
        }
        self.assert_state(&sandbox, &said);
        timeout(limit, sandbox.shutdown())
            .await
            .unwrap_or_else(|_| panic!("{self:?}: the shutdown hangs"));
        assert!(
            matches!(sandbox.state(), SandboxState::NotBooted),
            "{self:?}"
        );
        if let (Fault::NoRunDirectory, Some((from, _))) = (fault, &moved) {
            let processes = processes_with_files_in(from);
            assert!(processes.is_empty(), "{self:?}: left are {processes:?}");
            fs::remove_dir_all(from).unwrap();
        }
        assert_nothing_left(stage.folder());
        said
    }

    fn assert_state(&self, sandbox: &ChvSandbox, said: &Result<(), Error>) {
        let state = sandbox.state();
        let is_at_rest = !matches!(state, SandboxState::Booting | SandboxState::Resetting);
        assert!(is_at_rest, "{self:?}: {state:?}");
        match said {
            Err(Error::ResetDivergence(_) | Error::ResetTimeout(_)) => {
                assert!(state.is_halted(), "{self:?}: {state:?}");
            }
            Err(Error::BootFailed { .. } | Error::ResetFailed { .. }) => {
                let has_failed = matches!(state, SandboxState::Failed { .. });
                assert!(has_failed, "{self:?}: {state:?}");
            }
            Err(error) => assert!(error.code().contains('_'), "{self:?}: {error:?}"),
            Ok(()) => {}
        }
    }
}

impl Fault {
    /// Moves files away. Returns where they are now and where they were.
    fn takes_files(self, stage: &Stage) -> Option<(PathBuf, PathBuf)> {
        let taken = match self {
            Fault::NoRunDirectory => stage.vmm.run_root.clone(),
            Fault::NoGoldenSnapshot => stage.golden.directory().to_owned(),
            Fault::Killed(_) | Fault::Stopped(_) => return None,
        };
        let aside = taken.with_extension("moved");
        fs::rename(&taken, &aside).unwrap();
        Some((aside, taken))
    }

    /// Sends a signal to the VMMs that run at that moment.
    async fn befalls_vmms(self, stage: &Stage, took: Duration) {
        let (signal, when) = match self {
            Fault::Killed(when) => (Signal::KILL, when),
            Fault::Stopped(when) => (Signal::STOP, when),
            Fault::NoRunDirectory | Fault::NoGoldenSnapshot => return,
        };
        match when {
            When::Before => {}
            When::Early => sleep(took / 10).await,
            When::Halfway => sleep(took / 2).await,
            When::Late => sleep(took * 9 / 10).await,
        }
        for pid in processes_with_files_in(&stage.vmm.run_root) {
            // It may have ended since.
            _ = kill_process(Pid::from_raw(pid as i32).unwrap(), signal);
        }
    }
}
