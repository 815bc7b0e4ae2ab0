//! The probe of the real VMM that `CLOUD_HYPERVISOR` names.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use chv_sandbox::compat::probe::{self, Options, Probed};
use chv_sandbox::compat::{Level, Verdict};
use chv_sandbox::spec::{Release, supported};
use tempfile::TempDir;

use crate::real::{processes_with_files_in, snapshot_environment, vmm_binary};

/// Probes the real VMM, and checks that nothing is left in the directory that it ran in.
async fn probed(release: Option<Release>) -> Option<Probed> {
    let binary = vmm_binary()?;
    let directory = TempDir::new().unwrap();
    let env = snapshot_environment(&binary).await;
    let mut options = Options::new(binary, Duration::from_secs(600));
    options.env = env;
    options.release = release;
    options.directory = Some(directory.path().to_owned());
    let probed = probe::probe(&options).await.unwrap();
    let left: Vec<_> = fs::read_dir(directory.path()).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
    assert!(processes_with_files_in(directory.path()).is_empty());
    Some(probed)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a real VMM: set CLOUD_HYPERVISOR"]
async fn a_real_vmm_is_compatible_with_its_own_contract() {
    let Some(probed) = probed(None).await else {
        return;
    };
    let findings = &probed.report.findings;
    let wrong: Vec<_> = findings
        .iter()
        .filter(|finding| finding.level != Level::Info)
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(probed.report.verdict, Verdict::Compatible);
    assert!(probed.unreached.is_empty(), "{:?}", probed.unreached);
    assert!(probed.exchanges > 200, "{}", probed.exchanges);
    assert!(probed.fields > 350, "{}", probed.fields);
}

/// The default builds of v44.0 and v46.0 give the same answers.
const ALIKE: [&str; 2] = ["v44.0", "v46.0"];

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a real VMM: set CLOUD_HYPERVISOR"]
async fn a_real_vmm_differs_from_the_contract_of_every_other_release() {
    let Some(by_itself) = probed(None).await else {
        return;
    };
    let own = by_itself.held_against;
    let ids = |probed: &Probed| {
        let findings = probed.report.findings.iter();
        findings.map(|finding| finding.id).collect::<BTreeSet<_>>()
    };
    let known = ids(&by_itself);
    for release in supported::releases().filter(|release| *release != own) {
        let Some(probed) = probed(Some(release)).await else {
            return;
        };
        let alike = [own, release]
            .iter()
            .all(|release| ALIKE.contains(&&*release.to_string()));
        let new = ids(&probed).difference(&known).count();
        assert_eq!(new == 0, alike, "{own} against {release}");
    }
}
