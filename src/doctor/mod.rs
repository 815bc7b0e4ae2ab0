//! Finds out what this host lacks to run sandboxes, and how to get it. The main items are [`examine`] and its
//! [`HostReport`].
//!
//! [`examine`] tries each thing that a sandbox needs, as this user and in this process's own container. It opens
//! `/dev/kvm`, seals a memory file, takes a lease, clones a file and starts the VMM, and concludes nothing from version
//! numbers alone. No trial needs root, each has a time limit, and none leaves anything behind.
//!
//! # The report as JSON
//!
//! ```json
//! {
//!   "format": 1,
//!   "readiness": "not_ready",
//!   "checks": [
//!     {
//!       "id": "kvm",
//!       "status": "missing",
//!       "found": "/dev/kvm: Permission denied (os error 13)",
//!       "lost": "no VM can run",
//!       "remedy": { "command": "sudo usermod -aG kvm $USER", "note": "then log in again" }
//!     },
//!     { "id": "vmm", "status": "good", "found": "v53.0, /usr/bin/cloud-hypervisor", "lost": null, "remedy": null }
//!   ]
//! }
//! ```
//!
//! | field | values |
//! |---|---|
//! | `format` | 1. New fields don't change the number; another number means that one of these fields has changed |
//! | `readiness` | `ready`, `not_ready`, `undecided` ([`Readiness`]) |
//! | `id` | [`CheckId`]; each at most once, in the order of its variants |
//! | `status` | `good`, `warning`, `missing`, `undecided` ([`CheckStatus`]) |
//! | `found` | text for people |
//! | `lost` | the consequence of not having it; null if the thing is there or the check gave no result |
//! | `remedy` | the command that gets it, with a note or null; null if there is no such command |
//!
//! If a thing is absent that every sandbox needs, its status is `missing`, and `readiness` is `not_ready`. If a thing
//! is absent that only makes sandboxes faster, its status is `warning`. The absence of a confinement layer is a
//! `warning` too, unless [`HostExamination::require`] names the layer.
//!
//! [`hint`] takes an error that has happened already, and names the check that explains it.

mod caller;
mod golden;
mod hint;
mod kvm;
mod layers;
mod memory;
mod mount;
mod report;
mod run_root;
mod scratch;
mod storage;
mod version;
mod vmm;

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::timeout;

use crate::causes::Causes;
use crate::golden::Golden;
use crate::vmm::{KVM_DEVICE, VmmConfig};

pub use crate::vmm::Layer;
pub use hint::{Hint, hint};
pub use report::{CheckId, CheckStatus, HostCheck, HostReport, Readiness, Remedy};

use caller::Caller;
use memory::Memory;

/// The time limit of one trial. A trial takes milliseconds, unless a filesystem doesn't respond.
const LIMIT: Duration = Duration::from_secs(5);

/// The input of [`examine`].
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct HostExamination {
    /// The VMM, and the run root in which its run directories would be created.
    pub vmm: VmmConfig,
    /// A golden snapshot whose restore on this host is examined too.
    pub golden: Option<PathBuf>,
    /// The confinement layers that the host must have. An absent one makes the host not ready.
    pub require: Vec<Layer>,
}

/// The paths under which this host is examined. Tests use paths of their own.
#[derive(Clone, Debug)]
struct Host {
    kvm: PathBuf,
    proc: PathBuf,
    cgroups: PathBuf,
    groups: PathBuf,
    caller: Caller,
}

impl Host {
    fn this() -> Host {
        Host {
            kvm: KVM_DEVICE.into(),
            proc: "/proc".into(),
            cgroups: "/sys/fs/cgroup".into(),
            groups: "/etc/group".into(),
            caller: Caller::this(),
        }
    }

    /// A kernel setting such as `user/max_user_namespaces`; `None` if it can't be read.
    fn sysctl(&self, name: &str) -> Option<String> {
        let text = std::fs::read_to_string(self.proc.join("sys").join(name)).ok()?;
        Some(text.trim().to_owned())
    }
}

