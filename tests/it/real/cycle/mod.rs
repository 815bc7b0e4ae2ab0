//! The whole life of a sandbox with a real guest: it is minted, booted, used, reset many times, killed, tampered with
//! and shut down.
//!
//! `CHV_SANDBOX_IMAGE` names an image that was packed with the `sh` tool on, `CHV_SANDBOX_RESETS` says how many resets
//! (100 unless set), `CHV_SANDBOX_MEMORY_MIB` how much memory the guest has (128 unless set). All of it is one test in
//! a process of its own, so that no other test changes the descriptors and the memory that are counted.

mod beneath;
mod clones;
mod copied;
mod death;
mod faults;
mod figures;
mod pool;
mod resets;
mod spares;
mod streams;
mod traces;
mod warm;
mod writes;

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use chv_sandbox::broadcast::Receiver;
use chv_sandbox::broadcast::RecvError;
use chv_sandbox::golden::{Golden, LoadedGolden, MintConfig, mint};
use chv_sandbox::guest::protocol::DEFAULT_PORT;
use chv_sandbox::image::Image;
use chv_sandbox::limits::TimeLimits;
use chv_sandbox::machine::{
    Disk, DiskFormat, DiskRole, GuestMemory, MachineConfig, VmShape, VmmFiles, VmmSource,
};
use chv_sandbox::overlay;
use chv_sandbox::sandbox::{
    ChvSandbox, Event, GoldenOrigin, SandboxConfig, Strategy, ToolsPerReset,
};
use chv_sandbox::vmm::VmmConfig;
use tempfile::TempDir;
use tokio::time::timeout;

use super::{assert_nothing_left, patience, patient, run_root, setting, skipped, vmm_binary};
use figures::{Stopwatch, Usage};

/// Set for the child process, in which the cycle runs alone.
const ALONE: &str = "CHV_SANDBOX_CYCLE_ALONE";

