//! Tests of [`sandbox`](chv_sandbox::sandbox) as an agent uses it: on a stand-in for the VMM, with a stand-in for the
//! guest and real disk files. [`Scene`] holds the three.

mod agent;
mod agent_death;
mod agent_memory;
mod attacks;
mod bad_input;
mod beneath;
mod confinement;
mod executable;
mod faults;
mod files;
mod given_up;
mod guest;
mod hanging;
mod http;
mod life;
mod lost;
mod matrix;
mod memory;
mod memory_of_vmm;
mod model;
mod one_tool;
mod orders;
mod outage;
mod outcomes;
mod pool;
mod reset;
mod running;
mod scaffold;
pub(crate) mod script;
mod silence;
mod spares;
pub(crate) mod stage;
mod standby;
mod tamper;
mod tools;
mod vmm;
mod warm;

use std::error::Error as _;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use chv_sandbox::broadcast;
use chv_sandbox::causes::Causes;
use chv_sandbox::golden::{Golden, MintConfig, MintError, mint};
use chv_sandbox::guest::dispatcher::Toolbox;
use chv_sandbox::guest::stand_in::StandIn;
use chv_sandbox::limits::TimeLimits;
use chv_sandbox::machine::{
    Disk, DiskFormat, DiskRole, GuestMemory, MachineConfig, VmShape, VmmFiles, VmmSource,
};
use chv_sandbox::sandbox::{
    ChvSandbox, Error, Event, GoldenOrigin, Sandbox, SandboxConfig, SandboxOrigin, ScaffoldOrigin,
    ToolExecution, ToolInvocation, ToolsPerReset, WireState,
};
use serde_json::json;
use tempfile::TempDir;
use tokio::time::timeout;

use stage::Stage;
use vmm::Vmm;

/// A limit that is reached only when a test fails, or by a guest that a test made silent.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A VMM, a guest and the files of an image, each of which a test can manipulate.
pub(crate) struct Scene {
    pub(crate) directory: TempDir,
    pub(crate) vmm: Vmm,
    pub(crate) guest: StandIn,
    /// The limits of the sandboxes that this scene makes from now on.
    pub(crate) limits: TimeLimits,
}

/// Limits that no working guest or VMM reaches.
pub(crate) fn generous() -> TimeLimits {
    TimeLimits::default()
        .boot(PATIENCE)
        .handshake(PATIENCE)
        .settle(PATIENCE)
        .query(PATIENCE)
        .tool_grace(PATIENCE)
        .vmm_start(3 * PATIENCE)
        .vmm_lifecycle(PATIENCE)
}

impl Scene {
    pub(crate) fn new() -> Scene {
        Scene::of(Toolbox::built_in())
    }

    /// A scene whose guest has these tools. Transferred files go into the scene's folder `work`.
    pub(crate) fn of(toolbox: Toolbox) -> Scene {
        let directory = TempDir::with_prefix("sandbox-").unwrap();
        let path = directory.path();
        fs::create_dir(path.join("machine")).unwrap();
        let pattern: Vec<u8> = (0..0x1_0000).map(|at| (at / 256 + at) as u8).collect();
        fs::write(path.join("root.img"), &pattern).unwrap();
        fs::write(path.join("overlay.img"), &pattern[0x100..]).unwrap();
        fs::write(path.join("kernel"), "stands for a real one\n").unwrap();
        fs::create_dir(path.join("work")).unwrap();
        let files = path.canonicalize().unwrap().join("work");
        let toolbox = toolbox.with_files_directory(files.to_str().unwrap());
        let socket = path.join("machine/vsock.sock");
        let guest = StandIn::with_toolbox(socket, toolbox.unwrap()).unwrap();
        let vmm = Vmm::start(path.join("api.sock"), guest.clone());
        Scene {
            directory,
            vmm,
            guest,
            limits: generous().vmm_transfer(PATIENCE),
        }
    }

    /// A scene with a golden snapshot.
    pub(crate) async fn minted() -> Scene {
        Scene::minted_with(Toolbox::built_in()).await
    }

    /// A scene with a golden snapshot, whose guest has these tools.
    pub(crate) async fn minted_with(toolbox: Toolbox) -> Scene {
        let scene = Scene::of(toolbox);
        scene.mint().await.unwrap();
        scene.vmm.take_asked();
        scene
    }

    /// A scene with a golden snapshot, and a sandbox that has booted from it.
    pub(crate) async fn booted() -> (Scene, ChvSandbox) {
        let scene = Scene::minted().await;
        let sandbox = scene.sandbox();
        sandbox.boot().await.unwrap();
        scene.vmm.take_asked();
        (scene, sandbox)
    }

    /// A stage for VMMs that are processes. They follow the script of [`vmm`](Self::vmm).
    pub(crate) fn stage(&self) -> Stage {
        let script = self.vmm.script();
        Stage::new(self.directory.path(), self.guest.clone(), script.clone())
    }

    /// Makes the later sandboxes wait only half a second for a guest that doesn't answer.
    pub(crate) fn hurry(&mut self) {
        self.limits.settle = Duration::from_millis(500);
        self.limits.query = Duration::from_millis(500);
    }

    pub(crate) async fn mint(&self) -> Result<Golden, MintError> {
        mint(self.mint_config()).await
    }

    pub(crate) fn mint_config(&self) -> MintConfig {
        Scene::mint_config_at(self.directory.path(), self.source())
    }

