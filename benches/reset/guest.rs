//! Whole resets of a real guest, by each strategy.

use std::path::Path;
use std::time::{Duration, Instant};

use chv_sandbox::broadcast::Receiver;
use chv_sandbox::broadcast::RecvError;
use chv_sandbox::golden::{Golden, MintConfig, mint};
use chv_sandbox::guest::protocol::DEFAULT_PORT;
use chv_sandbox::image::Image;
use chv_sandbox::machine::{
    DiskRole, FurtherFiles, GuestMemory, MachineConfig, VmShape, VmmSource,
};
use chv_sandbox::sandbox::{
    ChvSandbox, Event, MemoryMode, Reset, ResetReport, Sandbox, SandboxConfig, Standby, Strategy,
    Timeouts,
};
use chv_sandbox::vmm::VmmConfig;

use super::measure::{Row, print};
use super::predecessor::Predecessor;
use super::used::{Use, tool, writing_tool};
use super::{Outcome, disk, limits, memory_mib, millis, patience};

/// In a smaller guest, a tool that writes 64 MiB of memory is killed.
const WRITING_NEEDS_MIB: u64 = 256;

/// What is measured of a real guest.
#[derive(Clone, Copy)]
pub(crate) enum Part {
    /// Resets by each strategy, against the predecessor's.
    Strategies,
    /// A reset and a tool that writes much memory, mapped against copied.
    Writing,
}

pub(crate) async fn run(binary: &Path, image: &Path, part: Part, resets: usize) -> Outcome<()> {
    let folder = tempfile::tempdir()?;
    let image = Image::open(image)?;
    let vmm = VmmConfig {
        binary: binary.to_owned(),
        run_root: folder.path().join("run"),
        ..VmmConfig::default()
    };
    let machine = MachineConfig {
        vmm: VmmSource::Spawn(vmm.clone()),
        disks: vec![
            disk(DiskRole::Root, image.root_disk(), true),
            disk(DiskRole::Overlay, image.overlay_disk(), false),
        ],
        memory: GuestMemory::ByPath,
        port: DEFAULT_PORT,
        files: FurtherFiles::default(),
        limits: limits()?,
    };
    let shape = VmShape {
        kernel: image.kernel(),
        initramfs: Some(image.initramfs()),
        cmdline: image.cmdline().to_owned(),
        vcpus: 1,
        memory_mib: memory_mib()?,
        cid: 3,
    };
    let golden = mint(MintConfig {
        machine: machine.clone(),
        shape: shape.clone(),
        any_guest: false,
        sign_with: None,
        settle: Duration::from_secs(10) * patience()?,
        into: folder.path().join("golden"),
    });
    let golden = golden.await?;
    let release = &golden.manifest().release;
    let memory_mib = memory_mib()?;
    println!("\n{release} with a real guest: 1 vCPU, {memory_mib} MiB; every reset verified");

    match part {
        Part::Strategies => {
            let theirs = folder.path().join("predecessor");
            std::fs::create_dir(&theirs)?;
            let machine = MachineConfig {
                // `ch-remote` and this crate's channel reach it by its names.
                vmm: VmmSource::Spawn(VmmConfig {
                    keep_socket_names: true,
                    ..vmm.clone()
                }),
                files: FurtherFiles {
                    writes: vec![theirs.clone()],
                    largest: shape.memory_bytes(),
                    ..FurtherFiles::of_boot(&shape)
                },
                ..machine
            };
            strategies(machine, &shape, &theirs, &golden, &vmm, resets).await
        }
        Part::Writing if memory_mib < WRITING_NEEDS_MIB => {
            println!(
                "a tool that writes 64 MiB of memory: skipped, it needs a guest of {WRITING_NEEDS_MIB} MiB"
            );
            Ok(())
        }
        Part::Writing => writing(&golden, &vmm, resets).await,
    }
}

/// Resets by each strategy, against the predecessor's.
async fn strategies(
    machine: MachineConfig,
    shape: &VmShape,
    theirs: &Path,
    golden: &Golden,
    vmm: &VmmConfig,
    resets: usize,
) -> Outcome<()> {
    let predecessor = Predecessor::start(machine, shape, theirs).await?;
    for use_it in [Use::Nothing, Use::Tool] {
        println!("\n{}", use_it.name());
        let mut rows = Vec::new();
        if let Some(predecessor) = &predecessor {
            let mut row = Row::new("ch-remote, cp, sha256sum");
            for round in 0..=resets {
                let took = predecessor.reset(use_it).await?;
                // The first one only warms up.
                if round > 0 {
                    row.add(took);
                }
            }
            rows.push(row);
        }
        for (name, strategy) in [
            ("in place", Strategy::InPlace),
            ("respawn", Strategy::Respawn),
            (
                "standby, refill outside",
                Strategy::Standby(Standby::default()),
            ),
        ] {
            rows.push(strategy_row(name, strategy, use_it, golden, vmm, resets).await?);
        }
        print(&rows);
        if let [theirs, in_place, _, standby] = &rows[..] {
            let ratio = |row: &Row| row.median().as_secs_f64() / theirs.median().as_secs_f64();
            let (in_place, standby) = (ratio(in_place), ratio(standby));
            println!(
                "in place / predecessor: {in_place:.2} (goal: at most 0.33 at 128 MiB, 0.30 at 512)"
            );
            println!("standby / predecessor: {standby:.2} (goal: at most 0.2)");
        }
    }
    if let Some(predecessor) = predecessor {
        predecessor.stop().await;
    }
    Ok(())
}

