//! [`probe`] compares a running server with a contract and with the recording of a release.
//!
//! ```text
//!   battery ──▶ one short VMM for each scenario ──▶ recordings ─┐
//!   contracts ─▶ every field of every request ────▶ fields ─────┼─ judge ──▶ Report
//!                connections, one after the other ▶ a number ───┘   ▲
//!                                contract of the release, corrected ┤
//!                                outline of its cassettes ──────────┘
//! ```
//!
//! [`probe`] starts the binary several times in a private directory. It removes the directory and ends every process
//! before it returns. No guest is needed: the VM that it boots halts at once. A state that can't be reached on this
//! machine, for instance a snapshot on a KVM that can't save the nested state, is left out and listed in
//! [`Probed::unreached`].

#[doc(hidden)]
pub mod battery;
mod call;
mod compare;
mod connections;
mod error;
mod field_bodies;
mod fields;
mod findings;
#[doc(hidden)]
pub mod idle_kernel;
mod judge;
mod outline;
#[doc(hidden)]
pub mod recorded;
mod recording;
mod routes;
mod rules;
mod session;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio::time::sleep;

pub use error::Error;
pub use fields::Field;
pub use judge::{Observed, judge};
pub use outline::{Form, Outcome, Outline, ParsePlayedError, Played};
pub use recording::{Recording, Unreached};
pub use rules::{RULES, Rule};
pub use session::record;

use super::Report;
use crate::causes::Causes;
use crate::client;
use crate::files::create_private_directory;
use crate::limits::TimeLimits;
use crate::spec::{Contract, Release, supported};
use crate::vmm::{self, VmmConfig};

/// The settings of [`probe`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// The binary. A name without a slash is looked up in `PATH`.
    pub binary: PathBuf,
    /// Additional environment variables of the VMM.
    pub env: Vec<(OsString, OsString)>,
    /// The release to compare the server with. `None` means the release that the server reports.
    pub release: Option<Release>,
    /// The folder in which the private directory is created. `None` means the directory for temporary files. Its path
    /// must be short, because sockets are created in it.
    pub directory: Option<PathBuf>,
    /// The time limit of the whole probe.
    pub limit: Duration,
}

impl Options {
    /// The probe of a binary within a time limit, without additional variables, with the release that the server
    /// reports, in the directory for temporary files.
    pub fn new(binary: impl Into<PathBuf>, limit: Duration) -> Options {
        Options {
            binary: binary.into(),
            env: Vec::new(),
            release: None,
            directory: None,
            limit,
        }
    }
}

/// The result of [`probe`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Probed {
    /// The findings, with the verdict.
    pub report: Report,
    /// The release that the VMM reported.
    pub server: client::Release,
    /// The release whose contract the server was compared with.
    pub held_against: Release,
    /// The release whose recording the server was compared with. `None` if no release up to `held_against` is recorded.
    pub compared_with: Option<Release>,
    /// The states that couldn't be reached here, with the name of the scenario.
    pub unreached: Vec<(&'static str, Unreached)>,
    /// The number of requests in the scenarios.
    pub exchanges: usize,
    /// The number of request fields that were tried.
    pub fields: usize,
}

/// The time limit for removing the private directory.
const REMOVAL_LIMIT: Duration = Duration::from_secs(10);

/// The time limit for the first answer of the binary. An emulated machine needs seconds.
const READY: Duration = Duration::from_secs(10);

/// Starts the VMM's binary several times, plays every scenario, tries every request field and counts the connections
/// that the server accepts. Compares the results with the contract and the recording of a release, which [`Probed`]
/// names.
///
/// Must be called within a tokio runtime. It takes at most [`Options::limit`]. Dropping the future ends every process
/// and removes the directory. A program that exits right afterwards should wait for the end of the processes with
/// [`vmm::all_ended`].
///
/// # Errors
///
/// Every variant of [`Error`]. An error means that the compatibility is unknown.
pub async fn probe(options: &Options) -> Result<Probed, Error> {
    // The directory outlives `probing`, so that it is removed after the last process was killed.
    let directory = PrivateDirectory::new(options.directory.as_deref())?;
    let run_root = directory.0.join("vmm");
    let probing = observe_and_judge(options, &directory.0, &run_root);
    tokio::select! {
        probed = probing => probed,
        () = sleep(options.limit) => Err(Error::OutOfTime { limit: options.limit }),
        () = flooding(&run_root) => Err(Error::TooMuchOutput {
            binary: options.binary.clone(),
            limit: LOG_LIMIT,
        }),
    }
}

/// The limit of a VMM's log, in bytes. A VMM writes far less.
const LOG_LIMIT: u64 = 16 << 20;

/// Waits until a process has written more than [`LOG_LIMIT`] to its log.
async fn flooding(run_root: &Path) {
    const PAUSE: Duration = Duration::from_millis(20);
    let is_too_large = |run_dir: PathBuf| {
        let log = std::fs::metadata(run_dir.join("vmm.log"));
        log.is_ok_and(|log| log.len() > LOG_LIMIT)
    };
    loop {
        sleep(PAUSE).await;
        let run_dirs = std::fs::read_dir(run_root).into_iter().flatten().flatten();
        if run_dirs.map(|entry| entry.path()).any(is_too_large) {
            return;
        }
    }
}

