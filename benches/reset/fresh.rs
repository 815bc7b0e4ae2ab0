//! Measures a reset into a new VMM, with an idle VM, compared with raw calls on one VMM that keeps running.
//!
//! The new VMM is empty and was started ahead; no spare is ready. The bench does the steps of a reset from the call to
//! a running VM in the same order, with this crate's machines. The later steps need answers, which an idle guest
//! doesn't give. The raw calls copy no disk and verify nothing.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use chv_sandbox::api;
use chv_sandbox::machine::{Machine, RevertOptions, Steps};
use chv_sandbox::overlay::{AccessPolicy, HeldFile, HeldFileAttempt, UnleasedFile, record};
use tokio::task::spawn_blocking;

use super::Outcome;
use super::idle_snapshot::{IdleSnapshot, vmm_below};
use super::measure::{Row, print};
use super::raw::RawConnection;
use super::step_times::StepTimes;

const MEMORY_MIB: u64 = 1024;

pub(crate) async fn run(binary: &Path, resets: usize) -> Outcome<()> {
    let folder = tempfile::tempdir()?;
    let vmm = vmm_below(folder.path(), binary).await;
    let snapshot = IdleSnapshot::take(&vmm, &folder.path().join("vm"), MEMORY_MIB, 0).await?;
    let mut by_hand = ByHand::start(&snapshot).await?;
    let mut ours = Ours::start(&snapshot).await?;
    let mut rows = [
        Row::new("raw, one VMM: delete, restore, resume, state"),
        Row::new("this crate, a new VMM, disks and maps proved"),
    ];
    let mut step_times = [StepTimes::default(), StepTimes::default()];
    for round in 0..=resets {
        let turns = [by_hand.reset()?, ours.reset().await?];
        // The first reset only warms up.
        if round > 0 {
            for (at, (took, steps)) in turns.into_iter().enumerate() {
                rows[at].add(took);
                step_times[at].add(steps.so_far());
            }
        }
        ours.start_ahead(&snapshot).await?;
    }
    let release = ours.serving.release().await?;
    by_hand.machine.shutdown().await;
    ours.shutdown().await;
    println!(
        "\n{release} with a VM that only idles, {MEMORY_MIB} MiB, mapped: a reset in a new VMM, started ahead, to VM state running"
    );
    let [raw_steps, our_steps] = step_times;
    println!("raw: p50 of {raw_steps}");
    println!("this crate: p50 of {our_steps}");
    print(&rows);
    let ratio = rows[1].median().as_secs_f64() / rows[0].median().as_secs_f64();
    println!("this crate / raw: {ratio:.2} (goal: at most 2.0)");
    Ok(())
}

/// One VMM, whose VM is deleted and then restored from the folder that a machine has prepared.
struct ByHand {
    machine: Machine,
    connection: RawConnection,
    folder: PathBuf,
}

impl ByHand {
    async fn start(snapshot: &IdleSnapshot) -> Outcome<ByHand> {
        let (mut machine, options) = snapshot.machine(snapshot.mapped()).await?;
        machine.stage(&options, &mut Steps::start()).await?;
        machine.client().send(api::vm_resume()).await?;
        let readable = machine.vmm().readable_dir().ok_or("it was spawned")?;
        Ok(ByHand {
            connection: RawConnection::open(machine.client())?,
            folder: readable.join("snapshot"),
            machine,
        })
    }

    fn reset(&mut self) -> Outcome<(Duration, Steps)> {
        let began = Instant::now();
        let mut steps = Steps::start();
        self.connection.delete()?;
        steps.end("delete");
        self.connection.restore(&self.folder)?;
        steps.end("restore");
        self.connection.resume()?;
        steps.end("resume");
        self.connection.info()?;
        steps.end("vm_state");
        Ok((began.elapsed(), steps))
    }
}

/// The VMM that serves, and the next one.
struct Ours {
    serving: Machine,
    next: Option<Machine>,
    options: RevertOptions,
    origin: Arc<Origin>,
}

impl Ours {
    async fn start(snapshot: &IdleSnapshot) -> Outcome<Ours> {
        let (mut serving, options) = snapshot.machine(snapshot.mapped()).await?;
        serving.stage(&options, &mut Steps::start()).await?;
        serving.client().send(api::vm_resume()).await?;
        let mut ours = Ours {
            serving,
            next: None,
            options,
            origin: Arc::new(Origin::hold(snapshot.origin())?),
        };
        ours.start_ahead(snapshot).await?;
        Ok(ours)
    }

    async fn start_ahead(&mut self, snapshot: &IdleSnapshot) -> Outcome<()> {
        let (machine, _) = snapshot.machine(snapshot.mapped()).await?;
        self.next = Some(machine);
        Ok(())
    }

    async fn reset(&mut self) -> Outcome<(Duration, Steps)> {
        let began = Instant::now();
        let mut steps = Steps::start();
        let origin = Arc::clone(&self.origin);
        spawn_blocking(move || origin.ensure()).await??;
        steps.end("ensure");
        let next = self.next.take().ok_or("a machine was started ahead")?;
        next.vmm().prove_identity()?;
        steps.end("identity");
        self.serving.kill().await?;
        let served = std::mem::replace(&mut self.serving, next);
        // In the background, as in a reset.
        let removed = spawn_blocking(move || drop(served));
        steps.end("kill");
        self.serving.stage(&self.options, &mut steps).await?;
        let client = self.serving.client();
        client.send(api::vm_resume()).await?;
        steps.end("resume");
        client.send(api::vm_info()).await?;
        steps.end("vm_state");
        let took = began.elapsed();
        removed.await?;
        Ok((took, steps))
    }

    async fn shutdown(self) {
        self.serving.shutdown().await;
        if let Some(next) = self.next {
            next.shutdown().await;
        }
    }
}

/// A disk of a golden snapshot. It is held if a lease is granted, otherwise digested each time.
enum Origin {
    Held(HeldFile),
    Unleased(UnleasedFile),
}

impl Origin {
    fn hold(path: &Path) -> Outcome<Origin> {
        let recorded = record(path, AccessPolicy::PreferMapped)?.digest;
        match HeldFile::take(path, recorded.length, &recorded.fsverity)? {
            HeldFileAttempt::Held(hold) => Ok(Origin::Held(hold)),
            HeldFileAttempt::Unleased(file) => Ok(Origin::Unleased(file)),
            HeldFileAttempt::OtherLength(length) => {
                Err(format!("the disk's origin has {length} bytes now").into())
            }
        }
    }

    fn ensure(&self) -> Result<(), String> {
        match self {
            Origin::Held(hold) if hold.is_held() => Ok(()),
            Origin::Held(hold) => Err(format!("{} was changed", hold.path().display())),
            Origin::Unleased(file) => file.fsverity().map(drop).map_err(|error| error.to_string()),
        }
    }
}
