//! [`Predecessor`]: a reset as the predecessor of this crate did it, with one process for each call, copy and digest.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use chv_sandbox::guest::protocol::{ToolDispatch, ToolName};
use chv_sandbox::machine::{DiskRole, Machine, MachineConfig, VmShape, VmmSource};
use chv_sandbox::vmm::{Grants, VSOCK_SOCKET, Vmm, VmmConfig};
use chv_sandbox::vsock::{Channel, ChannelConfig};

use super::used::{Use, tool};
use super::{Outcome, limits};

/// A VM and its snapshot, and `ch-remote`.
///
/// The machine attaches to the VMM, so that the overlay is a named file, which other programs can write.
pub(crate) struct Predecessor {
    vmm: Vmm,
    machine: Machine,
    ch_remote: PathBuf,
    overlay: PathBuf,
    golden: PathBuf,
    source: String,
    channel: ChannelConfig,
}

impl Predecessor {
    /// Boots the VM of `shape` in a VMM that keeps its files in `folder`; `None` without `ch-remote`.
    pub(crate) async fn start(
        vmm: &VmmConfig,
        config: MachineConfig,
        shape: &VmShape,
        folder: &Path,
    ) -> Outcome<Option<Predecessor>> {
        let Some(ch_remote) = env::var_os("CH_REMOTE") else {
            println!("the predecessor: skipped, because CH_REMOTE is not set");
            return Ok(None);
        };
        let port = config.port;
        let directory = folder.join("machine");
        fs::create_dir(&directory)?;
        let vmm = VmmConfig {
            // `ch-remote` and this crate's channel connect by these names.
            keep_socket_names: true,
            ..vmm.clone()
        };
        let vmm = Vmm::spawn_with(&vmm, grants(&config, shape, folder)).await?;
        let config = MachineConfig {
            vmm: VmmSource::Attach {
                api_socket: vmm.client().socket().to_owned(),
                directory: directory.clone(),
            },
            ..config
        };
        let mut machine = Machine::start(config).await?;
        machine.boot(shape).await?;
        machine.close_channel();
        machine.pause().await?;
        let snapshot = folder.join("snapshot");
        fs::create_dir_all(&snapshot)?;
        machine.snapshot(&snapshot).await?;
        let overlay = machine.disk_path(DiskRole::Overlay).ok_or("an overlay")?;
        let golden = folder.join("golden.img");
        fs::copy(&overlay, &golden)?;
        machine.client().vm_resume().await?;
        let channel = ChannelConfig {
            port,
            limits: limits()?.boot(limits()?.settle),
            ..ChannelConfig::new(directory.join(VSOCK_SOCKET))
        };
        Ok(Some(Predecessor {
            ch_remote: ch_remote.into(),
            overlay,
            golden,
            source: format!("source_url=file://{}", snapshot.display()),
            channel,
            vmm,
            machine,
        }))
    }

    /// Makes one reset, up to the guest's answer and the VM's state. Before it, uses the guest, which is not timed.
    pub(crate) async fn reset(&self, use_it: Use) -> Outcome<Duration> {
        if let Use::Tool = use_it {
            let channel = Channel::open(&self.channel).await?;
            let ran = channel.dispatch(echo()?, limits()?.query).await?.result;
            if ran.exit_code != 0 {
                return Err(format!("the tool ended with {}", ran.exit_code).into());
            }
            channel.close();
        }
        let began = Instant::now();
        self.remote(&["shutdown"])?;
        self.remote(&["delete"])?;
        run("cp", [&self.golden, &self.overlay])?;
        self.remote(&["restore", &self.source])?;
        run("sha256sum", [&self.overlay])?;
        self.remote(&["resume"])?;
        let channel = Channel::open(&self.channel).await?;
        channel.hello(limits()?.query).await?;
        self.remote(&["info"])?;
        let took = began.elapsed();
        channel.close();
        Ok(took)
    }

    pub(crate) async fn stop(self) {
        self.machine.shutdown().await;
        self.vmm.shutdown().await;
    }

    fn remote(&self, arguments: &[&str]) -> Outcome<()> {
        let socket = self.machine.client().socket().as_os_str();
        let head = [OsStr::new("--api-socket"), socket];
        run(
            &self.ch_remote,
            head.into_iter().chain(arguments.iter().map(OsStr::new)),
        )
    }
}

/// The files that its VMM may open: the kernel, initramfs and disks of the VM, and `folder`.
fn grants(config: &MachineConfig, shape: &VmShape, folder: &Path) -> Grants {
    let disks = config.disks.iter().map(|disk| &disk.origin);
    let reads = disks.chain([&shape.kernel]).chain(&shape.initramfs);
    Grants {
        reads: reads.cloned().collect(),
        writes: vec![folder.to_owned()],
        ..Grants::default()
    }
}

fn echo() -> Outcome<ToolDispatch> {
    let tool = tool()?;
    Ok(ToolDispatch {
        command_id: tool.command_id,
        tool: ToolName::new(&tool.tool)?,
        params: tool.params,
        deadline_ms: tool.deadline_ms,
    })
}

fn run(
    program: impl AsRef<OsStr>,
    arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
) -> Outcome<()> {
    let program = program.as_ref();
    let status = Command::new(program)
        .args(arguments)
        .stdout(Stdio::null())
        .status()?;
    match status.success() {
        true => Ok(()),
        false => Err(format!("{}: {status}", program.display()).into()),
    }
}
