//! The reviewed places where a server differs from its own document.
//!
//! `api-spec/corrections.toml` is a list of named entries. Each says why, on what evidence, for which releases, and
//! what to change:
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
//! [`Releases`] says how ranges are written. A change that names some holds for those that its entry holds for too.
//! A change that finds nothing to change is an error, so an entry dies when upstream mends the mistake.

mod apply;
mod releases;
mod target;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use super::{Contract, Error, Invalid, Release, references, tree};
pub use releases::{ParseReleasesError, Releases};
pub use target::{ParseTargetError, Target};

/// A list of corrections.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Corrections {
    /// The entries, in the order in which they are applied.
    #[serde(rename = "correction", default)]
    pub entries: Vec<Correction>,
}

/// One place, or several of one kind, where the server differs from the document.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Correction {
    /// A name for it, unique in the list.
    pub name: String,
    /// What the server does, in a sentence.
    pub why: String,
    /// Where this can be checked: a source file with its release tag, or a cassette.
    pub evidence: String,
    /// The releases that it holds for.
    pub releases: Releases,
    /// What to change.
    #[serde(rename = "change")]
    pub changes: Vec<Change>,
}

/// One change to a contract.
// Without `deny_unknown_fields`, which doesn't go with `flatten`: what isn't taken here goes to `Edit`, which has it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Change {
    /// The releases that it holds for, of those that its entry holds for.
    #[serde(default)]
    pub releases: Releases,
    /// What is changed.
    #[serde(flatten)]
    pub edit: Edit,
}

/// What a change does, at one or more places that need the same.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Edit {
    /// Gives an endpoint the path that the server serves.
    RenamePath {
        /// The path as the document has it.
        of: String,
        /// The path that is served.
        to: String,
    },
    /// Adds a named schema, written as OpenAPI has it.
    AddSchema {
        /// Its name.
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
    /// Takes properties out, also from the required ones.
    RemoveProperty {
        /// The properties to take out.
        of: Vec<Target>,
    },
    /// Gives a property the name that the server reads.
    RenameProperty {
        /// The property as the document has it.
        of: Target,
        /// The name on the wire.
        to: String,
    },
    /// Replaces a schema by another.
    SetSchema {
        /// The places.
        of: Vec<Target>,
        /// The schema that belongs there.
        schema: Value,
    },
    /// Gives numbers or texts their format.
    SetFormat {
        /// The places.
        of: Vec<Target>,
        /// The format: `uint64`.
        format: String,
    },
    /// Makes properties required.
    Require {
        /// The properties.
        of: Vec<Target>,
    },
    /// Makes properties optional. Also takes a name off the required ones that is no property at all.
    MakeOptional {
        /// The properties.
        of: Vec<Target>,
    },
    /// Adds a value to an enumeration.
    AddValue {
        /// The enumerations.
        of: Vec<Target>,
        /// The value.
        value: String,
    },
    /// Sets the default.
    SetDefault {
        /// The places.
        of: Vec<Target>,
        /// The value that the server takes.
        default: Value,
    },
    /// Removes a default that the server doesn't have.
    RemoveDefault {
        /// The places.
        of: Vec<Target>,
    },
    /// Adds a status without a body.
    AddStatus {
        /// The paths.
        of: Vec<String>,
        /// The status.
        status: u16,
    },
    /// Removes a status that is never sent.
    RemoveStatus {
        /// The paths.
        of: Vec<String>,
        /// The status.
        status: u16,
    },
    /// Gives a response another status. Merges with a response that has no body either.
    MoveStatus {
        /// The paths.
        of: Vec<String>,
        /// The status as the document has it.
        from: u16,
        /// The status that is sent.
        to: u16,
    },
}

/// Which correction touched which place: `DiskConfig.pci_segment` to `pci-segment-is-u16`.
pub type Applied = BTreeMap<String, String>;

/// A list of corrections can't be read, or does not fit the contract.
#[derive(Debug, thiserror::Error)]
pub enum CorrectionError {
    /// The file can't be read.
    #[error(transparent)]
    File(#[from] Error),
    /// The file is not such a list.
    #[error("{} is not a list of corrections", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// What the parser met.
        source: Box<toml::de::Error>,
    },
    /// Two entries have one name.
    #[error("there are two corrections called `{0}`")]
    NameTaken(String),
    /// A change of this entry holds for no contract there is, so it could never fail.
    #[error(
        "a change of the correction `{name}` holds for no release that has a contract ({releases})"
    )]
    Idle {
        /// The entry.
        name: String,
        /// The releases that the change names, or its entry if it names none.
        releases: Releases,
    },
    /// A change does not fit: look whether upstream has mended what it corrects, and if so, end its releases there.
    #[error("the correction `{name}` does not apply to {release} at `{place}`: {problem}")]
    DoesNotApply {
        /// The entry.
        name: String,
        /// The release of the contract.
        release: Release,
        /// The place that the change names.
        place: String,
        /// What was found there.
        problem: Problem,
    },
    /// After all changes a reference leads nowhere.
    #[error("the corrections leave the contract of {release} in pieces")]
    Broken {
        /// The release of the contract.
        release: Release,
        /// What is wrong, and where.
        source: Invalid,
    },
}

/// Why a change does not fit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The place is not in the contract.
    #[error("there is no such place")]
    Absent,
    /// What it would add is there.
    #[error("it is there already")]
    Present,
    /// The place is as the change would leave it.
    #[error("there is nothing to change")]
    NothingToChange,
    /// The place is of a kind that the change is not for.
    #[error("a place of kind {0} cannot be changed so")]
    WrongKind(&'static str),
    /// The schema that the change carries is not understood.
    #[error("the schema to put there is not understood: {0}")]
    Schema(Invalid),
}

impl Corrections {
    /// Reads a list from a file.
    ///
    /// # Errors
    ///
    /// [`CorrectionError::File`], [`CorrectionError::Syntax`] and [`CorrectionError::NameTaken`].
    pub fn read(path: &Path) -> Result<Corrections, CorrectionError> {
        let bytes = tree::bytes(path)?;
        let text = String::from_utf8_lossy(&bytes);
        let corrections: Corrections =
            toml::from_str(&text).map_err(|source| CorrectionError::Syntax {
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

    /// Applies every change that holds for the contract's release, in order.
    ///
    /// # Errors
    ///
    /// [`CorrectionError::DoesNotApply`] for the first change that finds nothing to change, and
    /// [`CorrectionError::Broken`]. The contract is then half corrected, and of no use.
    pub fn apply(&self, contract: &mut Contract) -> Result<Applied, CorrectionError> {
        let (applied, failures) = self.attempt(contract);
        match failures.into_iter().next() {
            None => Ok(applied),
            Some(first) => Err(first),
        }
    }

    /// Everything that keeps [`apply`](Corrections::apply) from working on this contract; empty if it does.
    pub fn failures(&self, contract: &Contract) -> Vec<CorrectionError> {
        self.attempt(&mut contract.clone()).1
    }

    /// The changes that hold for none of these releases.
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

    /// Makes every change that can be made, and lists those that can't.
    fn attempt(&self, contract: &mut Contract) -> (Applied, Vec<CorrectionError>) {
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
        // A change that could not be made may well be why, so this says nothing new after one.
        if failures.is_empty()
            && let Err(source) = references::check(contract)
        {
            failures.push(CorrectionError::Broken { release, source });
        }
        (applied, failures)
    }
}

impl Correction {
    /// Whether `change`, which is one of this entry's, is made to the contract of `release`.
    pub fn holds(&self, change: &Change, release: Release) -> bool {
        self.releases.contains(release) && change.releases.contains(release)
    }
}
