//! Checks the VMM: its executable, its release, and whether it starts.

use std::env;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::scratch::Scratch;
use super::version::version_of;
use super::{CheckId, Host, HostCheck, Remedy, nearest, within_limit};
use crate::causes::Causes;
use crate::client::Release;
use crate::golden::ExecutableFacts;
use crate::machine::maps_memory;
use crate::overlay::Digest;
use crate::sandbox::OLDEST_RELEASE;
use crate::vmm::{self, Vmm, VmmConfig, examine_run_root, find_binary};

const LOST: &str = "no VM can run";

/// The time limit for the VMM's first answer, which usually takes milliseconds.
const READY: Duration = Duration::from_secs(5);

/// A VMM that was found.
#[derive(Clone, Debug)]
pub(super) struct FoundVmm {
    pub(super) release: Release,
    /// The digest of the executable that its process ran; `None` if it was not started.
    pub(super) executable: Option<Digest>,
}

/// Finds the VMM and its release. If `starts`, also starts the VMM, in a temporary run root.
pub(super) async fn check(
    host: &Host,
    config: &VmmConfig,
    starts: bool,
) -> (HostCheck, Option<FoundVmm>) {
    let lacking = |found: String, remedy| {
        let check = HostCheck::lacking(CheckId::Vmm, found, LOST, remedy);
        (check, None)
    };
    let asked = {
        let binary = config.binary.clone();
        within_limit(move || {
            let path = find_binary(&binary)?;
            let version = version_of(&path);
            Ok::<_, vmm::Error>((path, version))
        })
    };
    let (path, version) = match asked.await {
        Ok(Ok(found)) => found,
        Ok(Err(error)) => return lacking(why(&error), Some(remedy(host, &error))),
        Err(why) => return (HostCheck::not_found_out(CheckId::Vmm, why), None),
    };
    let shown = path.display();
    let found = match (starts, version) {
        (true, _) => match start(config).await {
            Ok(found) => found,
            Err(why) => {
                let found = format!("{shown} doesn't start: {why}");
                let command = format!("{shown} --api-socket path=/tmp/chv.sock -v");
                return lacking(found, Some(Remedy::new(command).note("shows why")));
            }
        },
        (false, Ok(release)) => FoundVmm {
            release,
            executable: None,
        },
        (false, Err(error)) => {
            return lacking(format!("{shown}: {}", Causes(&error)), Some(install(host)));
        }
    };
    let release = found.release;
    if release < OLDEST_RELEASE {
        let found = format!("{release}, {shown}: older than {OLDEST_RELEASE}");
        return lacking(found, Some(install(host)));
    }
    let started = if starts { "" } else { "; not started" };
    let said = format!("{release}, {shown}{started}");
    let check = match maps_memory(&release.to_string()) {
        true => HostCheck::good(CheckId::Vmm, said),
        false => HostCheck {
            status: super::CheckStatus::Warning,
            ..HostCheck::lacking(
                CheckId::Vmm,
                said,
                "each restore copies the guest's memory: mapping was not tested on this release",
                Some(install(host)),
            )
        },
    };
    (check, Some(found))
}

/// Starts the VMM, asks it for its release, and ends it.
async fn start(config: &VmmConfig) -> Result<FoundVmm, String> {
    let places = [nearest(&config.run_root), env::temp_dir()];
    let scratch = within_limit(move || places.iter().find_map(|place| run_root_in(place))).await?;
    let scratch =
        scratch.ok_or("no directory with a short enough path is writable for the trial")?;
    let mut config = VmmConfig {
        run_root: scratch.path().to_owned(),
        ..config.clone()
    };
    config.limits.vmm_start = config.limits.vmm_start.min(READY);
    let vmm = Vmm::spawn(&config)
        .await
        .map_err(|error| Causes(&error).to_string())?;
    let asked = query_facts(&vmm).await;
    vmm.shutdown().await;
    asked
}

/// Creates a temporary run root in `place`; `None` if that fails or its sockets' paths would be too long.
fn run_root_in(place: &Path) -> Option<Scratch> {
    let scratch = Scratch::create(place).ok()?;
    let fits = examine_run_root(scratch.path()).is_ok();
    fits.then_some(scratch)
}

async fn query_facts(vmm: &Vmm) -> Result<FoundVmm, String> {
    let release = vmm.client().release().await;
    let release = release.map_err(|error| Causes(&error).to_string())?;
    let executable = match vmm.process() {
        Some(process) => ExecutableFacts::of_process(process).await.ok(),
        None => None,
    };
    Ok(FoundVmm {
        release,
        executable: executable.map(|facts| facts.sha256),
    })
}

