//! Failures before the guest answers, on a real VMM: each has an error that names the cause, and nothing is left.

use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, Instant};

use chv_sandbox::causes::Causes;
use chv_sandbox::limits::TimeLimits;
use chv_sandbox::machine::{
    Disk, DiskFormat, DiskRole, Error, GuestMemory, Machine, MachineConfig, VmShape, VmmSource,
};
use chv_sandbox::sandbox::{
    BootFailure, ChvSandbox, Error as SandboxError, Sandbox, SandboxConfig, ScaffoldOrigin,
    WireState,
};
use chv_sandbox::vmm::VmmConfig;
use tempfile::{TempDir, tempdir};
use tokio::time::timeout;

use super::{assert_nothing_left, idle_vm, kill, processes_with_files_in, run_root, vmm_binary};

/// How long the sandbox waits for a guest that never answers.
const SILENCE: Duration = Duration::from_millis(500);

/// A limit that must not matter: errors that are known at once are not delayed by a limit on the guest.
const LONG: Duration = Duration::from_secs(600);

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a real VMM: set CLOUD_HYPERVISOR"]
async fn a_file_that_is_missing_is_named() {
    let Some(rig) = Rig::new() else { return };
    let missing = rig.folder().join("missing");

    let mut machine = rig.start(LONG).await.unwrap();
    let no_kernel = VmShape {
        kernel: missing.clone(),
        ..idle_vm::shape(rig.folder())
    };
    let no_initramfs = VmShape {
        initramfs: Some(missing.clone()),
        ..idle_vm::shape(rig.folder())
    };
    for shape in [no_kernel, no_initramfs] {
        match machine.boot(&shape).await.unwrap_err() {
            Error::File { path, .. } => assert_eq!(path, missing),
            error => panic!("{error:?}"),
        }
    }
    machine.shutdown().await.unwrap();
    assert_nothing_left(rig.folder());

    let mut config = rig.config(LONG);
    config.disks[1].origin = missing.clone();
    match Machine::start(config).await.unwrap_err() {
        Error::File { path, .. } => assert_eq!(path, missing),
        error => panic!("{error:?}"),
    }
    assert_nothing_left(rig.folder());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a real VMM: set CLOUD_HYPERVISOR"]
async fn a_guest_that_never_answers_is_given_up() {
    let Some(rig) = Rig::new() else { return };
    let mut machine = rig.start(SILENCE).await.unwrap();
    // A boot that fails leaves the VMM without a VM, so the next one can be tried.
    for _ in 0..2 {
        let started = Instant::now();
        let error = machine
            .boot(&idle_vm::shape(rig.folder()))
            .await
            .unwrap_err();
        assert!(matches!(error, Error::GuestSilent { .. }), "{error:?}");
        println!("after {:.1?}: {}", started.elapsed(), said(&error));
    }
    machine.shutdown().await.unwrap();
    assert_nothing_left(rig.folder());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a real VMM: set CLOUD_HYPERVISOR"]
async fn a_guest_that_only_writes_to_its_console_fills_no_disk_and_holds_nothing_up() {
    const LIMIT: u64 = 1024 * 1024;
    let Some(rig) = Rig::new() else { return };
    let mut machine = rig.start(LONG).await.unwrap();
    let log = machine.vmm().run_dir().unwrap().join("console.log");
    let shape = VmShape {
        kernel: idle_vm::flooding_kernel(rig.folder()),
        ..idle_vm::shape(rig.folder())
    };
    // First wait until the guest has written more than the log keeps.
    let cut = async {
        while !fs::read_to_string(&log).unwrap().contains("left out]") {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        error = machine.boot(&shape) => panic!("{error:?}"),
        cut = timeout(LONG, cut) => cut.unwrap(),
    }
    assert!(fs::metadata(&log).unwrap().len() <= LIMIT);
    assert!(machine.console_tail().ends_with("xxxx"));

    // The guest keeps writing, and the VMM still answers its API.
    machine.pause().await.unwrap();
    machine.delete().await.unwrap();
    let mut impatient = rig.start(SILENCE).await.unwrap();
    let error = impatient.boot(&shape).await.unwrap_err();
    assert!(
        said(&error).contains("console ended with:\n  | xxxx"),
        "{error:?}"
    );
    assert!(said(&error).len() < 4096, "{error:?}");
    impatient.shutdown().await.unwrap();
    machine.shutdown().await.unwrap();
    assert_nothing_left(rig.folder());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a real VMM: set CLOUD_HYPERVISOR"]
async fn a_sandbox_whose_guest_never_answers_fails_and_leaves_nothing() {
    let Some(rig) = Rig::new() else { return };
    let sandbox = rig.sandbox(SILENCE);
    for _ in 0..2 {
        let error = sandbox.boot().await.unwrap_err();
        assert_eq!(error.code(), "SANDBOX_BOOT_FAILED");
        let SandboxError::BootFailed(failure) = &error else {
            panic!("{error:?}");
        };
        let BootFailure::Machine(Error::GuestSilent { .. }) = &**failure else {
            panic!("{error:?}");
        };
        assert_eq!(sandbox.state().wire(), WireState::Failed);
        assert_nothing_left(rig.folder());
    }
    sandbox.shutdown().await;
    assert_eq!(sandbox.state().wire(), WireState::NotBooted);
}

/// The guest never answers, and the future of the boot is not polled again once its VM runs, as in a `select!` of an
/// agent.
#[test]
#[ignore = "needs a real VMM: set CLOUD_HYPERVISOR"]
fn a_shutdown_ends_a_boot_that_is_held_and_not_polled() {
    let Some(rig) = Rig::new() else { return };
    let current_thread = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    for runtime in [current_thread, tokio::runtime::Runtime::new()] {
        runtime.unwrap().block_on(async {
            let sandbox = rig.sandbox(LONG);
            let mut boot = sandbox.boot();
            let runs = async {
                let has_a_vm = |pid: u32| has_open(pid, "anon_inode:kvm-vm");
                while !processes_with_files_in(rig.folder())
                    .into_iter()
                    .any(has_a_vm)
                {
                    tokio::task::yield_now().await;
                }
            };
            tokio::select! {
                result = &mut boot => panic!("its guest never answers: {result:?}"),
                () = runs => {}
            }
            let stopped = timeout(Duration::from_secs(60), sandbox.shutdown());
            stopped.await.expect("the shutdown ends");
            assert_nothing_left(rig.folder());
            assert!(matches!(boot.await, Err(SandboxError::ShutDown)));
            assert_eq!(sandbox.state().wire(), WireState::NotBooted);
        });
    }
}

/// Whether a process has a file of this name open.
fn has_open(pid: u32, name: &str) -> bool {
    let open = fs::read_dir(format!("/proc/{pid}/fd"));
    let mut open = open.into_iter().flatten().flatten();
    open.any(|fd| fs::read_link(fd.path()).is_ok_and(|link| link.ends_with(name)))
}

/// The test kills the VMM as soon as an event tells how far the boot has come.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a real VMM: set CLOUD_HYPERVISOR"]
async fn a_vmm_that_dies_during_a_boot_is_noticed_at_every_step() {
    let Some(rig) = Rig::new() else { return };
    let check = async |step: Option<&str>| {
        let mut machine = rig.start(LONG).await.unwrap();
        let pid = machine.vmm().process().unwrap().pid();
        let mut events = machine.vmm().events();
        let shape = idle_vm::shape(rig.folder());
        let error = match step {
            None => {
                kill(pid);
                machine.boot(&shape).await.unwrap_err()
            }
            Some(step) => {
                let killed = async {
                    while events.recv().await.unwrap().event != step {}
                    kill(pid);
                };
                let (booted, ()) = tokio::join!(machine.boot(&shape), killed);
                booted.unwrap_err()
            }
        };
        println!("killed at {}: {}", step.unwrap_or("rest"), said(&error));
        assert!(has_ended(&error), "{step:?}: {error:?}");
        machine.shutdown().await.unwrap();
        assert_nothing_left(rig.folder());
    };
    check(None).await;
    check(Some("booting")).await;
    check(Some("booted")).await;

    let mut machine = rig.start(LONG).await.unwrap();
    let pid = machine.vmm().process().unwrap().pid();
    let shape = idle_vm::shape(rig.folder());
    let waiting = async {
        tokio::time::sleep(SILENCE).await;
        kill(pid);
    };
    let (booted, ()) = tokio::join!(machine.boot(&shape), waiting);
    let error = booted.unwrap_err();
    println!("killed while its guest is waited for: {}", said(&error));
    assert!(has_ended(&error), "{error:?}");
    machine.shutdown().await.unwrap();
    assert_nothing_left(rig.folder());
}

fn has_ended(error: &Error) -> bool {
    matches!(error, Error::VmmDied { .. })
}

/// A real VMM, and two disks for its VM.
struct Rig {
    folder: TempDir,
    vmm: VmmConfig,
}

impl Rig {
    /// A sandbox that waits this long for its guest, which never answers.
    fn sandbox(&self, limit: Duration) -> ChvSandbox {
        let shape = idle_vm::shape(self.folder());
        let scaffold = ScaffoldOrigin::new(shape.kernel, self.disk(DiskRole::Root).origin)
            .vcpus(1)
            .memory_mib(shape.memory_mib);
        let config = SandboxConfig::new(scaffold)
            .vmm(&self.vmm.binary)
            .run_root(run_root(self.folder()))
            .limits(TimeLimits::default().boot(limit));
        ChvSandbox::new(config).unwrap()
    }

    fn new() -> Option<Rig> {
        let folder = tempdir().unwrap();
        let vmm = VmmConfig {
            binary: vmm_binary()?,
            run_root: run_root(folder.path()),
            ..VmmConfig::default()
        };
        Some(Rig { folder, vmm })
    }

    fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn disk(&self, role: DiskRole) -> Disk {
        let origin = self.folder().join(format!("given-{role}.img"));
        File::create(&origin).unwrap().set_len(1 << 20).unwrap();
        Disk {
            role,
            origin,
            readonly: role == DiskRole::Root,
            format: DiskFormat::Raw,
        }
    }

    fn config(&self, boot: Duration) -> MachineConfig {
        MachineConfig {
            vmm: VmmSource::Spawn(self.vmm.clone()),
            disks: vec![self.disk(DiskRole::Root), self.disk(DiskRole::Overlay)],
            memory: GuestMemory::ByPath,
            port: 1024,
            files: idle_vm::files(self.folder()),
            limits: TimeLimits::default().boot(boot),
        }
    }

    async fn start(&self, boot: Duration) -> Result<Machine, Error> {
        Machine::start(self.config(boot)).await
    }
}

/// The error with all its causes, in one line.
fn said(error: &(dyn std::error::Error + 'static)) -> String {
    let texts: Vec<_> = Causes(error).iter().map(ToString::to_string).collect();
    texts.join(": ")
}
