//! Reverts machines to a snapshot whose guest can't answer. Its memory is mapped, copied or read by its path, and all
//! checks but those of the guest agree.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use chv_sandbox::api;
use chv_sandbox::api::types::VmState;
use chv_sandbox::limits::TimeLimits;
use chv_sandbox::machine::{
    CopySource, Disk, DiskFormat, DiskRole, GuestMemory, Machine, MachineConfig, MemoryReading,
    OpenInVmm, Reading, RevertOptions, SNAPSHOT_FILES, Snapshot, SnapshotBytes, Steps, VmShape,
    VmmSource,
};
use chv_sandbox::overlay::{self, ImmutableFile, LeasedFile};
use chv_sandbox::vmm::VmmConfig;
use tempfile::tempdir;

use super::{assert_nothing_left, idle_vm, patient, say, vmm_config};

/// A snapshot of a VM, and the files that it was made from.
struct Taken {
    vmm: VmmConfig,
    shape: VmShape,
    disks: Vec<Disk>,
    folder: PathBuf,
}

impl Taken {
    /// Boots a VM of `shape`, and takes its snapshot once `ready` accepts the end of its console. Returns `None` if
    /// that never happens.
    async fn take(
        folder: &Path,
        vmm: VmmConfig,
        shape: VmShape,
        ready: impl Fn(&str) -> bool,
    ) -> Option<Taken> {
        let disk = |role: DiskRole, readonly| {
            let origin = folder.join(format!("given-{role}.img"));
            File::create(&origin).unwrap().set_len(1 << 20).unwrap();
            Disk {
                role,
                origin,
                readonly,
                format: DiskFormat::Raw,
            }
        };
        let taken = Taken {
            vmm,
            shape,
            disks: vec![disk(DiskRole::Root, true), disk(DiskRole::Overlay, false)],
            folder: folder.join("snapshot"),
        };
        let mut machine = taken.start(&GuestMemory::ByPath).await;
        machine.boot_vm(&taken.shape).await.unwrap();
        if !until(&machine, ready).await {
            machine.shutdown().await.unwrap();
            return None;
        }
        machine.pause().await.unwrap();
        fs::create_dir(&taken.folder).unwrap();
        machine.snapshot(&taken.folder).await.unwrap();
        machine.shutdown().await.unwrap();
        overlay::make_sparse(&taken.memory()).unwrap();
        Some(taken)
    }

    fn memory(&self) -> PathBuf {
        let [_, _, memory] = SNAPSHOT_FILES;
        self.folder.join(memory)
    }

    async fn start(&self, memory: &GuestMemory) -> Machine {
        let config = MachineConfig {
            vmm: VmmSource::Spawn(self.vmm.clone()),
            disks: self.disks.clone(),
            memory: memory.clone(),
            port: 1024,
            files: idle_vm::files(self.folder.parent().unwrap()),
            limits: TimeLimits::default().settle(Duration::from_secs(1)),
        };
        Machine::start(config).await.unwrap()
    }

    fn options(&self, memory: GuestMemory) -> RevertOptions {
        let [config, state, _] = SNAPSHOT_FILES;
        let read = |name: &str| fs::read(self.folder.join(name)).unwrap();
        let bytes = SnapshotBytes {
            config: read(config),
            state: read(state),
        };
        let (folder, shape) = (&self.folder, self.shape.clone());
        let snapshot = Snapshot::new(folder, bytes, shape, &self.disks, memory);
        RevertOptions::new(Arc::new(snapshot.unwrap()))
    }
}