#[test]
#[ignore = "needs a real VMM and an image: set CLOUD_HYPERVISOR and CHV_SANDBOX_IMAGE"]
fn a_sandbox_lives_is_reset_and_leaves_nothing() {
    if vmm_binary().is_none() {
        return;
    }
    if env::var_os("CHV_SANDBOX_IMAGE").is_none() {
        skipped("CHV_SANDBOX_IMAGE names no image with a guest");
        return;
    }
    let status = Command::new(env::current_exe().unwrap())
        .args(["--exact", "real::cycle::alone", "--ignored", "--nocapture"])
        .env(ALONE, "1")
        .status()
        .unwrap();
    assert!(status.success(), "{status}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "runs in a process of its own for another test"]
async fn alone() {
    if env::var_os(ALONE).is_none() {
        skipped("only of use to another test");
        return;
    }
    let stage = Stage::set().await;
    // By now everything that is made once and stays has been made.
    let before = Usage::now();
    writes::land_on_the_disk_and_are_gone_after_a_revert(&stage).await;
    clones::share_no_randomness_and_know_the_time(&stage).await;
    death::is_noticed_and_mended(&stage).await;
    spares::that_die_are_replaced(&stage).await;
    warm::tools_that_ran_before_the_snapshot_have_read_what_they_need(&stage).await;
    streams::carry_what_tools_say_and_files(&stage).await;
    pool::of_four_hands_out_clean_guests(&stage).await;
    assert_nothing_left(stage.folder());
    resets::are_verified_until_a_byte_is_changed(&stage).await;
    copied::memory_is_copied_from_what_cannot_change_or_is_leased(&stage).await;
    beneath::a_qcow2_overlay_takes_what_is_written_above_what_stays().await;
    assert_nothing_left(stage.folder());
    before.assert_descriptors_are_back().await;
    println!("nothing is left: no process, no file below the run root, no descriptor here");
}

/// A VMM, the disks and a golden snapshot.
struct Stage {
    folder: TempDir,
    vmm: VmmConfig,
    golden: Golden,
    minted_by: MintConfig,
}

impl Stage {
    async fn set() -> Stage {
        Stage::with_overlay(|_, image| (image.overlay_disk(), DiskFormat::Raw)).await
    }

    /// A stage whose overlay is the one that `overlay` makes in a folder. It must not write to the image.
    async fn with_overlay(overlay: impl Fn(&Path, &Image) -> (PathBuf, DiskFormat)) -> Stage {
        let folder = tempfile::tempdir().unwrap();
        let vmm = VmmConfig {
            binary: vmm_binary().expect("the test that starts this one has checked it"),
            run_root: run_root(folder.path()),
            ..VmmConfig::default()
        };
        let image =
            env::var_os("CHV_SANDBOX_IMAGE").expect("the test that starts this one has checked it");
        let image = Image::open(image).unwrap();
        // The test will change a byte of the root disk, so it copies the disk: the image belongs to the user.
        let root = folder.path().join("given-root.img");
        overlay::copy_private(&image.root_disk(), &root).unwrap();
        let (overlay, format) = overlay(folder.path(), &image);
        let machine = MachineConfig {
            vmm: VmmSource::Spawn(vmm.clone()),
            disks: vec![
                Disk {
                    role: DiskRole::Root,
                    origin: root,
                    readonly: true,
                    format: DiskFormat::Raw,
                },
                Disk {
                    role: DiskRole::Overlay,
                    origin: overlay,
                    readonly: false,
                    format,
                },
            ],
            memory: GuestMemory::ByPath,
            port: DEFAULT_PORT,
            files: VmmFiles::default(),
            limits: limits(),
        };
        let shape = VmShape {
            kernel: image.kernel(),
            initramfs: Some(image.initramfs()),
            cmdline: image.cmdline().to_owned(),
            vcpus: 1,
            memory_mib: setting("CHV_SANDBOX_MEMORY_MIB", 128).into(),
            cid: 3,
        };
        let mut mint_config = MintConfig::new(machine, shape, folder.path().join("golden"));
        mint_config.settle = patient(Duration::from_secs(10));
        let watch = Stopwatch::start();
        let golden = mint(mint_config.clone()).await.unwrap();
        let release = &golden.manifest().release;
        watch.say(format!("minted on {release}"));
        assert_nothing_left(folder.path());
        Stage {
            folder,
            vmm,
            golden,
            minted_by: mint_config,
        }
    }

    fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The configuration of a machine that is reverted to this stage's golden snapshot.
    fn machine(&self, golden: &LoadedGolden) -> MachineConfig {
        self.machine_of(&self.golden, golden)
    }

    /// The configuration of a machine that is reverted to another golden snapshot.
    fn machine_of(&self, golden: &Golden, loaded: &LoadedGolden) -> MachineConfig {
        MachineConfig {
            vmm: VmmSource::Spawn(self.vmm.clone()),
            disks: golden.disks(),
            memory: loaded.snapshot().memory().clone(),
            port: DEFAULT_PORT,
            files: VmmFiles::of_restore(loaded.snapshot().shape()),
            limits: limits(),
        }
    }

    fn sandbox(&self) -> ChvSandbox {
        self.sandbox_with(Strategy::InPlace, 0)
    }

    fn sandbox_with(&self, strategy: Strategy, spares: u32) -> ChvSandbox {
        self.sandbox_of(self.origin().strategy(strategy).spares(spares))
    }

    /// The golden snapshot, with this stage's folder for evidence.
    fn origin(&self) -> GoldenOrigin {
        GoldenOrigin::new(self.golden.directory()).evidence_dir(self.evidence())
    }

    /// A sandbox on this stage's VMM, with the time limits that the environment asks for.
    fn sandbox_of(&self, golden: GoldenOrigin) -> ChvSandbox {
        ChvSandbox::new(self.config_of(golden)).unwrap()
    }

    fn config_of(&self, golden: GoldenOrigin) -> SandboxConfig {
        SandboxConfig::new(golden)
            .vmm(&self.vmm.binary)
            .run_root(&self.vmm.run_root)
            .tools_per_reset(ToolsPerReset::Many)
            .limits(limits())
    }

    fn evidence(&self) -> PathBuf {
        self.folder().join("evidence")
    }
}

/// Waits for an event that `pick` accepts.
async fn told<T>(events: &mut Receiver<Event>, pick: impl Fn(&Event) -> Option<T>) -> T {
    let found = async {
        loop {
            match events.recv().await {
                Ok(event) => {
                    if let Some(found) = pick(&event) {
                        break found;
                    }
                }
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => panic!("the sandbox is gone"),
            }
        }
    };
    let limit = patient(Duration::from_secs(20));
    timeout(limit, found).await.expect("it is told")
}

fn limits() -> TimeLimits {
    TimeLimits::default().scaled(patience())
}
