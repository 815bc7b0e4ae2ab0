//! Refuses a request, before it is sent, of which the VMM's release would ignore a part.

use std::path::Path;

use super::{ErrorKind, Release};
use crate::api::{Operation, Requirement, SUPPORTED, support};

/// How many fields and values an error names.
const MOST_NAMED: usize = 8;

/// The error for a request with these requirements to a VMM of release `server`. None if the release meets all.
pub(super) fn of(
    operation: Operation,
    requirements: &[Requirement],
    server: Release,
) -> Option<ErrorKind> {
    let mut unmet: Vec<&Requirement> = requirements
        .iter()
        .filter(|requirement| !requirement.is_met_by(server))
        .collect();
    // If the operation is missing, its fields don't matter.
    if let Some(&whole) = unmet
        .iter()
        .find(|requirement| requirement.what == operation.name())
    {
        unmet = vec![whole];
    }
    let known = unmet
        .iter()
        .all(|requirement| requirement.support.is_some());
    let supports = || unmet.iter().filter_map(|requirement| requirement.support);
    (!unmet.is_empty()).then(|| ErrorKind::NotSupported {
        what: named(operation, &unmet),
        since: supports()
            .filter_map(|support| support.since)
            .max()
            .filter(|_| known),
        until: supports()
            .filter_map(|support| support.until)
            .min()
            .filter(|_| known),
        server: Some(server),
    })
}

/// `/resume and /memory_restore_mode in vm.restore`, or the operation alone where the release doesn't have it.
fn named(operation: Operation, unmet: &[&Requirement]) -> String {
    let mut names: Vec<&str> = unmet.iter().map(|requirement| &*requirement.what).collect();
    let more = match names.len().saturating_sub(MOST_NAMED) {
        0 => None,
        more => Some(format!("{more} more")),
    };
    names.truncate(MOST_NAMED);
    names.extend(more.as_deref());
    match names.split_last() {
        Some((&last, [])) if last == operation.name() => last.to_owned(),
        Some((last, [])) => format!("{last} in {operation}"),
        Some((last, others)) => format!("{} and {last} in {operation}", others.join(", ")),
        None => operation.name().to_owned(),
    }
}

