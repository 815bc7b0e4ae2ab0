//! `chv-sandbox spec`: the contracts under `api-spec/`.

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use chv_sandbox::spec::{self, Release};
use clap::Subcommand;

/// Manages the contracts of the VMM's API.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Derives a release's contract from an upstream API document: its facts, sorted, without its prose.
    Import {
        /// The upstream document (YAML).
        #[arg(value_name = "UPSTREAM.yaml")]
        upstream: PathBuf,
        /// The tag of the release that the document belongs to, for instance v53.0.
        #[arg(long)]
        release: Release,
        /// The commit of that tag, for the record.
        #[arg(long, value_parser = commit)]
        commit: Option<String>,
        /// The directory that holds the contracts and `sources.toml`.
        #[arg(long, default_value = "api-spec")]
        into: PathBuf,
    },
}

/// Runs `chv-sandbox spec`.
pub(crate) async fn run(args: Args) -> Result<ExitCode, Box<dyn Error + Send + Sync>> {
    match args.command {
        Command::Import {
            upstream,
            release,
            commit,
            into,
        } => {
            let (contract, path) = spec::import(&upstream, release, commit, &into)?;
            println!(
                "{}: the contract of {release}, {} paths and {} schemas",
                path.display(),
                contract.paths.len(),
                contract.schemas.len()
            );
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn commit(text: &str) -> Result<String, &'static str> {
    if text.len() == 40
        && text
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    {
        Ok(text.to_owned())
    } else {
        Err("a commit has 40 hexadecimal digits in lower case")
    }
}
