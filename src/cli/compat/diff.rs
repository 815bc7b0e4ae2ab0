//! `chv-sandbox compat diff`.

use std::ffi::OsString;

use chv_sandbox::compat;

use super::super::status::Status;
use super::{Failure, Format};

/// Compares two versions of the VMM's API. Each is the name of a release (v53.0), whose corrections are applied, or the
/// path of a document.
///
/// If a document is compared with a release, the release's corrections are applied to the document too, and a
/// correction that doesn't apply is a warning. Two documents are compared without corrections.
#[derive(clap::Args)]
#[command(after_help = super::after_help())]
pub(crate) struct Args {
    /// The API that clients were built for: a release, or the path of a document (upstream's YAML, or a contract)
    ///
    /// Write ./v53.0 for a file of that name.
    base: OsString,
    /// The API that the clients would use, given in the same way.
    revision: OsString,
    /// Compare a document with a release without applying corrections to the document.
    #[arg(long)]
    as_is: bool,
    /// The format of the report.
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
