//! A running server, held against a contract and against what was recorded of a release.
//!
//! ```text
//!   battery ──▶ one short VMM for each scenario ──▶ recordings ─┐
//!   contracts ─▶ every field of every request ────▶ fields ─────┼─ judge ──▶ Report
//!                connections, one after the other ▶ a number ───┘   ▲
//!                                contract of the release, corrected ┤
//!                                outline of its cassettes ──────────┘
//! ```
//!
//! A [`probe`] starts the binary again and again in a private directory, which is removed at the end, as is every
//! process. It needs no guest: the VM that it boots halts at once. What can't be reached, for instance a snapshot where
//! KVM has no nested state to give, is left out and said ([`Probed::unreached`]).

pub mod battery;
mod call;
mod compare;
mod connections;
mod error;
mod fields;
mod findings;
pub mod idle_kernel;
mod judge;
mod outline;
pub mod recorded;
mod recording;
mod routes;
mod rules;
mod session;
mod traps;

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
use crate::limits::TimeLimits;
use crate::spec::{Contract, Release, supported};
use crate::vmm::{self, VmmConfig};

/// What to probe, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// The binary: a bare name is looked up in `PATH`.
    pub binary: PathBuf,
    /// Extra environment of the VMM.
    pub env: Vec<(OsString, OsString)>,
    /// The release to hold it against; without one, the release that it says to be.
    pub release: Option<Release>,
    /// Where the private directory is made; without one, in the directory for temporary files. Its path must be short:
    /// sockets are made in it.
    pub directory: Option<PathBuf>,
    /// How long the whole probe may take.
    pub limit: Duration,
}

/// What a probe came to.
#[derive(Clone, Debug)]
pub struct Probed {
    /// The findings.
    pub report: Report,
    /// The release that the VMM says to be.
    pub server: client::Release,
    /// The release that it was held against.
    pub held_against: Release,
    /// The release whose recording it was compared with, if there is one that is not newer.
    pub compared_with: Option<Release>,
    /// What couldn't be reached here, by scenario.
    pub unreached: Vec<(&'static str, Unreached)>,
    /// How many requests were made in the scenarios.
    pub exchanges: usize,
    /// How many fields of requests were tried.
    pub fields: usize,
}

/// How long the removal of what a probe made may take.
const REMOVAL_LIMIT: Duration = Duration::from_secs(10);

/// How long a binary has to answer for the first time. A machine that is emulated needs seconds.
const READY: Duration = Duration::from_secs(10);

/// Probes a server.
///
/// Dropping the future ends every process and removes the directory. A program that ends right then should wait for the
/// processes: [`vmm::all_ended`].
///
/// # Errors
///
/// Any [`Error`]: then nothing is decided.
pub async fn probe(options: &Options) -> Result<Probed, Error> {
    // Outside of what is dropped when time runs out, so that it is removed after the last process has been killed.
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

/// More than a VMM ever writes to its log, in bytes.
const LOG_LIMIT: u64 = 16 << 20;

/// Waits until a process has written too much to its log.
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
        // So that a binary which says nothing is told from a probe that needs more time.
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

/// Plays the battery, and tries what it can't have.
async fn observe(config: &VmmConfig, directory: &Path, base: &Contract) -> Result<Observed, Error> {
    let mut observed = Observed::default();
    for (index, scenario) in battery::all().iter().enumerate() {
        let folder = directory.join(index.to_string());
        make_private(&folder)?;
        let recording = record(scenario, config, &folder).await?;
        tracing::debug!(scenario = scenario.name, unreached = ?recording.unreached, "played");
        observed.recordings.push(recording);
        // Its disks and snapshots needn't wait for the end. What can't be removed now is then.
        let _ = std::fs::remove_dir_all(&folder);
    }
    let vmm = session::start(config, None).await?;
    // The client's own connection is one more.
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

/// The release to hold `server` against: itself, or the nearest that is older and has a contract, or the oldest.
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

/// A folder that goes with whatever is in it.
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
    /// The start of a VMM goes on after the probe has given it up, and may make files in the folder meanwhile.
    fn drop(&mut self) {
        let path = self.0.display();
        match vmm::remove_tree(&self.0, Instant::now() + REMOVAL_LIMIT) {
            Ok(true) => {}
            Ok(false) => {
                tracing::warn!(%path, limit = ?REMOVAL_LIMIT, "the directory of a probe holds more than can be removed in the time");
            }
            Err(error) => {
                tracing::warn!(%path, error = %Causes(&error), "the directory of a probe stays");
            }
        }
    }
}

fn make_private(path: &Path) -> Result<(), Error> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .mode(0o700)
        .create(path)
        .map_err(|source| Error::Directory {
            path: path.to_owned(),
            source,
        })
}
