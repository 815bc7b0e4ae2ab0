//! `compat check` knows every call of this crate: its sources are searched for calls, and each is taken out of a
//! document.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use chv_sandbox::api::Operation;
use chv_sandbox::compat::{self, Document};
use chv_sandbox::spec::supported;

use super::{entries, package};

/// The layers that run a sandbox.
const LAYERS: &[&str] = &["client", "golden", "machine", "sandbox", "vmm"];

/// The calls in the sources: by a function of the API, by a method of the client, or by a request without a type.
fn called() -> BTreeSet<String> {
    let mut code = String::new();
    for layer in LAYERS {
        collect(&package().join("src").join(layer), &mut code);
    }
    Operation::ALL
        .iter()
        .filter(|operation| {
            let function = operation.name().replace(['.', '-'], "_");
            code.contains(&format!("api::{function}("))
                || code.contains(&format!(".{function}("))
                || code.contains(&format!("Request::raw(Operation::{operation:?},"))
        })
        .map(|operation| operation.name().to_owned())
        .collect()
}

/// Adds the code below `path`, without comments, tests and the client's methods, which are generated for every
/// operation.
fn collect(path: &Path, code: &mut String) {
    for path in entries(path) {
        if path.ends_with("client/generated") {
            continue;
        }
        if path.is_dir() {
            collect(&path, code);
        } else {
            let text = fs::read_to_string(path).unwrap();
            let (text, _) = text.split_once("#[cfg(test)]").unwrap_or((&text, ""));
            let lines = text
                .lines()
                .filter(|line| !line.trim_start().starts_with("//"));
            code.extend(lines.flat_map(|line| [line, "\n"]));
        }
    }
}

#[test]
fn every_call_of_this_crate_counts_as_used() {
    let called = called();
    assert!(
        called.contains("vm.restore") && called.contains("vmm.shutdown"),
        "{called:?}"
    );
    for operation in Operation::ALL {
        let mut contract = supported::documented(supported::newest()).unwrap();
        if contract.paths.remove(&format!("/{operation}")).is_none() {
            continue;
        }
        let name = format!("without {operation}");
        let check = compat::check(Document {
            name,
            contract,
            corrected: false,
        });
        assert_eq!(
            !check.used.is_empty(),
            called.contains(operation.name()),
            "{operation}: {:?}",
            check.used
        );
    }
}
