//! `chv-sandbox compat`: reports the changes between versions of the VMM's API and which clients they break.

mod check;
mod diff;
mod probe;

use std::io;

use chv_sandbox::compat::render::{self, Layout, Page};
use chv_sandbox::compat::{Report, Verdict};
use clap::{Subcommand, ValueEnum};

use super::Failure;
use super::status::{self, Status};

/// Reports what changed in the VMM's API, and which clients a change breaks.
#[derive(clap::Args)]
#[command(after_help = after_help())]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Diff(diff::Args),
    Check(check::Args),
    Probe(probe::Args),
}

/// The format of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Text, in colour if the terminal supports it.
    Text,
    /// JSON, sorted and stable.
    Json,
    /// Markdown, for a comment on a pull request.
    Markdown,
}

/// The exit statuses of each of these commands.
fn after_help() -> String {
    status::help(&[
        (Status::Yes, "compatible"),
        (Status::No, "breaking"),
        (Status::Undecided, "it could not be decided"),
    ])
}

/// Runs `chv-sandbox compat`.
pub(crate) async fn run(args: Args) -> Result<Status, Failure> {
    match args.command {
        Command::Diff(args) => diff::run(args),
        Command::Check(args) => check::run(args),
        Command::Probe(args) => probe::run(args).await,
    }
}

/// Prints a report on standard output (`page` is its text form), and returns the status for its verdict.
fn show(report: &Report, page: &Page<'_>, format: Format) -> Result<Status, Failure> {
    let text = match format {
        Format::Text => render::text(page, layout()),
        Format::Markdown => render::markdown(page),
        Format::Json => serde_json::to_string_pretty(report)? + "\n",
    };
    print!("{text}");
    Ok(match report.verdict {
        Verdict::Compatible => Status::Yes,
        Verdict::Breaking => Status::No,
    })
}

/// The width and colours of standard output. Lines have at most 100 columns even on a wider terminal.
fn layout() -> Layout {
    const COLUMNS: usize = 100;
    let out = io::stdout();
    let terminal = rustix::termios::tcgetwinsize(&out).map(|size| usize::from(size.ws_col));
    Layout {
        columns: match terminal {
            Ok(columns @ 1..) => columns.min(COLUMNS),
            _ => COLUMNS,
        },
        colour: anstream::AutoStream::choice(&out) != anstream::ColorChoice::Never,
    }
}
