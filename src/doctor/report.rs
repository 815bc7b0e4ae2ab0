//! [`HostReport`]: the result of an examination.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Layer;

/// The result of all checks of a host. See the [module](super) for its JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct HostReport {
    /// The format of this report: 1.
    pub format: u32,
    /// The verdict over all checks.
    pub readiness: Readiness,
    /// All checks. Those of things that every VM needs come first.
    pub checks: Vec<HostCheck>,
}

/// Whether sandboxes can run on a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Readiness {
    /// Sandboxes can run. There may be warnings.
    Ready,
    /// Sandboxes can't run: a needed thing is missing.
    NotReady,
    /// No needed thing is known to be missing, but the check of one gave no result.
    Undecided,
}

/// The result of one check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct HostCheck {
    /// The thing that was checked.
    pub id: CheckId,
    /// The result.
    pub status: CheckStatus,
    /// What was found, in one line of text. It may quote files and programs: escape control characters before printing
    /// it on a terminal.
    pub found: String,
    /// The consequence of not having the thing, as the end of a sentence that begins "without it". `None` if it is
    /// there or the check gave no result.
    pub lost: Option<String>,
    /// How to get the thing. `None` if it is there, or if no command gets it.
    pub remedy: Option<Remedy>,
}

/// A thing that is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum CheckId {
    /// `/dev/kvm`, and the permission to use it.
    Kvm,
    /// The VMM's executable and its release.
    Vmm,
    /// The golden snapshot of [`HostExamination::golden`](super::HostExamination::golden): whether this VMM can restore
    /// it on this host.
    Golden,
    /// The run root, in which each VMM has a private run directory.
    RunRoot,
    /// Unix sockets, which hybrid vsock uses on the host.
    Vsock,
    /// Memory files that can be sealed.
    Memfd,
    /// Enough memory for a copy of a golden snapshot's memory.
    Memory,
    /// Copies of disks that share their blocks (FICLONE).
    Reflink,
    /// Read leases on files (`fcntl(2)`, F_SETLEASE).
    Leases,
    /// fs-verity, with which the kernel protects a file from changes.
    FsVerity,
    /// A layer of confinement around a VMM.
    #[serde(untagged)]
    Layer(Layer),
}

impl CheckId {
    /// Whether every sandbox needs this thing. A layer is never needed in this sense, even if it is required.
    pub(crate) fn is_needed(self) -> bool {
        use CheckId::{Golden, Kvm, Memfd, RunRoot, Vmm, Vsock};
        matches!(self, Kvm | Vmm | Golden | RunRoot | Vsock | Memfd)
    }
}

impl fmt::Display for CheckId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            CheckId::Kvm => "kvm",
            CheckId::Vmm => "vmm",
            CheckId::Golden => "golden",
            CheckId::RunRoot => "run_root",
            CheckId::Vsock => "vsock",
            CheckId::Memfd => "memfd",
            CheckId::Memory => "memory",
            CheckId::Reflink => "reflink",
            CheckId::Leases => "leases",
            CheckId::FsVerity => "fs_verity",
            CheckId::Layer(layer) => layer.name(),
        })
    }
}

/// The result of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckStatus {
    /// The thing is there.
    Good,
    /// The thing is absent or its check gave no result, and sandboxes run without it.
    Warning,
    /// The thing is absent, and it is needed or required.
    Missing,
    /// The check gave no result, and the thing is needed or required.
    Undecided,
}

/// How to fix a problem.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Remedy {
    /// The command, for a shell of the user of this process.
    pub command: String,
    /// Where to type it, or what else to do.
    pub note: Option<String>,
}

impl Remedy {
    pub(super) fn new(command: impl Into<String>) -> Remedy {
        Remedy {
            command: command.into(),
            note: None,
        }
    }

    pub(super) fn note(self, note: impl Into<String>) -> Remedy {
        Remedy {
            note: Some(note.into()),
            ..self
        }
    }
}

impl fmt::Display for Remedy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.note {
            None => write!(f, "`{}`", self.command),
            Some(note) => write!(f, "`{}` ({note})", self.command),
        }
    }
}

impl HostReport {
    pub(super) fn new(checks: Vec<HostCheck>) -> HostReport {
        let any = |status| checks.iter().any(|check| check.status == status);
        let readiness = if any(CheckStatus::Missing) {
            Readiness::NotReady
        } else if any(CheckStatus::Undecided) {
            Readiness::Undecided
        } else {
            Readiness::Ready
        };
        HostReport {
            format: 1,
            readiness,
            checks,
        }
    }

    /// The check of one thing; `None` if it wasn't checked.
    pub fn check(&self, id: CheckId) -> Option<&HostCheck> {
        self.checks.iter().find(|check| check.id == id)
    }
}

impl HostCheck {
    pub(super) fn good(id: CheckId, found: impl Into<String>) -> HostCheck {
        HostCheck {
            id,
            status: CheckStatus::Good,
            found: found.into(),
            lost: None,
            remedy: None,
        }
    }

    /// The thing is absent: `Missing` if it is needed, else `Warning`.
    pub(super) fn lacking(
        id: CheckId,
        found: impl Into<String>,
        lost: &str,
        remedy: Option<Remedy>,
    ) -> HostCheck {
        let status = match id.is_needed() {
            true => CheckStatus::Missing,
            false => CheckStatus::Warning,
        };
        HostCheck {
            id,
            status,
            found: found.into(),
            lost: Some(lost.to_owned()),
            remedy,
        }
    }

    /// The check gave no result: `Undecided` if the thing is needed, else `Warning`.
    pub(super) fn not_found_out(id: CheckId, why: impl Into<String>) -> HostCheck {
        let status = match id.is_needed() {
            true => CheckStatus::Undecided,
            false => CheckStatus::Warning,
        };
        HostCheck {
            id,
            status,
            found: format!("not known: {}", why.into()),
            lost: None,
            remedy: None,
        }
    }
}
