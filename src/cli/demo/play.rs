//! The play itself, on whichever stage.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use chv_sandbox::golden::{MintConfig, mint};
use chv_sandbox::machine::{Disk, GuestMemory, Limits, MachineConfig, VmShape, VmmSource};
use chv_sandbox::sandbox::{
    ChvSandbox, Error, Reset, Sandbox, SandboxConfig, Timeouts, ToolInvocation,
};
use serde_json::json;
use tempfile::TempDir;

use super::program::Program;
use crate::cli::Failure;

/// Where the play leaves its files.
pub(super) struct Place {
    path: PathBuf,
    /// Removes it in the end, if nobody asked for it.
    _temporary: Option<TempDir>,
}

impl Place {
    pub(super) fn new(directory: Option<&Path>) -> Result<Self, Failure> {
        match directory {
            None => {
                let temporary = TempDir::with_prefix("chv-demo-")?;
                Ok(Place {
                    path: fs::canonicalize(temporary.path())?,
                    _temporary: Some(temporary),
                })
            }
            Some(path) => {
                let path = std::path::absolute(path)?;
                let made = DirBuilder::new().mode(0o700).create(&path);
                made.map_err(|error| format!("cannot create {}: {error}", path.display()))?;
                Ok(Place {
                    path,
                    _temporary: None,
                })
            }
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// A new private folder in it.
    pub(super) fn folder(&self, name: &str) -> io::Result<PathBuf> {
        let path = self.path.join(name);
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(path)
    }
}

/// What the stage provides.
pub(super) struct Stage {
    pub(super) vmm: VmmSource,
    pub(super) shape: VmShape,
    /// The root first. The play changes a byte of it, so it has to be a copy.
    pub(super) disks: Vec<Disk>,
    pub(super) port: u32,
    pub(super) limits: Limits,
    pub(super) settle: Duration,
}

/// Plays it all, and says so in `program`. An error if anything came out otherwise than it should.
pub(super) async fn play(
    place: &Place,
    stage: Stage,
    program: &mut Program,
) -> Result<(), Failure> {
    let golden = place.path().join("golden");
    let root = stage.disks[0].origin.clone();
    let sandbox = sandbox(place, &golden, &stage)?;

    let since = Instant::now();
    let minted = mint(MintConfig {
        machine: MachineConfig {
            vmm: stage.vmm,
            disks: stage.disks,
            memory: GuestMemory::ByPath,
            port: stage.port,
            limits: stage.limits,
        },
        shape: stage.shape,
        any_guest: false,
        sign_with: None,
        settle: stage.settle,
        into: golden,
    });
    program.minted(since, &minted.await?);

    let played = with_sandbox(&sandbox, &root, program).await;
    let since = Instant::now();
    sandbox.shutdown().await;
    program.shut_down(since);
    played
}

async fn with_sandbox(
    sandbox: &ChvSandbox,
    root: &Path,
    program: &mut Program,
) -> Result<(), Failure> {
    let since = Instant::now();
    sandbox.boot().await?;
    program.booted(since);

    let since = Instant::now();
    let execution = sandbox.execute_tool(ToolInvocation {
        command_id: "demo-1".to_owned(),
        tool: "echo".to_owned(),
        params: json!({ "message": "hello from the guest" }),
        deadline_ms: 10_000,
    });
    let execution = execution.await?;
    program.tool_ran(since, &execution);
    if execution.stdout != "hello from the guest\n" {
        return Err(format!("the tool said {:?}", execution.stdout).into());
    }

    let since = Instant::now();
    match sandbox.reset().await? {
        Reset::Verified(outcome) => program.reset_verified(since, &outcome),
        Reset::Scaffold(_) => return Err("the reset was not verified".into()),
    }

    let offset = flip_a_byte(root)?;
    program.tampered(root, offset);

    let since = Instant::now();
    match sandbox.reset().await {
        Err(Error::ResetDivergence(failed)) => program.reset_halted(since, &failed),
        Err(error) => return Err(error.into()),
        Ok(_) => return Err("the reset passed although a disk was changed".into()),
    }
    match sandbox.boot().await {
        Err(Error::NotReady { halted: true, .. }) => Ok(()),
        _ => Err("the halted sandbox takes a call".into()),
    }
}

fn sandbox(place: &Place, golden: &Path, stage: &Stage) -> Result<ChvSandbox, Failure> {
    let millis = |duration: Duration| duration.as_millis() as u64;
    let config = SandboxConfig {
        evidence_dir: Some(place.path().join("evidence")),
        timeouts: Timeouts {
            boot_ms: millis(stage.limits.boot),
            handshake_ms: millis(stage.limits.handshake),
            settle_ms: millis(stage.limits.settle),
            query_ms: millis(stage.limits.query),
            vmm_ms: millis(stage.limits.vmm.lifecycle),
            restore_ms: millis(stage.limits.vmm.transfer),
            ..Timeouts::default()
        },
        ..SandboxConfig::with_golden(golden)
    };
    Ok(ChvSandbox::with_vmm(config, stage.vmm.clone())?)
}

/// Changes one bit in the middle of a file. Where.
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
