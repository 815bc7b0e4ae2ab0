//! [`hint`]: names the check that explains an error.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use super::{CheckId, Host, Remedy, kvm, layers, run_root, vmm as vmm_check};
use crate::causes::Causes;
use crate::vmm::NoKvm;
use crate::{golden, machine, overlay, vmm};

/// The check that explains an error, and its remedy. The [`Display`](fmt::Display) text is one line to print after the
/// error.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Hint {
    /// The check that finds the same problem.
    pub check: CheckId,
    /// How to fix it, if the error has enough information for that.
    pub remedy: Option<Remedy>,
}

impl fmt::Display for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(remedy) = &self.remedy {
            write!(f, "{remedy}; ")?;
        }
        write!(
            f,
            "`chv-sandbox doctor` examines this host ({})",
            self.check
        )
    }
}

/// Returns a hint for an error of a boot, a mint or a start of a VMM, if the error or one of its sources comes from a
/// missing permission or a missing part of the host. `None` for other errors.
///
/// ```
/// # use chv_sandbox::doctor;
/// # async fn boot(sandbox: &dyn chv_sandbox::sandbox::Sandbox) {
/// if let Err(error) = sandbox.boot().await
///     && let Some(hint) = doctor::hint(&error)
/// {
///     eprintln!("{hint}");
/// }
/// # }
/// ```
pub fn hint(error: &(dyn Error + 'static)) -> Option<Hint> {
    hint_on(&Host::this(), error)
}

fn hint_on(host: &Host, error: &(dyn Error + 'static)) -> Option<Hint> {
    let explained = Causes(error).iter().find_map(|error| explain(host, error));
    explained.map(|(check, remedy)| Hint { check, remedy })
}

/// Maps errors to checks and remedies. This is the only place where a hint depends on the kind of an error.
fn explain(host: &Host, error: &(dyn Error + 'static)) -> Option<(CheckId, Option<Remedy>)> {
    if let Some(NoKvm { source, .. }) = error.downcast_ref() {
        return Some((CheckId::Kvm, kvm::remedy(host, source)));
    }
    if let Some(error) = error.downcast_ref::<vmm::Error>() {
        return match error {
            vmm::Error::BinaryNotFound { .. }
            | vmm::Error::NotExecutable { .. }
            | vmm::Error::Spawn { .. } => {
                Some((CheckId::Vmm, Some(vmm_check::remedy(host, error))))
            }
            vmm::Error::RunRoot { path, .. } | vmm::Error::PathTooLong { path, .. } => {
                Some((CheckId::RunRoot, Some(run_root::remedy(path))))
            }
            vmm::Error::RunDir { .. } => Some((CheckId::RunRoot, None)),
            vmm::Error::LayerMissing { layer, .. } => {
                Some((CheckId::Layer(*layer), layers::remedy(host, *layer)))
            }
            _ => None,
        };
    }
    if let Some(machine::Error::Api { source, .. }) = shared(error) {
        return lacks_kvm(source.messages()).then_some((CheckId::Kvm, None));
    }
    if let Some(golden::Error::Memory(error)) = shared(error) {
        return match error {
            overlay::Error::NoLease { .. } => Some((CheckId::Leases, None)),
            overlay::Error::NoSpace { .. } => Some((CheckId::Memory, None)),
            overlay::Error::Io { .. } => Some((CheckId::Memfd, None)),
            _ => None,
        };
    }
    match error.downcast_ref() {
        Some(overlay::Error::NoSpace { .. }) => Some((CheckId::RunRoot, None)),
        _ => None,
    }
}

/// Downcasts to `T`, or to `Arc<T>`.
fn shared<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    let shared = || error.downcast_ref::<Arc<T>>().map(Arc::as_ref);
    error.downcast_ref().or_else(shared)
}

/// Whether the VMM's messages say that the kernel refused it the use of KVM. The API reports this only as text.
fn lacks_kvm(messages: &[String]) -> bool {
    const WORDS: [&str; 3] = ["hypervisor interface", "Failed to create Vm", "/dev/kvm"];
    let lacks = |message: &String| WORDS.iter().any(|words| message.contains(words));
    messages.iter().any(lacks)
}

#[cfg(test)]
mod tests {
    use std::io::{self, ErrorKind};
    use std::time::Duration;

    use super::super::tests::Place;
    use super::*;
    use crate::golden::MintError;
    use crate::sandbox::{self, BootFailure, Unavailable};

    fn denied() -> io::Error {
        ErrorKind::PermissionDenied.into()
    }

    #[track_caller]
    fn check(error: &(dyn Error + 'static), expected: Option<(CheckId, &str)>) {
        let place = Place::new();
        let mut host = place.host();
        host.caller.root = true;
        let found = hint_on(&host, error);
        let Some((id, words)) = expected else {
            assert_eq!(found, None);
            return;
        };
        let found = found.unwrap();
        assert_eq!(found.check, id);
        let text = found.to_string();
        assert!(text.contains("`chv-sandbox doctor`"), "{text}");
        assert!(text.contains(words), "{text}");
    }

    #[test]
    fn what_a_boot_or_a_mint_lacks_is_named_however_deep_it_lies() {
        let no_kvm = || NoKvm {
            device: "/dev/kvm".into(),
            source: denied(),
        };
        let booted = sandbox::Error::NotAvailable(Arc::new(Unavailable::Kvm(no_kvm())));
        check(&booted, Some((CheckId::Kvm, "setfacl")));
        let died = vmm::Error::DiedAtStart {
            binary: "vmm".into(),
            ended: Box::new(vmm::Ended {
                pid: 7,
                exit: vmm::Exit::Code(1),
                log_tail: String::new(),
            }),
            source: Some(no_kvm()),
        };
        let minted = MintError::Boot(machine::Error::Vmm(died));
        check(&minted, Some((CheckId::Kvm, "setfacl")));
        let not_found = vmm::Error::BinaryNotFound {
            binary: "vmm".into(),
            searched_path: true,
        };
        let booted = sandbox::Error::NotAvailable(Arc::new(Unavailable::Vmm(not_found)));
        check(&booted, Some((CheckId::Vmm, "install cloud-hypervisor")));
        let not_executable = vmm::Error::NotExecutable {
            binary: "/nowhere/vmm".into(),
            source: denied(),
        };
        check(
            &not_executable,
            Some((CheckId::Vmm, "chmod +x /nowhere/vmm")),
        );
        let run_root = vmm::Error::RunRoot {
            path: "/nowhere".into(),
            problem: "it can't be created",
            source: Some(denied()),
        };
        let minted = MintError::Boot(machine::Error::Vmm(run_root));
        check(&minted, Some((CheckId::RunRoot, "--run-root")));
        let memory = |error| {
            let failed = BootFailure::Golden(golden::Error::Memory(error));
            sandbox::Error::BootFailed(Arc::new(failed))
        };
        let memfd = memory(overlay::Error::Io {
            operation: "make a memory file for",
            path: "memory-ranges".into(),
            source: denied(),
        });
        check(&memfd, Some((CheckId::Memfd, "memfd")));
        let lease = memory(overlay::Error::NoLease {
            path: "memory-ranges".into(),
        });
        check(&lease, Some((CheckId::Leases, "leases")));
    }

    #[test]
    fn a_vmm_says_itself_that_it_was_refused_kvm() {
        let lacks = |messages: &[&str]| {
            let messages: Vec<_> = messages.iter().map(ToString::to_string).collect();
            lacks_kvm(&messages)
        };
        assert!(lacks(&[
            "Error from API",
            "Failed to create Vm",
            "Permission denied (os error 13)"
        ]));
        assert!(!lacks(&[
            "Error from API",
            "The VM could not boot",
            "Permission denied (os error 13)"
        ]));
        assert!(!lacks(&[]));
    }

    #[test]
    fn another_matter_has_no_hint() {
        check(&sandbox::Error::ShutDown, None);
        check(&io::Error::from(ErrorKind::NotFound), None);
        let restless = MintError::Restless {
            limit: Duration::from_secs(1),
            last: 7,
        };
        check(&restless, None);
        let died = vmm::Error::DiedAtStart {
            binary: "vmm".into(),
            ended: Box::new(vmm::Ended {
                pid: 7,
                exit: vmm::Exit::Code(2),
                log_tail: "hypervisor interface".to_owned(),
            }),
            source: None,
        };
        check(&died, None);
    }
}
