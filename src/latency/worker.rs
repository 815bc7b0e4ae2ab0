//! [`CaseSandboxes`]: the sandboxes of a case, and [`Worker`]: the use of one of them.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::spawn_blocking;

use super::iteration::{FailedStep, InStep, Iteration, StepName, micros};
use super::{Case, Error, MAX_RECORDED, Plan, Subject};
use crate::golden::Golden;
use crate::guest::dispatcher::FunctionRun;
use crate::limits::TimeLimits;
use crate::replay::{self, ReplaySandbox};
use crate::sandbox::{
    ChvSandbox, GoldenOrigin, Pool, PoolConfig, PooledSandbox, Sandbox, SandboxConfig, Strategy,
    ToolsPerReset,
};
use crate::vmm::VmmConfig;

/// The sandboxes of a case.
pub(super) enum Fleet {
    Pool(Pool),
    /// Each worker has its own sandbox, because recordings have no pool.
    Recordings(Vec<ReplaySandbox>),
}

/// Runs iterations, with one sandbox at a time.
pub(super) enum Worker {
    Pool {
        pool: Pool,
        /// How long it waits for a sandbox.
        acquire: Duration,
        /// When the pool was opened and began to boot sandboxes.
        opened: Instant,
    },
    Recordings(Arc<ChvSandbox>),
}

/// The state of a worker between its boot and its first iteration.
pub(super) enum Booted {
    /// The worker's first sandbox. It is held until every worker has one, so that all sandboxes boot at the same time.
    Pooled(PooledSandbox),
    Recordings,
}

/// The steps that don't exist on recordings.
pub(super) const NOT_ON_RECORDINGS: [StepName; 2] = [StepName::Acquire, StepName::Release];

impl Fleet {
    /// Opens the golden snapshot or the recordings, and makes one worker for each sandbox that is used at once.
    pub(super) async fn open(plan: &Plan, case: &Case) -> Result<(Fleet, Vec<Worker>), Error> {
        match &plan.subject {
            Subject::Vmms { config, vmm } => open_pool(plan, case, config, vmm.as_deref()).await,
            Subject::Recordings {
                patience,
                diverge_at,
            } => open_recordings(plan, case, *patience, *diverge_at).await,
        }
    }

    /// Ends every VMM. If `complete`, all iterations were made, so an unfinished recording is an error.
    pub(super) async fn close(self, complete: bool) -> Result<(), Error> {
        match self {
            Fleet::Pool(pool) => pool.shutdown().await,
            Fleet::Recordings(recordings) => {
                let mut ends = Vec::new();
                for recording in recordings {
                    ends.push(recording.finish().await);
                }
                if complete {
                    ends.into_iter().collect::<Result<(), replay::Error>>()?;
                }
            }
        }
        Ok(())
    }
}

async fn open_pool(
    plan: &Plan,
    case: &Case,
    config: &SandboxConfig,
    vmm: Option<&VmmConfig>,
) -> Result<(Fleet, Vec<Worker>), Error> {
    let directory = case.golden.clone().unwrap_or_default();
    let mut golden = GoldenOrigin::new(&directory).strategy(case.strategy);
    if case.strategy == Strategy::Fresh {
        golden = golden.spares(case.spares);
    }
    let load = golden.load_options();
    let config = config
        .clone()
        .origin(golden)
        .tools_per_reset(ToolsPerReset::Many);
    let config = PoolConfig::new(config)
        .size(case.at_once)
        .idle(case.at_once);
    let pool = match vmm {
        None => Pool::open(config).await?,
        Some(vmm) => {
            let loaded = spawn_blocking(move || Golden::open(&directory)?.load(&load));
            Pool::with_loaded(config, vmm.clone(), Arc::new(loaded.await??))?
        }
    };
    let opened = Instant::now();
    let worker = || Worker::Pool {
        pool: pool.clone(),
        acquire: plan.acquire,
        opened,
    };
    let workers = (0..case.at_once).map(|_| worker()).collect();
    Ok((Fleet::Pool(pool), workers))
}