/// Examines this host. Usually takes less than a second. If a filesystem or the VMM hangs, each trial that needs it is
/// given up after 5 s.
///
/// Never fails: a check that gives no result has the status [`Warning`](CheckStatus::Warning) or
/// [`Undecided`](CheckStatus::Undecided) in the report, with the reason.
pub async fn examine(examination: &HostExamination) -> HostReport {
    examine_host(Host::this(), examination).await
}

async fn examine_host(host: Host, examination: &HostExamination) -> HostReport {
    let HostExamination {
        vmm,
        golden,
        require,
    } = examination;
    let run_root = vmm.run_root.clone();
    let kvm = blocking(&host, CheckId::Kvm, kvm::check).await;
    let root_check = {
        let run_root = run_root.clone();
        let check = move |host: &Host| run_root::check(host, &run_root);
        blocking(&host, CheckId::RunRoot, check).await
    };
    let usable = |check: &HostCheck| check.status == CheckStatus::Good;
    // Without KVM or a run root the VMM would exit before it reports its release.
    let starts = usable(&kvm) && usable(&root_check);
    let (vmm_check, found) = vmm::check(&host, vmm, starts).await;
    let opened = match golden.clone() {
        Some(directory) => Some(open(directory).await),
        None => None,
    };
    let loaded = opened.as_ref().and_then(|opened| opened.as_ref().ok());

    let mut checks = vec![kvm, vmm_check];
    if let Some(opened) = &opened {
        checks.push(golden::check(opened, found.as_ref()));
    }
    checks.push(root_check);
    {
        let run_root = run_root.clone();
        let check = move |host: &Host| run_root::check_vsock(host, &run_root);
        checks.push(blocking(&host, CheckId::Vsock, check).await);
    }
    {
        let run_root = run_root.clone();
        let check = move |host: &Host| memory::check_memfd(host, &run_root);
        checks.push(blocking(&host, CheckId::Memfd, check).await);
    }
    let need = Memory::of(loaded);
    let check = move |host: &Host| memory::check_memory(host, need);
    checks.push(blocking(&host, CheckId::Memory, check).await);
    for (id, check) in storage::CHECKS {
        let (run_root, golden) = (run_root.clone(), loaded.cloned());
        let check = move |host: &Host| check(host, &run_root, golden.as_ref());
        checks.push(blocking(&host, *id, check).await);
    }
    checks.extend(layers::checks(&host, require).await);
    HostReport::new(checks)
}

/// The golden snapshot in `directory`, or why it can't be used.
async fn open(directory: PathBuf) -> Result<Golden, String> {
    let opened = within_limit(move || Golden::open(&directory)).await;
    opened.and_then(|opened| opened.map_err(|error| Causes(&error).to_string()))
}

/// Runs a check on a thread that may block.
async fn blocking(
    host: &Host,
    id: CheckId,
    check: impl FnOnce(&Host) -> HostCheck + Send + 'static,
) -> HostCheck {
    let host = host.clone();
    let checked = within_limit(move || check(&host)).await;
    checked.unwrap_or_else(|why| HostCheck::not_found_out(id, why))
}

/// Runs `work` on a thread that may block. Fails if it panics or exceeds [`LIMIT`].
async fn within_limit<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, String> {
    match timeout(LIMIT, tokio::task::spawn_blocking(work)).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(_)) => Err("the trial panicked".to_owned()),
        Err(_) => Err(format!("no answer within {} s", LIMIT.as_secs())),
    }
}

/// The nearest existing directory: `path` itself, or the closest one above it.
fn nearest(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut above = path.ancestors();
    let found = above.find(|directory| directory.is_dir());
    found.unwrap_or(Path::new("/")).to_owned()
}

#[cfg(test)]
mod tests;
