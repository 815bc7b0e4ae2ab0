//! What is kept of a sandbox that wasn't what its baselines say.

use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::Serialize;
use uuid::Uuid;

use super::{ResetOutcome, ResetReport, ResetState};
use crate::machine::Machine;

/// The report as a file.
#[derive(Serialize)]
struct Record<'a> {
    state: &'a ResetState,
    report: &'a ResetReport,
}

/// Keeps the writable disks as they were found, the reset's report, and the VMM's log, in a new folder under
/// `directory`. Its path; `None` when it couldn't be written, which is logged.
pub(super) async fn keep(
    directory: &Path,
    machine: &Machine,
    outcome: &ResetOutcome,
) -> Option<PathBuf> {
    let time = outcome.state.reset_at.strftime("%Y%m%dT%H%M%SZ");
    let folder = directory.join(format!(
        "{time}-{}",
        &Uuid::new_v4().simple().to_string()[..8]
    ));
    match write(&folder, machine, outcome).await {
        Ok(()) => Some(folder),
        Err(error) => {
            let folder = folder.display();
            tracing::error!(%folder, %error, "the evidence of a divergence could not be kept in full");
            None
        }
    }
}

async fn write(folder: &Path, machine: &Machine, outcome: &ResetOutcome) -> io::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)?;
    let record = Record {
        state: &outcome.state,
        report: &outcome.report,
    };
    let record = serde_json::to_vec_pretty(&record).map_err(io::Error::other)?;
    write_private(&folder.join("reset.json"), &record)?;
    write_private(&folder.join("vmm.log"), machine.vmm().log_tail().as_bytes())?;
    write_private(
        &folder.join("console.log"),
        machine.console_tail().as_bytes(),
    )?;
    machine.keep_disks(folder).await.map_err(io::Error::other)
}

fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}
