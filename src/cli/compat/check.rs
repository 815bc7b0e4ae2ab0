//! `chv-sandbox compat check`.

use std::ffi::OsString;

use chv_sandbox::compat;

use super::super::status::Status;
use super::{Failure, Format};

/// Compares an API document, for example of a new release, with the API that this crate uses and generates.
#[derive(clap::Args)]
#[command(after_help = super::after_help())]
pub(crate) struct Args {
    /// The document: the path of upstream's YAML or of a contract, or the name of a supported release (v53.0)
    ///
    /// Write ./v53.0 for a file of that name.
    document: OsString,
    /// The format of the report.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

/// Runs `chv-sandbox compat check`.
pub(super) fn run(args: Args) -> Result<Status, Failure> {
    let document = compat::Document::named(&args.document)?;
    let check = compat::check(document);
    super::show(&check.report, &check.page(), args.format)
}
