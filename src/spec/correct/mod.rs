//! [`Corrections`]: the reviewed list of places where a server differs from its own OpenAPI document.
//!
//! `api-spec/corrections.toml` is a list of named entries. Each entry has a reason, its evidence, the releases that it
//! applies to, and the changes to make:
//!
//! ```toml
//! [[correction]]
//! name = "pci-segment-is-u16"
//! why = "A PCI segment is an unsigned 16-bit number."
//! evidence = "vmm/src/vm_config.rs at v53.0"
//! releases = ".."
//!
//! [[correction.change]]
//! kind = "set-format"
//! of = ["DiskConfig.pci_segment", "NetConfig.pci_segment"]
//! format = "uint16"
//!
//! [[correction.change]]
//! kind = "set-format"
//! releases = "v52.0.."
//! of = ["RngConfig.pci_segment"]
//! format = "uint16"
//! ```
//!
//! [`Releases`] documents how a range of releases is written. A change may have a range of its own; it then applies to
//! the releases that are in both ranges. A change that finds nothing to change is an error. So when upstream repairs
//! its document, the entry fails and has to be closed.

mod apply;
mod releases;
mod target;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use super::{Contract, Error, Invalid, Release, bounded_yaml, references};
pub use releases::{ParseReleasesError, Releases};
pub use target::{ParseTargetError, Target};

/// The list of corrections in `api-spec/corrections.toml`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Corrections {
    /// The entries, in the order in which they are applied.
    #[serde(rename = "correction", default)]
    pub entries: Vec<Correction>,
}

/// One named entry of the list: a difference between server and document, with its evidence and the changes that
/// correct the document.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Correction {
    /// The name, unique in the list.
    pub name: String,
    /// The behaviour of the server, in one sentence.
    pub why: String,
    /// The proof of that behaviour: an upstream source file with its release tag, or a cassette.
    pub evidence: String,
    /// The releases that the entry applies to.
    pub releases: Releases,
    /// The changes to make to the contract.
    #[serde(rename = "change")]
    pub changes: Vec<Change>,
}

/// One change to a contract.
// This struct can't have `deny_unknown_fields`, because serde does not support it together with `flatten`. `Edit` has
// it and receives every key that is not a field here.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Change {
    /// The releases that the change applies to, within those of its entry.
    #[serde(default)]
    pub releases: Releases,
    /// The change itself.
    #[serde(flatten)]
    pub edit: Edit,
}

/// The kind of a change, with the places that it is made at.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Edit {
    /// Gives an endpoint the path that the server serves.
    RenamePath {
        /// The path in the document.
        of: String,
        /// The path that the server serves.
        to: String,
    },
    /// Adds a named schema, written in OpenAPI's form.
    AddSchema {
        /// The name of the schema.
        name: String,
        /// The schema.
        schema: Value,
    },
    /// Adds properties that the document lacks.
    AddProperty {
        /// The properties to add.
        of: Vec<Target>,
        /// Their schema.
        schema: Value,
    },
    /// Removes properties, also from the list of required ones.
    RemoveProperty {
        /// The properties to remove.
        of: Vec<Target>,
    },
    /// Gives a property the name that the server reads.
    RenameProperty {
        /// The property in the document.
        of: Target,
        /// The name on the wire.
        to: String,
    },
    /// Replaces a schema with another one.
    SetSchema {
        /// The places of the schemas to replace.
        of: Vec<Target>,
        /// The new schema.
        schema: Value,
    },
    /// Sets the format of numbers or strings.
    SetFormat {
        /// The places of the numbers or strings.
        of: Vec<Target>,
        /// The format, for example `uint64`.
        format: String,
    },
    /// Makes properties required.
    Require {
        /// The properties that become required.
        of: Vec<Target>,
    },
    /// Makes properties optional. It also removes a required name that the object has no property for.
    MakeOptional {
        /// The properties that become optional.
        of: Vec<Target>,
    },
    /// Adds a value to an enumeration.
    AddValue {
        /// The places of the enumerations.
        of: Vec<Target>,
        /// The value to add.
        value: String,
    },
    /// Sets the default of a schema.
    SetDefault {
        /// The places of the schemas.
        of: Vec<Target>,
        /// The value that the server uses if the request has none.
        default: Value,
    },
    /// Removes a default that the server doesn't use.
    RemoveDefault {
        /// The places of the schemas.
        of: Vec<Target>,
    },
    /// Adds a response without a body to endpoints.
    AddStatus {
        /// The paths of the endpoints, each of which has one method only.
        of: Vec<String>,
        /// The HTTP status of the new response.
        status: u16,
    },
    /// Removes a response that the server never sends.
    RemoveStatus {
        /// The paths of the endpoints, each of which has one method only.
        of: Vec<String>,
        /// The HTTP status of the response.
        status: u16,
    },
    /// Gives a response another status. If the endpoint has a response with that status already, both must be equal.
    MoveStatus {
        /// The paths of the endpoints, each of which has one method only.
        of: Vec<String>,
        /// The HTTP status in the document.
        from: u16,
        /// The HTTP status that the server sends.
        to: u16,
    },
}

/// The name of the correction that changed each place, for example `DiskConfig.pci_segment` to `pci-segment-is-u16`.
pub type Applied = BTreeMap<String, String>;