/// From a reset in place to the end of a tool that writes much memory: mapped and copied in turns, so that both rows see
/// the same machine.
async fn writing(golden: &Golden, vmm: &VmmConfig, resets: usize) -> Outcome<()> {
    println!("\na reset in place, and a tool that writes 64 MiB of memory");
    let mut rows = [
        ("copied", MemoryMode::Copied),
        ("mapped", MemoryMode::Mapped),
    ]
    .map(|(name, memory)| (memory, Row::new(name)));
    let mut sandboxes = Vec::new();
    for (memory, _) in &rows {
        let sandbox = ChvSandbox::new(SandboxConfig {
            memory: *memory,
            ..config(Strategy::InPlace, golden, vmm)?
        })?;
        sandbox.boot().await?;
        sandboxes.push(sandbox);
    }
    for round in 0..=resets {
        for ((_, row), sandbox) in rows.iter_mut().zip(&sandboxes) {
            let took = reset_and_write(sandbox).await?;
            // The first one only warms up.
            if round > 0 {
                row.add(took);
            }
        }
    }
    for sandbox in &sandboxes {
        sandbox.shutdown().await;
    }
    let [copied, mapped] = rows.map(|(_, row)| row);
    let ratio = mapped.median().as_secs_f64() / copied.median().as_secs_f64();
    print(&[copied, mapped]);
    println!("mapped / copied: {ratio:.2} (goal: at most 1.1 at 512 MiB)");
    Ok(())
}

async fn reset_and_write(sandbox: &ChvSandbox) -> Outcome<Duration> {
    let began = Instant::now();
    sandbox.reset().await?;
    let ran = sandbox.execute_tool(writing_tool()?).await?;
    match ran.exit_code {
        0 => Ok(began.elapsed()),
        code => Err(format!("the tool ended with {code}: {}", ran.stderr).into()),
    }
}

async fn strategy_row(
    name: &str,
    strategy: Strategy,
    use_it: Use,
    golden: &Golden,
    vmm: &VmmConfig,
    resets: usize,
) -> Outcome<Row> {
    let sandbox = ChvSandbox::new(config(strategy, golden, vmm)?)?;
    let mut events = sandbox.subscribe();
    sandbox.boot().await?;
    let mut row = Row::new(name);
    let mut steps = Steps::default();
    for round in 0..=resets {
        if let Use::Tool = use_it {
            run_a_tool(&sandbox).await?;
        }
        if let Strategy::Standby(_) = strategy {
            a_spare_waits(&mut events).await?;
        }
        let Reset::Verified(outcome) = sandbox.reset().await? else {
            return Err("a reset was not verified".into());
        };
        // The first one only warms up.
        if round > 0 {
            row.add(Duration::from_micros(outcome.report.micros));
            steps.add(&outcome.report);
        }
    }
    sandbox.shutdown().await;
    println!("{name}: p50 of {steps}");
    Ok(row)
}

/// Somebody's work, which the reset takes back.
async fn run_a_tool(sandbox: &ChvSandbox) -> Outcome<()> {
    match sandbox.execute_tool(tool()?).await?.exit_code {
        0 => Ok(()),
        code => Err(format!("the tool ended with {code}").into()),
    }
}

async fn a_spare_waits(events: &mut Receiver<Event>) -> Outcome<()> {
    loop {
        match events.recv().await {
            Ok(Event::SpareReady) => return Ok(()),
            Ok(Event::SpareFailed(error)) => return Err(format!("{error:?}").into()),
            Ok(_) | Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return Err("the sandbox is gone".into()),
        }
    }
}

fn config(strategy: Strategy, golden: &Golden, vmm: &VmmConfig) -> Outcome<SandboxConfig> {
    let (usual, factor) = (Timeouts::default(), u64::from(patience()?));
    Ok(SandboxConfig {
        vmm: vmm.binary.clone(),
        run_root: Some(vmm.run_root.clone()),
        strategy,
        timeouts: Timeouts {
            boot_ms: usual.boot_ms * factor,
            handshake_ms: usual.handshake_ms * factor,
            settle_ms: usual.settle_ms * factor,
            query_ms: usual.query_ms * factor,
            grace_ms: usual.grace_ms * factor,
            ..usual
        },
        ..SandboxConfig::with_golden(golden.directory())
    })
}

/// The times of each step.
#[derive(Default)]
struct Steps(Vec<(&'static str, Vec<u64>)>);

impl Steps {
    fn add(&mut self, report: &ResetReport) {
        for step in &report.steps {
            match self.0.iter_mut().find(|(name, _)| *name == step.name) {
                Some((_, times)) => times.push(step.micros),
                None => self.0.push((step.name, vec![step.micros])),
            }
        }
    }
}

impl std::fmt::Display for Steps {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (at, (name, times)) in self.0.iter().enumerate() {
            let mut times = times.clone();
            times.sort_unstable();
            let median = Duration::from_micros(times[times.len() / 2]);
            let comma = if at > 0 { ", " } else { "" };
            write!(f, "{comma}{name} {:.1} ms", millis(median))?;
        }
        Ok(())
    }
}
