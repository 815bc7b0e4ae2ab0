//! The steps of the demo, on a recorded or a real VMM.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use chv_sandbox::golden::{MintConfig, mint};
use chv_sandbox::limits::TimeLimits;
use chv_sandbox::machine::{Disk, GuestMemory, MachineConfig, VmShape, VmmFiles, VmmSource};
use chv_sandbox::sandbox::{
    ChvSandbox, Error, GoldenOrigin, Reset, Sandbox, SandboxConfig, ToolInvocation,
};
use serde_json::json;

use super::directory::Place;
use super::program::Program;
use crate::cli::Failure;
use crate::cli::interrupt::Interrupt;

/// A step of the demo had another result than it must have.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub(super) struct Unexpected {
    what: String,
    source: Option<Error>,
}

impl Unexpected {
    fn new(what: impl Into<String>) -> Self {
        Unexpected {
            what: what.into(),
            source: None,
        }
    }
}

/// The VMM, disks and limits that the steps run with.
pub(super) struct Stage {
    pub(super) vmm: VmmSource,
    pub(super) shape: VmShape,
    /// The root disk is the first. The demo changes a byte of it, so it must be a copy.
    pub(super) disks: Vec<Disk>,
    pub(super) port: u32,
    pub(super) limits: TimeLimits,
    pub(super) settle: Duration,
}

/// Runs all steps, and reports each to `program`. The sandbox is shut down in every case.
///
/// # Errors
///
/// [`Unexpected`] if a step had another result than it must have, [`Signalled`](crate::cli::interrupt::Signalled) if a
/// signal came, and any other error.
pub(super) async fn play(
    interrupt: &Interrupt,
    place: &Place,
    stage: Stage,
    program: &mut Program,
) -> Result<(), Failure> {
    let golden = place.path().join("golden");
    let root = stage.disks[0].origin.clone();
    let sandbox = sandbox(place, &golden, &stage)?;

    let since = Instant::now();
    let mut mint_config = MintConfig::new(
        MachineConfig {
            vmm: stage.vmm,
            disks: stage.disks,
            memory: GuestMemory::ByPath,
            port: stage.port,
            files: VmmFiles::default(),
            limits: stage.limits,
        },
        stage.shape,
        golden,
    );
    mint_config.settle = stage.settle;
    let minted = mint(mint_config);
    program.minted(since, &interrupt.race(minted).await??);

    let played = interrupt.race(with_sandbox(&sandbox, place, &root, program));
    let played = played.await;
    let since = Instant::now();
    sandbox.shutdown().await;
    let played = played?;
    program.shut_down(since);
    played
}

async fn with_sandbox(
    sandbox: &ChvSandbox,
    place: &Place,
    root: &Path,
    program: &mut Program,
) -> Result<(), Failure> {
    let since = Instant::now();
    sandbox.boot().await?;
    program.booted(since);

    let since = Instant::now();
    let invocation = ToolInvocation::new("echo", json!({ "message": "hello from the guest" }))
        .with_deadline(Duration::from_secs(10));
    let execution = sandbox.execute_tool(invocation).await?;
    program.tool_ran(since, &execution);
    let said = execution.stdout.text();
    if said != "hello from the guest\n" {
        return Err(Unexpected::new(format!("the tool printed {said:?}")).into());
    }

    let since = Instant::now();
    match sandbox.reset().await {
        Ok(Reset::Verified(outcome)) => program.reset_verified(since, &outcome),
        Ok(Reset::Scaffold(_)) => return Err(Unexpected::new("the reset was not verified").into()),
        Err(error @ Error::ResetDivergence(_)) => {
            let unexpected = Unexpected {
                source: Some(error),
                ..Unexpected::new("the reset of an untouched sandbox was not verified")
            };
            return Err(unexpected.into());
        }
        Err(error) => return Err(error.into()),
    }

    let offset = flip_a_byte(root)?;
    program.tampered(root, offset);

    let since = Instant::now();
    match sandbox.reset().await {
        Err(Error::ResetDivergence(failed)) => program.reset_halted(since, &failed, place),
        Err(error) => return Err(error.into()),
        Ok(_) => {
            let what = "the reset passed although a disk was changed";
            return Err(Unexpected::new(what).into());
        }
    }
    match sandbox.boot().await {
        Err(Error::Halted { .. }) => Ok(()),
        _ => Err(Unexpected::new("the halted sandbox accepted a call").into()),
    }
}

fn sandbox(place: &Place, golden: &Path, stage: &Stage) -> Result<ChvSandbox, Failure> {
    let golden = GoldenOrigin::new(golden).evidence_dir(place.path().join("evidence"));
    let config = SandboxConfig::new(golden).limits(stage.limits);
    Ok(ChvSandbox::with_vmm(config, stage.vmm.clone())?)
}

/// Changes one bit in the middle of a file, and returns the offset of its byte.
fn flip_a_byte(path: &Path) -> Result<u64, Failure> {
    let changed = || -> io::Result<u64> {
        let offset = fs::metadata(path)?.len() / 2;
        let file = File::options().read(true).write(true).open(path)?;
        let mut byte = [0];
        file.read_exact_at(&mut byte, offset)?;
        file.write_all_at(&[byte[0] ^ 1], offset)?;
        Ok(offset)
    };
    changed().map_err(|error| format!("cannot change {}: {error}", path.display()).into())
}
