//! [`RealGuest`]: the golden snapshot of a real guest, and configurations of sandboxes.

use std::path::{Path, PathBuf};
use std::time::Duration;

use chv_sandbox::broadcast::{Receiver, RecvError};
use chv_sandbox::golden::{Golden, MintConfig, WarmTool, mint};
use chv_sandbox::guest::protocol::DEFAULT_PORT;
use chv_sandbox::image::Image;
use chv_sandbox::machine::{DiskRole, GuestMemory, MachineConfig, VmShape, VmmFiles, VmmSource};
use chv_sandbox::sandbox::{
    ChvSandbox, Event, GoldenOrigin, Sandbox, SandboxConfig, ToolInvocation,
};
use chv_sandbox::vmm::VmmConfig;
use tempfile::TempDir;

use super::predecessor::Predecessor;
use super::{Outcome, disk, limits, memory_mib, patience};

pub(crate) struct RealGuest {
    folder: TempDir,
    vmm: VmmConfig,
    machine: MachineConfig,
    shape: VmShape,
    golden: Golden,
}

impl RealGuest {
    /// Mints the golden snapshot of the guest in `image`.
    pub(crate) async fn mint(binary: &Path, image: &Path) -> Outcome<RealGuest> {
        RealGuest::mint_warm(binary, image, Vec::new()).await
    }

    /// Like [`mint`](Self::mint), and runs these tools before the snapshot.
    pub(crate) async fn mint_warm(
        binary: &Path,
        image: &Path,
        warm: Vec<WarmTool>,
    ) -> Outcome<RealGuest> {
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
            files: VmmFiles::default(),
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
        let into = folder.path().join("golden");
        let mut mint_config = MintConfig::new(machine.clone(), shape.clone(), into);
        mint_config.warm = warm;
        mint_config.settle = Duration::from_secs(10) * patience()?;
        let golden = mint(mint_config).await?;
        let release = &golden.manifest().release;
        let memory_mib = shape.memory_mib;
        println!("\n{release} with a real guest: 1 vCPU, {memory_mib} MiB; every reset verified");
        Ok(RealGuest {
            folder,
            vmm,
            machine,
            shape,
            golden,
        })
    }

    pub(crate) fn vmm(&self) -> &VmmConfig {
        &self.vmm
    }

    pub(crate) fn golden(&self) -> &Golden {
        &self.golden
    }

    pub(crate) fn memory_mib(&self) -> u64 {
        self.shape.memory_mib
    }

    /// The same guest, controlled as the predecessor did; `None` without `ch-remote`.
    pub(crate) async fn predecessor(&self) -> Outcome<Option<Predecessor>> {
        let folder: PathBuf = self.folder.path().join("predecessor");
        std::fs::create_dir(&folder)?;
        Predecessor::start(&self.vmm, self.machine.clone(), &self.shape, &folder).await
    }

    /// A sandbox's configuration with the defaults, except for the time limits, which are multiplied by the patience.
    pub(crate) fn config(&self) -> Outcome<SandboxConfig> {
        self.config_of(self.origin())
    }

    /// The golden snapshot, with the default settings.
    pub(crate) fn origin(&self) -> GoldenOrigin {
        GoldenOrigin::new(self.golden.directory())
    }

    /// The same configuration, with other settings of the golden snapshot.
    pub(crate) fn config_of(&self, golden: GoldenOrigin) -> Outcome<SandboxConfig> {
        let config = SandboxConfig::new(golden)
            .vmm(&self.vmm.binary)
            .run_root(&self.vmm.run_root);
        Ok(config.limits(limits()?))
    }
}

/// Runs a tool in the guest, and fails unless the tool succeeds.
pub(crate) async fn run_tool(sandbox: &ChvSandbox, tool: ToolInvocation) -> Outcome<()> {
    let ran = sandbox.execute_tool(tool).await?;
    match ran.is_success() {
        true => Ok(()),
        false => Err(format!("the tool {}: {}", ran.outcome, ran.stderr.text()).into()),
    }
}

/// Waits until a spare becomes ready, after those of earlier calls.
pub(crate) async fn a_spare_is_ready(events: &mut Receiver<Event>) -> Outcome<()> {
    loop {
        match events.recv().await {
            Ok(Event::SpareReady) => return Ok(()),
            Ok(Event::SpareFailed(error)) => return Err(error.into()),
            Ok(_) | Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return Err("the sandbox is gone".into()),
        }
    }
}