/// Why the executable can't be used, without the advice that the error's own text has.
fn why(error: &vmm::Error) -> String {
    match error {
        vmm::Error::BinaryNotFound {
            binary,
            searched_path,
        } => {
            let place = if *searched_path { " in PATH" } else { "" };
            format!("there is no {}{place}", binary.display())
        }
        vmm::Error::NotExecutable { binary, source } => {
            format!("{} can't be executed: {source}", binary.display())
        }
        error => Causes(error).to_string(),
    }
}

/// The command to type for an executable that can't be started.
pub(super) fn remedy(host: &Host, error: &vmm::Error) -> Remedy {
    match error {
        vmm::Error::NotExecutable { binary, .. } | vmm::Error::Spawn { binary, .. } => {
            executable(host, binary)
        }
        _ => install(host),
    }
}

fn executable(host: &Host, binary: &Path) -> Remedy {
    let binary: PathBuf = std::path::absolute(binary).unwrap_or_else(|_| binary.to_owned());
    let noexec = binary.parent().is_some_and(|directory| {
        let space = rustix::fs::statvfs(directory);
        space.is_ok_and(|space| space.f_flag.contains(rustix::fs::StatVfsMountFlags::NOEXEC))
    });
    match noexec {
        true => {
            let command = format!("install {} /usr/local/bin/", binary.display());
            Remedy::new(host.caller.as_root(&command)).note("its filesystem is mounted noexec")
        }
        false => Remedy::new(
            host.caller
                .as_root(&format!("chmod +x {}", binary.display())),
        ),
    }
}

/// Downloads the newest release that this crate was tested with.
fn install(host: &Host) -> Remedy {
    const RELEASES: &str =
        "https://github.com/cloud-hypervisor/cloud-hypervisor/releases/download/v53.0";
    let asset = match std::env::consts::ARCH {
        "aarch64" => "cloud-hypervisor-static-aarch64",
        _ => "cloud-hypervisor-static",
    };
    let install = host
        .caller
        .as_root("install cloud-hypervisor /usr/local/bin/");
    Remedy::new(format!(
        "curl -Lo cloud-hypervisor {RELEASES}/{asset} && {install}"
    ))
    .note("or name it with --vmm")
}

#[cfg(test)]
mod tests {
    use super::super::CheckStatus;
    use super::super::tests::{Place, text};
    use super::*;

    async fn check_binary(place: &Place, binary: PathBuf) -> (HostCheck, Option<FoundVmm>) {
        let config = VmmConfig {
            binary,
            run_root: place.path("run"),
            ..VmmConfig::default()
        };
        check(&place.host(), &config, false).await
    }

    #[tokio::test]
    async fn one_that_cannot_be_executed_is_missing() {
        let place = Place::new();
        let (check, found) = check_binary(&place, "no-such-vmm-anywhere".into()).await;
        assert_eq!(check.status, CheckStatus::Missing);
        assert!(check.found.contains("no-such-vmm-anywhere in PATH"));
        assert!(text(&check).contains("sudo install cloud-hypervisor"));
        assert!(found.is_none());
        let (check, _) = check_binary(&place, place.write("vmm", "")).await;
        assert_eq!(check.status, CheckStatus::Missing);
        let said = text(&check);
        // The tests may run on a filesystem that is mounted noexec.
        assert!(
            said.contains("sudo chmod +x") || said.contains("noexec"),
            "{said}"
        );
    }

    #[tokio::test]
    async fn its_release_decides() {
        let place = Place::new();
        let told = async |script: &str| check_binary(&place, place.program("vmm", script)).await;
        let (check, found) = told("echo cloud-hypervisor v53.0").await;
        assert_eq!(check.status, CheckStatus::Good, "{check:?}");
        assert!(check.found.starts_with("v53.0, "), "{check:?}");
        assert_eq!(found.unwrap().release, Release::new(53, 0));
        let (check, found) = told("echo cloud-hypervisor v50.2").await;
        assert_eq!(check.status, CheckStatus::Warning, "{check:?}");
        assert!(found.is_some());
        let (check, _) = told("echo cloud-hypervisor v43.0").await;
        assert_eq!(check.status, CheckStatus::Missing);
        assert!(check.found.contains("older than v44.0"), "{check:?}");
        let (check, _) = told("echo qemu").await;
        assert_eq!(check.status, CheckStatus::Missing);
        assert!(check.found.contains("\"qemu\""), "{check:?}");
        place.remove("vmm");
        assert!(place.names().is_empty());
    }
}
