//! [`check`] tests whether a list of corrections fits the contracts of all releases.

use std::collections::BTreeMap;
use std::path::Path;

use super::{Contract, CorrectionError, Corrections, Error, Release, Sources, load};

/// The file name of the list of corrections, which lies in the same folder as the contracts.
pub const CORRECTIONS: &str = "corrections.toml";

/// How well a list of corrections fits the contracts.
#[derive(Debug)]
#[non_exhaustive]
pub struct Fit {
    /// For each contract, the corrections that fail on it. The list of a contract is empty if all corrections apply to
    /// it.
    pub contracts: BTreeMap<Release, Vec<CorrectionError>>,
    /// The changes whose range holds none of the releases that have a contract.
    pub idle: Vec<CorrectionError>,
}

impl Fit {
    /// Whether every correction applies to each contract in its range, and each range holds at least one contract.
    pub fn is_good(&self) -> bool {
        self.idle.is_empty() && self.contracts.values().all(Vec::is_empty)
    }
}

/// Reads the contracts that `sources.toml` lists in `folder`, without corrections.
///
/// # Errors
///
/// Every variant of [`Error`]. [`Error::Sources`] is for `sources.toml`, the others are for any of the files.
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

/// Applies the corrections in `folder` to each contract there, and reports those that fail.
///
/// # Errors
///
/// [`CorrectionError::File`], [`CorrectionError::Syntax`] and [`CorrectionError::NameTaken`], if a file can't be read.
/// A correction that doesn't apply is not an error of this function: it is listed in the returned [`Fit`].
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