/// Logs a warning if the release is newer or older than every supported one.
pub(super) fn warn_unless_supported(release: Release, socket: &Path) {
    let (oldest, newest) = (SUPPORTED[0], support::newest());
    let (which, as_which) = if release > newest {
        ("newer", newest)
    } else if release < oldest {
        ("older", oldest)
    } else {
        return;
    };
    tracing::warn!(
        socket = %socket.display(),
        %release,
        "the VMM is {which} than every supported release; it is treated as {as_which}"
    );
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::api::Request;

    /// The text of the error that refuses a request. None if the request is sent.
    fn refused(operation: Operation, body: &str, server: &str) -> Option<String> {
        let body = (!body.is_empty()).then(|| Bytes::copy_from_slice(body.as_bytes()));
        let requirements = Request::raw(operation, body).requirements();
        of(operation, &requirements, server.parse().unwrap()).map(|kind| kind.to_string())
    }

    #[test]
    fn each_release_gets_what_it_knows() {
        use Operation::{VmAddGenericVhostUser, VmCreate, VmResizeDisk, VmRestore};
        /// `refused` lists the releases that must refuse; all others must not.
        fn check(operation: Operation, body: &str, refusing: &[&str]) {
            let servers = [
                "v43.0", "v44.0", "v45.0", "v46.0", "v47.0", "v48.0", "v49.0", "v50.0", "v50.2",
                "v51.0", "v51.2", "v52.0", "v53.0", "v53.1", "v54.0",
            ];
            let refused: Vec<&str> = servers
                .into_iter()
                .filter(|server| refused(operation, body, server).is_some())
                .collect();
            assert_eq!(refused, refusing, "{operation} {body}");
        }
        let before_52 = &[
            "v43.0", "v44.0", "v45.0", "v46.0", "v47.0", "v48.0", "v49.0", "v50.0", "v50.2",
            "v51.0", "v51.2",
        ];
        check(VmCreate, "{}", &[]);
        check(VmRestore, r#"{"source_url":"file:///s"}"#, &[]);
        check(VmRestore, r#"{"resume":true}"#, before_52);
        check(VmRestore, r#"{"resume":null}"#, &[]);
        check(VmRestore, r#"{"memory_restore_mode":"Copy"}"#, before_52);
        check(VmAddGenericVhostUser, "{}", before_52);
        check(VmResizeDisk, "{}", &before_52[..8]);
        check(
            VmCreate,
            r#"{"disks":[{},{"backing_files":true}]}"#,
            &before_52[..8],
        );
        // Removed in v48.0: no supported release says whether v47.0 still has it.
        let after_46 = &[
            "v47.0", "v48.0", "v49.0", "v50.0", "v50.2", "v51.0", "v51.2", "v52.0", "v53.0",
            "v53.1", "v54.0",
        ];
        check(VmCreate, r#"{"sgx_epc":[{"id":"a"}]}"#, after_46);
        // A field that no supported release has may be one of a newer release.
        let up_to_53 = &[
            "v43.0", "v44.0", "v45.0", "v46.0", "v47.0", "v48.0", "v49.0", "v50.0", "v50.2",
            "v51.0", "v51.2", "v52.0", "v53.0",
        ];
        check(VmCreate, r#"{"no_such_field":1}"#, up_to_53);
        check(VmCreate, r#"{"no_such_field":null}"#, &[]);
        check(VmCreate, r#"{"memory":{"size":1,"nor_this":{}}}"#, up_to_53);
        check(VmCreate, r#"{"console":{"mode":"Hologram"}}"#, up_to_53);
        // The server refuses these.
        check(VmCreate, "not json", &[]);
        check(VmCreate, r#"{"disks":7,"memory":[]}"#, &[]);
    }

    #[test]
    fn a_refusal_names_everything_with_its_place() {
        fn check(operation: Operation, body: &str, server: &str, expected: &str) {
            assert_eq!(refused(operation, body, server).as_deref(), Some(expected));
        }
        use Operation::{VmCreate, VmRestore};
        check(
            VmRestore,
            r#"{"source_url":"x","memory_restore_mode":"OnDemand"}"#,
            "v51.2",
            "/memory_restore_mode in vm.restore is not supported by v51.2; it came with v52.0",
        );
        check(
            VmRestore,
            r#"{"resume":true,"memory_restore_mode":"OnDemand"}"#,
            "v51.2",
            "/resume and /memory_restore_mode in vm.restore is not supported by v51.2; it came with v52.0",
        );
        check(
            VmCreate,
            r#"{"disks":[{},{"backing_files":true}],"rtc":{"iommu":true}}"#,
            "v48.0",
            "/disks/1/backing_files and /rtc in vm.create is not supported by v48.0; it came with v53.0",
        );
        check(
            VmCreate,
            r#"{"sgx_epc":[{"id":"a","prefault":true}]}"#,
            "v53.0",
            "/sgx_epc in vm.create is not supported by v53.0; v46.0 was the last to have it",
        );
        check(
            VmCreate,
            r#"{"platform":{"a/b~c":1},"console":{"mode":"Hologram"}}"#,
            "v53.0",
            "/platform/a~1b~0c and \"Hologram\" at /console/mode in vm.create is not supported by v53.0",
        );
        check(
            Operation::VmResizeDisk,
            r#"{"typo":1}"#,
            "v48.0",
            "vm.resize-disk is not supported by v48.0; it came with v50.2",
        );
        let many: String = (0..10).map(|i| format!(r#","x{i}":{i}"#)).collect();
        check(
            VmCreate,
            &format!("{{{}}}", &many[1..]),
            "v53.0",
            "/x0, /x1, /x2, /x3, /x4, /x5, /x6, /x7 and 2 more in vm.create is not supported by v53.0",
        );
    }
}
