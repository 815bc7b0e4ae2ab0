//! The revert: from any state to the running VM of a snapshot, with what the sources say of it.

use std::path::Path;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use super::readings::{Steps, blocking};
use super::snapshot;
use super::{DiskReading, Error, GuestReading, Machine, Reading, Readings, VmmFile};
use crate::api;
use crate::api::types::{RestoreConfig, VmState};
use crate::client::{Deadlines, ErrorKind};
use crate::guest::protocol::Extension;
use crate::overlay::{AccessPolicy, Hashed};
use crate::vmm::OpenFile;

impl Machine {
    /// Replaces whatever VM there is by the one of the snapshot in `golden`, and reads the three sources.
    ///
    /// A read-only disk is hashed as it is found, before the VMM opens it. A writable one is put back from its
    /// origin, and hashed after the restore while the VM is paused, through an ordinary read: this VMM has
    /// served the guest, so a digest from before its restore would say nothing of what it did since.
    ///
    /// # Errors
    ///
    /// Any step that failed, as its own variant. A source that stays silent is no error, but a
    /// [`Reading::Silent`]. After an error the VM slot is empty, or holds a VM that nobody should use.
    pub async fn revert(&mut self, golden: &Path) -> Result<Readings, Error> {
        let mut steps = Steps::start();
        self.delete().await?;
        steps.end("delete");

        let mut at_rest = Vec::with_capacity(self.disks.len());
        for disk in &self.disks {
            at_rest.push(match disk.put_back().await? {
                Some(_) => None,
                None => Some(disk.hash(AccessPolicy::PreferMapped).await?),
            });
        }
        steps.end("disks");

        self.restore(golden).await?;
        steps.end("restore");

        let disks = self.read_disks(at_rest).await?;
        steps.end("digest");

        self.call("resume the VM", api::vm_resume()).await?;
        steps.end("resume");

        let guest = self.read_guest().await?;
        steps.end("guest");

        let vm_state = self.read_vm_state().await?;
        steps.end("vm_state");

        let vmm = self.vmm.prove_identity().map_err(Arc::new).transpose();
        steps.end("vmm_identity");
        Ok(Readings {
            disks,
            guest,
            vm_state,
            vmm,
            steps: steps.finish(),
        })
    }

    /// Restores the snapshot into the empty slot. The VM is paused then.
    async fn restore(&self, golden: &Path) -> Result<(), Error> {
        let source = snapshot::adapt(golden, &self.layout, &self.disks)?;
        let request = api::vm_restore(&RestoreConfig::new(source));
        self.call("restore the VM", request).await
    }

    /// Hashes the writable disks, and compares each disk's file with what the VMM has open.
    async fn read_disks(&self, at_rest: Vec<Option<Hashed>>) -> Result<Vec<DiskReading>, Error> {
        let open = match self.vmm.process() {
            Some(process) => Some(process.open_files().map_err(Error::OpenFiles)?),
            None => None,
        };
        let mut readings = Vec::with_capacity(self.disks.len());
        for (disk, hashed) in self.disks.iter().zip(at_rest) {
            let hashed = match hashed {
                Some(hashed) => hashed,
                None => disk.hash(AccessPolicy::ReadOnly).await?,
            };
            readings.push(DiskReading {
                role: disk.role,
                digest: hashed.digest,
                length: hashed.length,
                access: hashed.access,
                elapsed: hashed.elapsed,
                vmm_file: vmm_file(open.as_deref(), &hashed),
            });
        }
        Ok(readings)
    }

    /// Asks the guest, within the settling time: who it is, to renew what a snapshot shares, and its count.
    pub(super) async fn read_guest(&mut self) -> Result<Reading<GuestReading>, Error> {
        match self.ask_guest().await {
            Ok(guest) => Ok(Reading::Answered(guest)),
            Err(Error::Channel(error)) if error.is_silence() => {
                Ok(Reading::Silent(Arc::new(Error::Channel(error))))
            }
            Err(error) => Err(error),
        }
    }

    async fn ask_guest(&mut self) -> Result<GuestReading, Error> {
        let until = Instant::now() + self.limits.settle;
        let hello = self.open_channel(until).await?;
        let channel = self.channel.as_ref().expect("it was opened just now");
        let renewed = match &hello {
            Some(hello) if hello.supports(Extension::Reseed) => {
                let seed = blocking(fresh_seed)
                    .await
                    .map_err(Error::file("read", "the random pool"))?;
                let limit = self.query_limit(until);
                let renewed = channel.renew(&seed, SystemTime::now(), limit).await;
                Some(renewed.map_err(Error::Channel)?)
            }
            _ => None,
        };
        let open_fd_count = channel.open_fd_count(self.query_limit(until)).await;
        Ok(GuestReading {
            hello,
            renewed,
            open_fd_count: open_fd_count.map_err(Error::Channel)?,
        })
    }

    /// Asks the VMM, within the settling time as well.
    pub(super) async fn read_vm_state(&self) -> Result<Reading<VmState>, Error> {
        let client = self.client().clone().with_deadlines(Deadlines {
            probe: self.limits.settle,
            ..Deadlines::default()
        });
        let info = client.send(api::vm_info()).await;
        let action = "tell the VM's state";
        match info {
            Ok(info) => Ok(Reading::Answered(info.state)),
            Err(source) if matches!(source.kind(), ErrorKind::Deadline { .. }) => {
                Ok(Reading::Silent(Arc::new(Error::Api { action, source })))
            }
            Err(source) => Err(self.explain(action, source).await),
        }
    }
}

fn vmm_file(open: Option<&[OpenFile]>, hashed: &Hashed) -> VmmFile {
    let identity = hashed.identity;
    match open {
        None => VmmFile::NotApplicable,
        Some(open) => {
            let same =
                |file: &OpenFile| file.device == identity.device && file.inode == identity.inode;
            match open.iter().any(same) {
                true => VmmFile::Same,
                false => VmmFile::NotOpen(identity),
            }
        }
    }
}

/// 32 bytes of the host's random pool: enough for the guest's generator to be reseeded in full.
fn fresh_seed() -> std::io::Result<[u8; 32]> {
    let mut seed = [0; 32];
    let mut filled = 0;
    while filled < seed.len() {
        filled +=
            rustix::rand::getrandom(&mut seed[filled..], rustix::rand::GetRandomFlags::empty())?;
    }
    Ok(seed)
}
