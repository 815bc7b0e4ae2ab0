//! Tests of the examination as a whole, and a simulated host for the tests of its parts.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::json;
use tempfile::TempDir;

use super::*;

/// A directory that holds the files of a simulated host. Its caller is an ordinary user outside a container.
pub(super) struct Place(TempDir);

impl Place {
    pub(super) fn new() -> Place {
        Place(TempDir::with_prefix("doctor-").unwrap())
    }

    pub(super) fn in_directory(directory: &Path) -> io::Result<Place> {
        TempDir::with_prefix_in("doctor-", directory).map(Place)
    }

    pub(super) fn host(&self) -> Host {
        Host {
            kvm: self.path("kvm"),
            proc: self.path("proc"),
            cgroups: self.path("cgroups"),
            groups: self.path("group"),
            caller: Caller {
                root: false,
                container: false,
            },
        }
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(super) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    /// Creates an executable shell script. Another process writes it: if this process wrote it, a child of another test
    /// might inherit the file open for writing, and the script could not be executed then.
    pub(super) fn program(&self, name: &str, script: &str) -> PathBuf {
        let path = self.path(name);
        let written = std::process::Command::new("sh")
            .args([
                "-c",
                r#"printf '#!/bin/sh\n%s\n' "$1" > "$0" && chmod 700 "$0""#,
            ])
            .arg(&path)
            .arg(script)
            .status();
        assert!(written.unwrap().success());
        path
    }

    pub(super) fn remove(&self, name: &str) {
        fs::remove_file(self.path(name)).unwrap();
    }

    /// The names in the directory.
    pub(super) fn names(&self) -> Vec<String> {
        let entries = self.0.path().read_dir().unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.collect()
    }
}

/// The consequence and the remedy of a check, in one text.
pub(super) fn text(check: &HostCheck) -> String {
    let remedy = check.remedy.as_ref().map(ToString::to_string);
    format!(
        "{}; {}",
        check.lost.as_deref().unwrap_or_default(),
        remedy.unwrap_or_default()
    )
}

fn examination(place: &Place, vmm: &Path) -> HostExamination {
    HostExamination {
        vmm: VmmConfig {
            binary: vmm.to_owned(),
            run_root: place.path("run"),
            ..VmmConfig::default()
        },
        ..HostExamination::default()
    }
}

#[tokio::test]
async fn a_host_that_lacks_everything_is_not_ready_and_stays_as_it_is() {
    let place = Place::new();
    let mut asked = examination(&place, "no-such-vmm-anywhere".as_ref());
    asked.golden = Some(place.path("golden"));
    asked.require = Layer::ALL.to_vec();
    let report = examine_host(place.host(), &asked).await;
    assert_eq!(report.readiness, Readiness::NotReady);
    for id in [CheckId::Kvm, CheckId::Vmm, CheckId::Golden, CheckId::Vsock] {
        let check = report.check(id).unwrap();
        assert_eq!(check.status, CheckStatus::Missing, "{check:?}");
    }
    for (n, check) in report.checks.iter().enumerate() {
        let good = check.status == CheckStatus::Good;
        let known = !check.found.starts_with("not known: ");
        assert_eq!(check.lost.is_some(), known && !good, "{check:?}");
        assert!(!check.found.is_empty() && !check.found.contains('\n'));
        let again = report.checks[n + 1..]
            .iter()
            .any(|other| other.id == check.id);
        assert!(!again, "{check:?}");
    }
    for layer in Layer::ALL {
        assert!(report.check(CheckId::Layer(layer)).is_some(), "{layer:?}");
    }
    assert!(place.names().is_empty());
}

#[test]
fn the_readiness_is_that_of_what_is_needed() {
    let good = || HostCheck::good(CheckId::Kvm, "");
    let readiness = |checks: Vec<HostCheck>| HostReport::new(checks).readiness;
    assert_eq!(readiness(vec![good()]), Readiness::Ready);
    let warning = HostCheck::lacking(CheckId::Reflink, "", "", None);
    let unknown = HostCheck::not_found_out(CheckId::Leases, "");
    let checks = vec![good(), warning, unknown];
    assert_eq!(readiness(checks), Readiness::Ready);
    let undecided = || HostCheck::not_found_out(CheckId::Vmm, "");
    assert_eq!(readiness(vec![good(), undecided()]), Readiness::Undecided);
    let missing = HostCheck::lacking(CheckId::Memfd, "", "", None);
    assert_eq!(readiness(vec![undecided(), missing]), Readiness::NotReady);
}

#[test]
fn the_report_has_its_documented_json() {
    let remedy = Remedy::new("sudo usermod -aG kvm $USER").note("then log in again");
    let denied = "/dev/kvm: Permission denied (os error 13)";
    let report = HostReport::new(vec![
        HostCheck::lacking(CheckId::Kvm, denied, "no VM can run", Some(remedy)),
        HostCheck::good(CheckId::Layer(Layer::NoNewPrivs), "set"),
        HostCheck::not_found_out(CheckId::FsVerity, "why"),
    ]);
    let expected = json!({
        "format": 1,
        "readiness": "not_ready",
        "checks": [
            {
                "id": "kvm",
                "status": "missing",
                "found": denied,
                "lost": "no VM can run",
                "remedy": { "command": "sudo usermod -aG kvm $USER", "note": "then log in again" }
            },
            { "id": "no_new_privs", "status": "good", "found": "set", "lost": null, "remedy": null },
            { "id": "fs_verity", "status": "warning", "found": "not known: why", "lost": null, "remedy": null }
        ]
    });
    assert_eq!(serde_json::to_value(&report).unwrap(), expected);
    assert_eq!(
        serde_json::from_value::<HostReport>(expected).unwrap(),
        report
    );
}

#[tokio::test]
async fn a_trial_that_hangs_or_panics_is_not_known() {
    let host = Place::new().host();
    let panics = blocking(&host, CheckId::Kvm, |_| panic!("odd")).await;
    assert_eq!(panics.status, CheckStatus::Undecided);
    let panics = blocking(&host, CheckId::Reflink, |_| panic!("odd")).await;
    assert_eq!(panics.status, CheckStatus::Warning);
}

#[test]
fn the_nearest_directory_is_found() {
    let place = Place::new();
    let file = place.write("a/file", "");
    fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
    assert_eq!(nearest(&place.path("a/b/c")), place.path("a"));
    assert_eq!(nearest(&place.path("a/file/c")), place.path("a"));
    assert_eq!(nearest(Path::new("/nonexistent/b")), Path::new("/"));
}
