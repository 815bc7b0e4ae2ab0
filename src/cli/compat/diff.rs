//! `chv-sandbox compat diff`.

use std::ffi::OsString;

use chv_sandbox::compat;

use super::super::status::Status;
use super::{Failure, Format};

/// Compares two contracts: a release by its name (v53.0), corrected, or a document by its path, as it is.
#[derive(clap::Args)]
#[command(after_help = super::after_help())]
pub(crate) struct Args {
    /// What clients were built for: a release, or the path of a document (upstream's YAML, or a contract). A file that
    /// is called like a release is meant by ./v53.0.
    base: OsString,
    /// What they would meet, given in the same way.
    revision: OsString,
    /// How the report is shown.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

/// Runs `chv-sandbox compat diff`.
pub(super) fn run(args: Args) -> Result<Status, Failure> {
    let base = compat::Document::named(&args.base)?;
    let revision = compat::Document::named(&args.revision)?;
    let findings = compat::diff(&base.contract, &revision.contract);
    let report = compat::Report::new(base.name, revision.name, findings);
    super::show(&report, &report.page(), args.format)
}
