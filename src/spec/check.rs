//! Whether the corrections fit the contracts, all of them.

use std::collections::BTreeMap;
use std::path::Path;

use super::{Contract, CorrectionError, Corrections, Error, Release, Sources, load};

/// The name of the list of corrections beside the contracts.
pub const CORRECTIONS: &str = "corrections.toml";

/// How a list of corrections fits the contracts.
#[derive(Debug)]
pub struct Fit {
    /// What keeps the corrections from working on each contract; empty where they do.
    pub contracts: BTreeMap<Release, Vec<CorrectionError>>,
    /// Changes that hold for no contract.
    pub idle: Vec<CorrectionError>,
}

impl Fit {
    /// Whether every correction works on every contract that it holds for, and on one at least.
    pub fn is_good(&self) -> bool {
        self.idle.is_empty() && self.contracts.values().all(Vec::is_empty)
    }
}

/// Reads the contracts in `folder`, as their documents have them: those that `sources.toml` lists.
///
/// # Errors
///
/// Every variant of [`Error`].
pub fn contracts(folder: &Path) -> Result<BTreeMap<Release, Contract>, Error> {
    Sources::read(folder)?
        .release
        .values()
        .map(|source| {
            let path = folder.join(format!("{}.json", source.tag));
            Ok((source.tag, load::read(&path)?))
        })
        .collect()
}

/// Tries the corrections in `folder` on each contract there.
///
/// # Errors
///
/// As [`Corrections::read`] and [`contracts`] have them, for files that can't be read. A correction that doesn't fit
/// is no error here, it is what is asked for.
pub fn check(folder: &Path) -> Result<Fit, CorrectionError> {
    let corrections = Corrections::read(&folder.join(CORRECTIONS))?;
    let contracts = contracts(folder)?;
    let releases: Vec<Release> = contracts.keys().copied().collect();
    Ok(Fit {
        idle: corrections.idle(&releases),
        contracts: contracts
            .iter()
            .map(|(release, contract)| (*release, corrections.failures(contract)))
            .collect(),
    })
}
