//! Tests of the comparison of contracts, of the rules, of the probe and of the files that are generated from the
//! cassettes.

mod base_paths;
mod documents;
mod from_fixtures;
mod history;
mod hostile;
mod mutations;
mod neutral;
mod operation_mutations;
mod operations;
pub(crate) mod probe;
mod rules;
mod schemas;

use std::path::{Path, PathBuf};

use chv_sandbox::compat::{Finding, Report, diff};
use chv_sandbox::spec::{self, Contract};

/// The root of the package.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Reads a document of any release.
fn read(path: &Path) -> Contract {
    spec::read_import(path, "v1.0".parse().unwrap())
        .unwrap_or_else(|error| panic!("{}: {error:?}", path.display()))
}

/// The contract of a release, without corrections.
fn contract(release: &str) -> Contract {
    read(&PathBuf::from(root()).join(format!("api-spec/{release}.json")))
}

/// The contract that a document in YAML or JSON holds.
fn parse(document: &str) -> Result<Contract, spec::Error> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("document.yaml");
    std::fs::write(&path, document).unwrap();
    spec::read_import(&path, "v1.0".parse().unwrap())
}

/// A document with these servers and paths.
fn served(servers: &str, paths: &str) -> String {
    format!(
        "openapi: 3.0.3\ninfo: {{ title: A test, version: \"1\" }}\n{servers}\npaths: {{ {paths} }}\n"
    )
}

/// The findings, sorted as a report has them.
fn findings(base: &Contract, revision: &Contract) -> Vec<Finding> {
    Report::new("base", "revision", diff(base, revision)).findings
}

/// The findings between two documents.
fn compare(base: &str, revision: &str) -> Vec<Finding> {
    let read = |text: &str| parse(text).unwrap_or_else(|error| panic!("{text}\n{error:?}"));
    findings(&read(base), &read(revision))
}

/// One line for each finding: level, direction, rule, path, operations.
fn lines(findings: &[Finding]) -> Vec<String> {
    findings
        .iter()
        .map(|finding| {
            let affects: Vec<&str> = finding.affects.iter().map(String::as_str).collect();
            format!(
                "{:?} {} {} [{}]",
                finding.level,
                finding.id,
                finding.path,
                affects.join(", ")
            )
        })
        .collect()
}
