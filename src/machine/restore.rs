//! The restore of a snapshot into an empty slot.

use std::sync::Arc;

use super::readings::blocking;
use super::{Error, Machine, Snapshot, snapshot};
use crate::api;
use crate::api::types::RestoreConfig;

impl Machine {
    /// Restores the snapshot into the empty slot. The VM is paused then.
    pub(super) async fn restore(&mut self, snapshot: &Arc<Snapshot>) -> Result<(), Error> {
        let files = self.vm_files()?;
        let folder = self.layout.snapshot();
        let memory_path = self.memory.as_ref().map(|memory| memory.path.clone());
        if snapshot.memory().inherited().is_some() && memory_path.is_none() {
            return Err(Error::NotInherited);
        }
        let laid = Arc::clone(snapshot);
        let source =
            blocking(move || snapshot::lay(&laid, &folder, &files, memory_path.as_deref())).await?;
        self.call(
            "restore the VM",
            api::vm_restore(&RestoreConfig::new(source)),
        )
        .await?;
        self.hold_vsock()
    }
}