async fn open_recordings(
    plan: &Plan,
    case: &Case,
    patience: u32,
    diverge_at: Option<u64>,
) -> Result<(Fleet, Vec<Worker>), Error> {
    let warm_up = plan.warm_up.saturating_mul(u64::from(case.at_once));
    let wanted = plan.iterations.saturating_add(warm_up);
    if wanted > MAX_RECORDED {
        return Err(Error::TooMany { wanted });
    }
    let limits = TimeLimits::default().scaled(patience);
    let (mut recordings, mut workers) = (Vec::new(), Vec::new());
    for index in 0..case.at_once {
        let share = plan.share(index, case.at_once);
        let diverges = diverge_at.filter(|at| index == 0 && (1..=share).contains(at));
        let resets = plan.warm_up + diverges.map_or(share, |at| at - 1);
        let replay = ReplaySandbox::verified()
            .resets(usize::try_from(resets).unwrap_or(usize::MAX))
            .tool("echo", echo)
            .tool("cat", zeros)
            .configure(move |config| config.limits(limits).tools_per_reset(ToolsPerReset::Many));
        let replay = match diverges {
            Some(_) => replay.then_a_divergence(),
            None => replay,
        };
        let recording = replay.start().await?;
        workers.push(Worker::Recordings(recording.sandbox()));
        recordings.push(recording);
    }
    Ok((Fleet::Recordings(recordings), workers))
}

/// Simulates the guest's `echo` without a process.
fn echo(run: &mut FunctionRun) -> io::Result<u8> {
    let message = run.params["message"].as_str().unwrap_or_default();
    writeln!(run.stdout, "{message}")?;
    Ok(0)
}

/// Simulates `cat /dev/zero` without a process. Writing fails once the run is over.
fn zeros(run: &mut FunctionRun) -> io::Result<u8> {
    let zeros = [0; 64 << 10];
    while !run.is_cancelled() {
        run.stdout.write_all(&zeros)?;
    }
    Ok(0)
}

impl Worker {
    /// Boots or acquires the first sandbox. Returns how long that took, in microseconds.
    pub(super) async fn boot(&self) -> Result<(u64, Booted), FailedStep> {
        match self {
            Worker::Pool {
                pool,
                acquire,
                opened,
            } => {
                let sandbox = pool.acquire(*acquire).await.in_step(StepName::Boot)?;
                Ok((micros(*opened), Booted::Pooled(sandbox)))
            }
            Worker::Recordings(sandbox) => {
                let began = Instant::now();
                sandbox.boot().await.in_step(StepName::Boot)?;
                Ok((micros(began), Booted::Recordings))
            }
        }
    }

    pub(super) async fn iterate(&self) -> Result<Iteration, FailedStep> {
        let mut iteration = Iteration::default();
        match self {
            Worker::Pool { pool, acquire, .. } => {
                let began = Instant::now();
                let sandbox = pool.acquire(*acquire).await.in_step(StepName::Acquire)?;
                iteration.add(StepName::Acquire, began);
                iteration.use_sandbox(&*sandbox).await?;
                let began = Instant::now();
                let reset = sandbox.recycle().await.in_step(StepName::Release)?;
                iteration.add(StepName::Release, began);
                iteration.add_reset(reset).in_step(StepName::Release)?;
            }
            Worker::Recordings(sandbox) => {
                iteration.use_sandbox(&**sandbox).await?;
                let reset = sandbox.reset().await.in_step(StepName::Reset)?;
                iteration.add_reset(reset).in_step(StepName::Reset)?;
            }
        }
        Ok(iteration)
    }
}

impl Booted {
    /// Releases the worker's first sandbox, so that the iterations can begin.
    pub(super) async fn let_run(self) -> Result<(), FailedStep> {
        if let Booted::Pooled(sandbox) = self {
            sandbox.recycle().await.in_step(StepName::Boot)?;
        }
        Ok(())
    }
}