/// Why a list of corrections can't be read or does not fit a contract.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CorrectionError {
    /// A file can't be read, or a contract is not valid.
    #[error(transparent)]
    File(#[from] Error),
    /// The file is not a valid list of corrections.
    #[error("{} is not a list of corrections", path.display())]
    Syntax {
        /// The file of the list.
        path: PathBuf,
        /// The parser's error.
        source: Box<toml::de::Error>,
    },
    /// Two entries have the same name.
    #[error("there are two corrections called `{0}`")]
    NameTaken(String),
    /// The range of a change holds none of the releases that have a contract. Such a change is never applied, so it
    /// could never fail.
    #[error(
        "a change of the correction `{name}` holds for no release that has a contract ({releases})"
    )]
    Idle {
        /// The name of the entry.
        name: String,
        /// The range of the change, or that of its entry if the change has none.
        releases: Releases,
    },
    /// A change does not fit. Check whether upstream has repaired its document. If so, let the range of the entry end
    /// before this release.
    #[error("the correction `{name}` does not apply to {release} at `{place}`: {problem}")]
    DoesNotApply {
        /// The name of the entry.
        name: String,
        /// The release of the contract.
        release: Release,
        /// The place that the change names.
        place: String,
        /// The reason.
        problem: Problem,
    },
    /// After all changes, a reference leads to no schema, or references form a cycle.
    #[error("after all corrections, the contract of {release} has an invalid reference")]
    Broken {
        /// The release of the contract.
        release: Release,
        /// The reference, and its place.
        source: Invalid,
    },
}

/// Why a change does not fit a place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// The contract does not have the place.
    #[error("the contract has no such place")]
    Absent,
    /// The contract has already what the change would add.
    #[error("the contract has it already")]
    Present,
    /// The place is already as the change would make it.
    #[error("there is nothing to change")]
    NothingToChange,
    /// The change can't be made to a place of this kind.
    #[error("this change cannot be made to a place of kind {0}")]
    WrongKind(&'static str),
    /// The schema in the correction is not valid.
    #[error("the schema in the correction is not valid: {0}")]
    Schema(Invalid),
}

impl Corrections {
    /// Reads a list of corrections from a file.
    ///
    /// # Errors
    ///
    /// [`CorrectionError::File`], [`CorrectionError::Syntax`] and [`CorrectionError::NameTaken`].
    pub fn read(path: &Path) -> Result<Corrections, CorrectionError> {
        let bytes = bounded_yaml::bytes(path)?;
        Corrections::parse(path, &String::from_utf8_lossy(&bytes))
    }

    /// Parses `text`, which was read from `path`.
    pub(super) fn parse(path: &Path, text: &str) -> Result<Corrections, CorrectionError> {
        let corrections: Corrections =
            toml::from_str(text).map_err(|source| CorrectionError::Syntax {
                path: path.to_owned(),
                source: Box::new(source),
            })?;
        let mut names = BTreeSet::new();
        for entry in &corrections.entries {
            if !names.insert(&entry.name) {
                return Err(CorrectionError::NameTaken(entry.name.clone()));
            }
        }
        Ok(corrections)
    }

    /// Applies, in order, every change whose range holds the contract's release. Returns the places that were changed.
    ///
    /// # Errors
    ///
    /// [`CorrectionError::DoesNotApply`] for the first change that does not fit, or [`CorrectionError::Broken`]. After
    /// an error the contract has some of the changes and must not be used.
    pub fn apply(&self, contract: &mut Contract) -> Result<Applied, CorrectionError> {
        let (applied, failures) = self.attempt(contract);
        match failures.into_iter().next() {
            None => Ok(applied),
            Some(first) => Err(first),
        }
    }

    /// Returns every error that [`apply`](Corrections::apply) would meet on this contract. Empty if it would succeed.
    pub fn failures(&self, contract: &Contract) -> Vec<CorrectionError> {
        self.attempt(&mut contract.clone()).1
    }

    /// Returns an error for each change whose range holds none of `releases`.
    pub fn idle(&self, releases: &[Release]) -> Vec<CorrectionError> {
        let mut idle = Vec::new();
        for entry in &self.entries {
            for change in &entry.changes {
                if !releases.iter().any(|release| entry.holds(change, *release)) {
                    idle.push(CorrectionError::Idle {
                        name: entry.name.clone(),
                        releases: if change.releases == Releases::ALL {
                            entry.releases
                        } else {
                            change.releases
                        },
                    });
                }
            }
        }
        idle
    }

    /// Makes every change that fits, and returns the places that were changed with the errors of all other changes.
    /// After such an error references may be invalid: [`Contract::check_references`] checks them.
    pub fn attempt(&self, contract: &mut Contract) -> (Applied, Vec<CorrectionError>) {
        let release = contract.release;
        let (mut applied, mut failures) = (Applied::new(), Vec::new());
        for entry in &self.entries {
            for change in &entry.changes {
                if !entry.holds(change, release) {
                    continue;
                }
                for (place, outcome) in change.edit.apply(contract) {
                    let name = entry.name.clone();
                    match outcome {
                        Ok(()) => {
                            applied.insert(place, name);
                        }
                        Err(problem) => failures.push(CorrectionError::DoesNotApply {
                            name,
                            release,
                            place,
                            problem,
                        }),
                    }
                }
            }
        }
        // After a failed change, an invalid reference is probably its consequence, and would be no new information.
        if failures.is_empty()
            && let Err(source) = references::check(contract)
        {
            failures.push(CorrectionError::Broken { release, source });
        }
        (applied, failures)
    }
}

impl Correction {
    /// Whether the range of `change`, which must belong to this entry, and the range of the entry both hold `release`.
    /// Only then is the change applied to that release's contract. Whether it fits the contract is not checked.
    pub fn holds(&self, change: &Change, release: Release) -> bool {
        self.releases.contains(release) && change.releases.contains(release)
    }
}
