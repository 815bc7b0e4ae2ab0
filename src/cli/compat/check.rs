//! `chv-sandbox compat check`.

use std::ffi::OsString;

use chv_sandbox::compat;

use super::super::status::Status;
use super::{Failure, Format};

/// Holds a document, say of a release to come, against what this crate uses and generates.
#[derive(clap::Args)]
#[command(after_help = super::after_help())]
pub(crate) struct Args {
    /// The document: the path of upstream's YAML or of a contract, or a release by its name (v53.0). A file that is
    /// called like a release is meant by ./v53.0.
    document: OsString,
    /// How the report is shown.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

/// Runs `chv-sandbox compat check`.
pub(super) fn run(args: Args) -> Result<Status, Failure> {
    let document = compat::Document::named(&args.document)?;
    let check = compat::check(document);
    super::show(&check.report, &check.page(), args.format)
}
