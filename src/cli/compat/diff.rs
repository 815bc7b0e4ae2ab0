//! `chv-sandbox compat diff`.

use std::ffi::OsString;

use chv_sandbox::compat;

use super::super::status::Status;
use super::{Failure, Format};

/// Compares two contracts: a release by its name (v53.0), corrected, or a document by its path.
///
/// A document that is compared with a release is corrected as the release is, and corrections that don't apply to it
/// are warnings. Two documents are compared as they are.
#[derive(clap::Args)]
#[command(after_help = super::after_help())]
pub(crate) struct Args {
    /// What clients were built for: a release, or the path of a document (upstream's YAML, or a contract). A file that
    /// is called like a release is meant by ./v53.0.
    base: OsString,
    /// What they would meet, given in the same way.
    revision: OsString,
    /// Compares a document with a release as it is, without corrections.
    #[arg(long)]
    as_is: bool,
    /// How the report is shown.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

/// Runs `chv-sandbox compat diff`.
pub(super) fn run(args: Args) -> Result<Status, Failure> {
    let base = compat::Document::named(&args.base)?;
    let revision = compat::Document::named(&args.revision)?;
    let report = match args.as_is {
        false => compat::compare(base, revision),
        true => {
            let findings = compat::diff(&base.contract, &revision.contract);
            compat::Report::new(base.name, revision.name, findings)
        }
    };
    super::show(&report, &report.page(), args.format)
}
