//! Checks whether a golden snapshot can be restored on this host, by this VMM.

use super::vmm::FoundVmm;
use super::{CheckId, HostCheck, Remedy};
use crate::causes::Causes;
use crate::golden::Golden;

/// Compares the release, executable and CPU in the manifest with those of this host. `opened` is the golden snapshot,
/// or the reason why it can't be used.
pub(super) fn check(opened: &Result<Golden, String>, vmm: Option<&FoundVmm>) -> HostCheck {
    let lost = "no sandbox here can be reset to it";
    let lacking = |found, remedy| HostCheck::lacking(CheckId::Golden, found, lost, Some(remedy));
    let golden = match opened {
        Ok(golden) => golden,
        Err(why) => return lacking(why.clone(), mint("DIR")),
    };
    let directory = golden.directory().display();
    let Some(vmm) = vmm else {
        let why = "the VMM that would restore it isn't known";
        return HostCheck::not_found_out(CheckId::Golden, why);
    };
    let release = vmm.release.to_string();
    let manifest = golden.manifest();
    let minted_by = &manifest.release;
    if *minted_by != release {
        let found = format!("{directory}: minted by {minted_by}, and the VMM is {release}");
        return lacking(found, mint("NEW"));
    }
    if let Err(error) = golden.check_host(&release, vmm.executable.as_ref(), false) {
        return lacking(format!("{directory}: {}", Causes(&error)), mint("NEW"));
    }
    let same = match (&manifest.vmm.executable, vmm.executable) {
        (Some(_), Some(_)) => "same executable, release and CPU",
        _ => "same release and CPU",
    };
    let memory = manifest.shape.memory_mib;
    HostCheck::good(
        CheckId::Golden,
        format!("{directory}: {memory} MiB, {same}"),
    )
}

fn mint(out: &str) -> Remedy {
    Remedy::new(format!("chv-sandbox golden mint --image IMAGE --out {out}"))
        .note("or name another one")
}

#[cfg(test)]
mod tests {
    use super::super::CheckStatus;
    use super::*;

    #[test]
    fn one_that_cannot_be_opened_is_missing() {
        let check = check(&Err("no manifest".to_owned()), None);
        assert_eq!(check.status, CheckStatus::Missing);
        assert_eq!(check.found, "no manifest");
        assert!(check.remedy.unwrap().command.contains("golden mint"));
    }
}