/// Waits until `wanted` accepts the end of the console. Returns whether it did.
async fn until(machine: &Machine, wanted: impl Fn(&str) -> bool) -> bool {
    let deadline = Instant::now() + patient(Duration::from_secs(5));
    while !wanted(&machine.console_tail()) {
        if Instant::now() > deadline {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    true
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a real VMM: set CLOUD_HYPERVISOR"]
async fn a_machine_is_reverted_with_its_memory_from_each_source() {
    let folder = tempdir().unwrap();
    let Some(vmm) = vmm_config(folder.path()).await else {
        return;
    };
    let shape = idle_vm::shape(folder.path());
    let taken = Taken::take(folder.path(), vmm, shape, |_| true)
        .await
        .unwrap();
    let sealed = Arc::new(ImmutableFile::seal(&taken.memory()).unwrap());
    let mut sources = vec![
        GuestMemory::Mapped(Arc::clone(&sealed)),
        GuestMemory::Copied(CopySource::Immutable(Arc::clone(&sealed))),
        GuestMemory::ByPath,
    ];
    match LeasedFile::take(&taken.memory()) {
        Ok(leased) => sources.push(GuestMemory::Copied(CopySource::Leased(Arc::new(leased)))),
        Err(error) => say(format!("a leased source was skipped: {error}")),
    }
    for memory in sources {
        let mut machine = taken.start(&memory).await;
        let options = taken.options(memory.clone());
        for _ in 0..2 {
            let mut steps = Steps::start();
            let staged = machine.stage(&options, &mut steps).await.unwrap();
            let readings = machine.resume_and_query(staged, &mut steps).await.unwrap();
            for disk in &readings.disks {
                assert_eq!(disk.open_in_vmm, OpenInVmm::Yes, "{}", disk.role);
            }
            match (&memory, &readings.memory) {
                (GuestMemory::Mapped(_), MemoryReading::Mapped { found: Ok(()), .. })
                | (GuestMemory::ByPath, MemoryReading::ByPath)
                | (GuestMemory::Copied(_), MemoryReading::Copied { .. }) => {}
                (memory, reading) => panic!("{memory:?}: {reading:?}"),
            }
            assert!(matches!(readings.guest, Reading::Silent(_)));
            assert!(matches!(
                readings.vm_state,
                Reading::Answered(VmState::Running)
            ));
            let steps: Vec<_> = steps.so_far().iter().map(ToString::to_string).collect();
            println!("reverted: {}", steps.join(", "));
        }
        machine.shutdown().await.unwrap();
    }
    assert_nothing_left(folder.path());
}

/// The lower region of a guest's memory has 3 GiB, so a guest of this size has a second region.
const TWO_REGIONS_MIB: u64 = 3072 + 64;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a real VMM: set CLOUD_HYPERVISOR"]
async fn a_guest_with_two_regions_finds_its_own_bytes_in_both() {
    let folder = tempdir().unwrap();
    let Some(vmm) = vmm_config(folder.path()).await else {
        return;
    };
    let shape = VmShape {
        kernel: idle_vm::two_regions_kernel(folder.path()),
        memory_mib: TWO_REGIONS_MIB,
        ..idle_vm::shape(folder.path())
    };
    let wrote = |console: &str| console.ends_with("LH\n");
    let Some(taken) = Taken::take(folder.path(), vmm, shape, wrote).await else {
        say(
            "a guest with two regions was skipped: this machine's KVM runs no 32-bit guest with paging",
        );
        return;
    };
    let sealed = Arc::new(ImmutableFile::seal(&taken.memory()).unwrap());
    let memory = GuestMemory::Mapped(sealed);
    let options = taken.options(memory.clone());
    assert_eq!(options.snapshot.regions().len(), 2);
    let mut machine = taken.start(&memory).await;
    for _ in 0..2 {
        let staged = machine.stage(&options, &mut Steps::start()).await.unwrap();
        drop(staged);
        let before = machine.console_tail().len();
        machine.client().send(api::vm_resume()).await.unwrap();
        let more = |console: &str| console.len() >= before + 6;
        assert!(until(&machine, more).await, "the guest goes on");
        let console = machine.console_tail();
        assert!(
            console[before..].chars().all(|char| "LH\n".contains(char)),
            "{console:?}"
        );
        assert!(
            console.ends_with("LH\n") || console[before..].contains("LH\n"),
            "{console:?}"
        );
        assert!(!console[before..].contains("LL"), "{console:?}");
    }
    machine.shutdown().await.unwrap();
    assert_nothing_left(folder.path());
}