    /// The configuration of a mint for a scene in this directory, which may belong to another process.
    pub(crate) fn mint_config_at(directory: &Path, vmm: VmmSource) -> MintConfig {
        let machine = MachineConfig {
            vmm,
            disks: Scene::disks_at(directory),
            memory: GuestMemory::ByPath,
            port: 1024,
            files: VmmFiles::default(),
            limits: generous(),
        };
        let shape = VmShape {
            kernel: directory.join("kernel"),
            initramfs: None,
            cmdline: "console=hvc0".to_owned(),
            vcpus: 1,
            memory_mib: 16,
            cid: 3,
        };
        let mut config = MintConfig::new(machine, shape, directory.join("golden"));
        config.settle = PATIENCE;
        config
    }

    pub(crate) fn disks_at(directory: &Path) -> Vec<Disk> {
        let disk = |role, name, readonly| Disk {
            role,
            origin: directory.join(name),
            readonly,
            format: DiskFormat::Raw,
        };
        vec![
            disk(DiskRole::Root, "root.img", true),
            disk(DiskRole::Overlay, "overlay.img", false),
        ]
    }

    pub(crate) fn source(&self) -> VmmSource {
        VmmSource::Attach {
            api_socket: self.vmm.socket().to_owned(),
            directory: self.path("machine"),
        }
    }

    /// The golden snapshot that [`mint`](Self::mint) makes.
    pub(crate) fn golden(&self) -> GoldenOrigin {
        GoldenOrigin::new(self.path("golden")).evidence_dir(self.path("evidence"))
    }

    /// The disks and the kernel for scaffold mode.
    pub(crate) fn scaffold(&self) -> ScaffoldOrigin {
        ScaffoldOrigin::new(self.path("kernel"), self.path("root.img"))
            .overlay(self.path("overlay.img"))
    }

    pub(crate) fn config_of(&self, origin: impl Into<SandboxOrigin>) -> SandboxConfig {
        SandboxConfig::new(origin)
            // Most tests look at what one tool leaves for the next. The default, one tool for each reset, is tested in
            // `one_tool`.
            .tools_per_reset(ToolsPerReset::Many)
            .limits(self.limits)
    }

    pub(crate) fn config(&self) -> SandboxConfig {
        self.config_of(self.golden())
    }

    pub(crate) fn sandbox(&self) -> ChvSandbox {
        self.sandbox_of(self.config())
    }

    pub(crate) fn sandbox_of(&self, config: SandboxConfig) -> ChvSandbox {
        ChvSandbox::with_vmm(config, self.source()).unwrap()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Checks that the machine's directory is empty.
    #[track_caller]
    pub(crate) fn assert_machine_is_empty(&self) {
        let left = fs::read_dir(self.path("machine")).unwrap();
        let left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
        assert!(left.is_empty(), "{left:?} is left");
        assert_eq!(self.vmm.state(), None, "no VM is left");
    }
}

/// Changes one bit in the middle of a file.
pub(crate) fn flip_a_bit(path: &Path) {
    let file = fs::File::options().read(true).write(true).open(path);
    let file = file.unwrap();
    let offset = file.metadata().unwrap().len() / 2;
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 1], offset).unwrap();
}

pub(crate) fn invocation(command_id: &str, tool: &str) -> ToolInvocation {
    ToolInvocation::new(tool, json!({ "message": command_id }))
        .with_command_id(command_id)
        .with_deadline(PATIENCE)
}

pub(crate) async fn echo(sandbox: &dyn Sandbox, message: &str) -> Result<ToolExecution, Error> {
    sandbox.execute_tool(invocation(message, "echo")).await
}

/// Checks that a tool ran, and that its output is `message`.
#[track_caller]
pub(crate) fn assert_echoed(execution: Result<ToolExecution, Error>, message: &str) {
    let execution = execution.unwrap();
    assert!(execution.is_success(), "{execution:?}");
    assert_eq!(execution.stdout.text(), format!("{message}\n"));
}

/// The states among the events so far, in order and without repetitions.
pub(crate) fn states(events: &mut broadcast::Receiver<Event>) -> Vec<WireState> {
    let mut states = Vec::new();
    while let Ok(event) = events.try_recv() {
        if let Event::State(state) = event
            && states.last() != Some(&state.wire())
        {
            states.push(state.wire());
        }
    }
    states
}

/// Waits for the next event that `pick` accepts.
pub(crate) async fn told<T>(
    events: &mut broadcast::Receiver<Event>,
    mut pick: impl FnMut(&Event) -> Option<T>,
) -> T {
    let told = async {
        loop {
            let event = events.recv().await.unwrap();
            if let Some(picked) = pick(&event) {
                break picked;
            }
        }
    };
    timeout(PATIENCE, told).await.expect("it is told in time")
}

/// Waits for the event that a spare could not be made. Returns its error with all causes.
pub(crate) async fn no_spare(events: &mut broadcast::Receiver<Event>) -> String {
    told(events, |event| match event {
        Event::SpareFailed(error) => Some(chain(error)),
        _ => None,
    })
    .await
}

/// An error with its causes, in one line.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    Causes(error).to_string()
}

/// Checks that the halted sandbox refuses everything but a shutdown, and can be booted after that.
pub(crate) async fn assert_halted(sandbox: &ChvSandbox) {
    assert_eq!(sandbox.state().wire(), WireState::Failed);
    let refused = [
        sandbox.boot().await.unwrap_err(),
        sandbox.reset().await.unwrap_err(),
        echo(sandbox, "halted").await.unwrap_err(),
    ];
    for error in refused {
        assert!(matches!(error, Error::Halted { .. }), "{error}");
        assert!(error.to_string().contains("shut it down"), "{error}");
        assert_eq!(error.code(), "SANDBOX_HALTED");
        assert!(error.source().is_none());
    }
    sandbox.shutdown().await;
    assert_eq!(sandbox.state().wire(), WireState::NotBooted);
}
