//! What an examination found.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Layer;

/// What a host has and lacks. See the [module](super) for its JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostReport {
    /// The format of this report: 1.
    pub format: u32,
    /// What all checks together come to.
    pub readiness: Readiness,
    /// Each check, what a VM needs first.
    pub checks: Vec<HostCheck>,
}

/// Whether sandboxes can run on a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Readiness {
    /// They can. There may be warnings.
    Ready,
    /// They can't: something is missing.
    NotReady,
    /// Nothing is known to be missing, but something that is needed couldn't be found out.
    Undecided,
}

/// What was found of one thing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostCheck {
    /// The thing.
    pub id: CheckId,
    /// Whether it is there.
    pub status: CheckStatus,
    /// What was seen, in one line for people. It may quote files and programs: neutralise it before a terminal sees it.
    pub found: String,
    /// What is lost without it; `None` where it is there, or where that isn't known.
    pub lost: Option<String>,
    /// How to get it; `None` where it is there, or where no command gets it.
    pub remedy: Option<Remedy>,
}

/// A thing that is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckId {
    /// `/dev/kvm`, and the right to it.
    Kvm,
    /// The VMM's executable and its release.
    Vmm,
    /// A golden snapshot that was named: whether this host and this VMM may restore it.
    Golden,
    /// The directory below which each VMM has its own.
    RunRoot,
    /// Unix sockets, which hybrid vsock is made of on the host.
    Vsock,
    /// Memory files that can be sealed.
    Memfd,
    /// The memory that a golden snapshot's takes.
    Memory,
    /// Copies of disks that share their blocks.
    Reflink,
    /// Read leases.
    Leases,
    /// Files whose bytes the kernel protects.
    FsVerity,
    /// A layer of the boundary around a VMM.
    #[serde(untagged)]
    Layer(Layer),
}

impl CheckId {
    /// Whether sandboxes can't run without it, whatever is required.
    pub fn is_needed(self) -> bool {
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

/// Whether a thing is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckStatus {
    /// It is.
    Good,
    /// It isn't, or it couldn't be found out; sandboxes run without it.
    Warning,
    /// It isn't, and no sandbox runs without it.
    Missing,
    /// It couldn't be found out, and no sandbox runs without it.
    Undecided,
}

/// How to get something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remedy {
    /// The command, for a shell of the user that asked.
    pub command: String,
    /// Where to type it or what else to do.
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

    /// What was found of one thing; `None` where it wasn't looked at.
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

    /// It isn't there: missing if it is needed, else a warning.
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

    /// Whether it is there couldn't be found out: undecided if it is needed, else a warning.
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
