//! The start of a machine: its VMM with what it is given, or one of another program with a directory that is locked.

use std::path::Path;

use super::caused::CausedEvents;
use super::directory::DirectoryLock;
use super::disk::WorkingDisk;
use super::files::{Given, give};
use super::layout::Layout;
use super::memory::InheritedMemory;
use super::{Error, GuestMemory, Machine, MachineConfig, VmmSource};
use crate::limits::TimeLimits;
use crate::vmm::Vmm;

impl Machine {
    /// Starts (or attaches to) the VMM. The VM slot is empty then, or holds a VM of another program's.
    ///
    /// # Errors
    ///
    /// [`Error::Vmm`] when the VMM can't be started, [`Error::NotUtf8`] when its directory can't be told to it,
    /// [`Error::DirectoryInUse`] and [`Error::DirectoryTaken`] for a directory that isn't this machine's alone;
    /// [`Error::Disk`] for a chain of qcow2 images that can't be used, [`Error::File`] for a disk that can't be opened.
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
                let Given {
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
                // What a VMM of another program has done is not known.
                machine.occupied = true;
                Ok(machine)
            }
        }
    }

    /// One without disks.
    fn of(vmm: Vmm, layout: Layout, port: u32, limits: TimeLimits) -> Machine {
        Machine {
            vsock: layout.vsock().into(),
            client: vmm.client().clone().with_deadlines(limits.into()),
            caused: CausedEvents::new(vmm.events()),
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
