//! [`Machine::start`]: spawns the machine's VMM with its files, or attaches to a VMM that another program runs.

use std::path::Path;

use super::directory::DirectoryLock;
use super::disk::WorkingDisk;
use super::expected_events::ExpectedEvents;
use super::files::{PreparedFiles, give};
use super::layout::Layout;
use super::memory::InheritedMemory;
use super::{Error, GuestMemory, Machine, MachineConfig, VmmSource};
use crate::limits::TimeLimits;
use crate::vmm::Vmm;

impl Machine {
    /// Spawns the VMM, or attaches to it. A spawned VMM has no VM then. A VMM that another program runs may have one,
    /// which the first [`revert`](Self::revert) deletes.
    ///
    /// # Errors
    ///
    /// - [`Error::Vmm`]: the VMM can't be started or reached.
    /// - [`Error::NotUtf8`]: the path of the machine's directory or of a disk isn't UTF-8.
    /// - [`Error::DirectoryInUse`]: another machine uses the given directory.
    /// - [`Error::DirectoryTaken`]: the given directory contains a file that no machine has left there.
    /// - [`Error::Disk`]: a disk's file can't be made, or the chain of a qcow2 image can't be used.
    /// - [`Error::File`]: a disk or the memory file can't be opened.
    pub async fn start(config: MachineConfig) -> Result<Machine, Error> {
        let limits = config.limits.capped();
        match config.vmm {
            VmmSource::Spawn(mut vmm) => {
                vmm.limits = limits;
                let (file, memory) = InheritedMemory::of(&config.memory)?.unzip();
                let copied = match &config.memory {
                    GuestMemory::Copied(source) => source.length(),
                    GuestMemory::Mapped(_) | GuestMemory::ByPath => 0,
                };
                let PreparedFiles {
                    grants,
                    disks,
                    inherited,
                } = give(&vmm, config.disks, config.files, file, copied).await?;
                let vmm = Vmm::spawn_with(&vmm, grants).await;
                let vmm = vmm.map_err(Error::Vmm)?;
                let folder = |folder: Option<&Path>| {
                    folder
                        .expect("a spawned VMM has a run directory")
                        .to_owned()
                };
                let (writable, readable) = (folder(vmm.writable_dir()), folder(vmm.readable_dir()));
                let layout = Layout::new(writable, readable, vmm.console())?;
                let mut machine = Machine::of(vmm, layout, config.port, limits);
                machine.disks = disks;
                machine.inherited = inherited;
                machine.memory = memory;
                Ok(machine)
            }
            VmmSource::Attach {
                api_socket,
                directory,
            } => {
                let vmm = Vmm::attach(&api_socket).await.map_err(Error::Vmm)?;
                let layout = Layout::new(directory.clone(), directory.clone(), None)?;
                let lock = DirectoryLock::take(&directory, &layout)?;
                let disks = config.disks.into_iter();
                let disks = disks
                    .map(|disk| WorkingDisk::named(disk, &layout))
                    .collect::<Result<_, _>>()?;
                let mut machine = Machine::of(vmm, layout, config.port, limits);
                machine.disks = disks;
                machine._lock = Some(lock);
                // It isn't known whether another program's VMM has a VM.
                machine.occupied = true;
                Ok(machine)
            }
        }
    }

    /// Makes a machine without disks.
    fn of(vmm: Vmm, layout: Layout, port: u32, limits: TimeLimits) -> Machine {
        Machine {
            vsock: layout.vsock().into(),
            client: vmm.client().clone().with_deadlines(limits.into()),
            caused: ExpectedEvents::new(vmm.events()),
            vmm,
            layout,
            disks: Vec::new(),
            inherited: Vec::new(),
            disks_found_at: Vec::new(),
            memory: None,
            port,
            limits,
            channel: None,
            _lock: None,
            occupied: false,
        }
    }
}
