//! `chv-sandbox compat`: what changed, what it breaks, and whether it was seen or only read.

mod check;
mod diff;
mod probe;

use std::io;

use chv_sandbox::compat::render::{self, Layout, Page};
use chv_sandbox::compat::{Report, Verdict};
use clap::{Subcommand, ValueEnum};

use super::Failure;
use super::status::{self, Status};

/// Says what changed in the VMM's API, and what it breaks for whom.
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

/// How a report is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people, in colour where the terminal has it.
    Text,
    /// For programs: sorted and stable.
    Json,
    /// For a comment on a pull request.
    Markdown,
}

/// The end of the help of each of these commands.
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

/// Shows a report on standard output, for people as `page` has it, and ends with the status that its verdict has.
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

/// What standard output can show. Lines are not made longer than they read well.
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