async fn observe_and_judge(
    options: &Options,
    directory: &Path,
    run_root: &Path,
) -> Result<Probed, Error> {
    let config = VmmConfig {
        binary: options.binary.clone(),
        env: options.env.clone(),
        run_root: run_root.to_owned(),
        // The limit is shorter than that of the probe, so that a binary that does not answer has an error of its own.
        limits: TimeLimits::default().vmm_start(READY.min(options.limit / 2)),
        ..VmmConfig::default()
    };
    let server = {
        let vmm = session::start(&config, None).await?;
        let release = session::release(&vmm).await;
        vmm.shutdown().await;
        release?
    };
    let held_against = options.release.unwrap_or_else(|| nearest(server));
    let base = supported::contract(held_against).ok_or(Error::UnknownRelease {
        release: held_against,
    })?;
    let compared_with = recorded::releases()
        .rev()
        .find(|known| *known <= held_against);
    let outline = compared_with.and_then(recorded::outline);
    let observed = observe(&config, directory, &base).await?;
    let findings = judge(&observed, &base, outline.as_ref());
    let unreached = observed.recordings.iter().filter_map(|recording| {
        let unreached = recording.unreached.clone()?;
        Some((recording.scenario, unreached))
    });
    Ok(Probed {
        report: Report::new(
            held_against.to_string(),
            format!("{server} (observed)"),
            findings,
        ),
        server,
        held_against,
        compared_with,
        unreached: unreached.collect(),
        exchanges: observed
            .recordings
            .iter()
            .map(|recording| recording.cassette.exchanges.len())
            .sum(),
        fields: observed.fields.len(),
    })
}

/// Plays the scenarios, counts the connections and tries the fields.
async fn observe(config: &VmmConfig, directory: &Path, base: &Contract) -> Result<Observed, Error> {
    let mut observed = Observed::default();
    for (index, scenario) in battery::all().iter().enumerate() {
        let folder = directory.join(index.to_string());
        make_private(&folder)?;
        let recording = record(scenario, config, &folder).await?;
        tracing::debug!(scenario = scenario.name, unreached = ?recording.unreached, "played");
        observed.recordings.push(recording);
        // The disks and snapshots of a scenario are not needed any more. A failure is ignored: the directory is removed
        // at the end.
        let _ = std::fs::remove_dir_all(&folder);
    }
    let vmm = session::start(config, None).await?;
    // The connection of the client counts as well.
    observed.connections = Some(connections::count(vmm.client().address().path()).await? + 1);
    vmm.shutdown().await;
    let others: Vec<Contract> = supported::releases()
        .rev()
        .filter_map(supported::contract)
        .collect();
    let contracts: Vec<&Contract> = std::iter::once(base).chain(&others).collect();
    let served = judge::served(&observed.recordings);
    observed.fields = fields::try_all(config, &contracts, &served).await?;
    Ok(observed)
}

/// Returns the release whose contract `server` is compared with: the release itself, or else the nearest older one with
/// a contract, or else the oldest one.
pub fn nearest(server: client::Release) -> Release {
    let is_not_newer = |known: &Release| {
        (u32::from(known.major), u32::from(known.minor)) <= (server.major, server.minor)
    };
    supported::releases()
        .rev()
        .find(is_not_newer)
        .or_else(|| supported::releases().next())
        .unwrap_or_else(supported::newest)
}

/// A directory that is removed with its content when this is dropped.
struct PrivateDirectory(PathBuf);

impl PrivateDirectory {
    fn new(within: Option<&Path>) -> Result<PrivateDirectory, Error> {
        let within = within.map_or_else(std::env::temp_dir, Path::to_owned);
        let made = tempfile::Builder::new()
            .prefix("chv-probe-")
            .tempdir_in(&within);
        let made = made.map_err(|source| Error::Directory {
            path: within,
            source,
        })?;
        Ok(PrivateDirectory(made.keep()))
    }
}

impl Drop for PrivateDirectory {
    /// Removes the directory. A VMM whose start was cancelled may still create files in it, so the removal is repeated
    /// until [`REMOVAL_LIMIT`].
    fn drop(&mut self) {
        let path = self.0.display();
        match vmm::remove_tree(&self.0, Instant::now() + REMOVAL_LIMIT) {
            Ok(true) => {}
            Ok(false) => {
                tracing::warn!(%path, limit = ?REMOVAL_LIMIT, "the probe could not remove its directory in time");
            }
            Err(error) => {
                tracing::warn!(%path, error = %Causes(&error), "the probe could not remove its directory");
            }
        }
    }
}

fn make_private(path: &Path) -> Result<(), Error> {
    create_private_directory(path).map_err(|source| Error::Directory {
        path: path.to_owned(),
        source,
    })
}
