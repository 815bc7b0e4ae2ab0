//! `chv-sandbox spec`: imports, checks and shows the API contracts under `api-spec/`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use chv_sandbox::causes::Causes;
use chv_sandbox::compat::Document;
use chv_sandbox::spec::{
    self, CORRECTIONS, Contract, CorrectionError, Corrections, Release, Sources,
};
use clap::Subcommand;

use super::Failure;
use super::status::{self, Status};

/// The directory of the contracts in a checkout.
const FOLDER: &str = "api-spec";

/// Imports, checks and shows the API contracts of Cloud Hypervisor releases. For maintainers of this crate.
#[derive(clap::Args)]
#[command(after_help = after_help())]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Derives the contract of a release from its upstream API document: all facts, sorted, without the prose.
    #[command(after_help = after_help())]
    Import {
        /// The upstream document (YAML).
        #[arg(value_name = "UPSTREAM.yaml")]
        upstream: PathBuf,
        /// The tag of the release that the document belongs to, for example v53.0.
        #[arg(long)]
        release: Release,
        /// The commit of that tag, which is written to `sources.toml`.
        #[arg(long, value_parser = commit)]
        commit: Option<String>,
        /// The directory that holds the contracts and `sources.toml`.
        #[arg(long, default_value = FOLDER)]
        into: PathBuf,
    },
    /// Applies every correction to the contracts of its releases, and lists the corrections that don't apply.
    #[command(after_help = status::help(&[
        (Status::Yes, "every correction applies"),
        (Status::No, "some corrections don't apply, and are listed"),
        (Status::Undecided, "it could not be decided"),
    ]))]
    Check {
        /// The directory that holds the contracts, `sources.toml` and `corrections.toml`.
        #[arg(long, default_value = FOLDER)]
        from: PathBuf,
    },
    /// Prints the contract of a release with the corrections applied, which is the API as the server implements it.
    #[command(after_help = after_help())]
    Show {
        /// The tag of the release, for example v53.0.
        release: Release,
        /// The directory that holds the contracts, `sources.toml` and `corrections.toml` [default: api-spec if it
        /// exists, else the contracts that are built into this program]
        #[arg(long)]
        from: Option<PathBuf>,
    },
}

/// The exit statuses of a command that answers no question.
fn after_help() -> String {
    status::help(&[(Status::Yes, "done")])
}

/// Runs `chv-sandbox spec`.
pub(crate) async fn run(args: Args) -> Result<Status, Failure> {
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
            review(&contract, &into)?;
            Ok(Status::Yes)
        }
        Command::Check { from } => {
            expect_folder(&from)?;
            let fit = spec::check(&from)?;
            for (release, failures) in &fit.contracts {
                println!("{release}: {}", verdict(failures));
                list(failures);
            }
            if !fit.idle.is_empty() {
                println!("corrections that change nothing:");
                list(&fit.idle);
            }
            Ok(Status::of(fit.is_good()))
        }
        Command::Show { release, from } => {
            let here = || PathBuf::from(FOLDER);
            let folder = from.or_else(|| Some(here()).filter(|here| is_folder(here)));
            let contract = match folder {
                Some(folder) => corrected(release, &folder)?,
                None => Document::release(release)?.contract,
            };
            print!("{}", contract.canonical());
            Ok(Status::Yes)
        }
    }
}

/// The contract of `release` in `folder`, after the corrections there.
fn corrected(release: Release, folder: &Path) -> Result<Contract, Failure> {
    expect_folder(folder)?;
    let known = Sources::read(folder)?.release;
    if !known.contains_key(&release.to_string()) {
        let known: BTreeSet<Release> = known.values().map(|source| source.tag).collect();
        let known: Vec<String> = known.iter().map(Release::to_string).collect();
        let folder = folder.display();
        return Err(format!(
            "{folder} has no contract of {release}, but of {}",
            known.join(", ")
        )
        .into());
    }
    let mut contract = spec::read(&folder.join(format!("{release}.json")))?;
    Corrections::read(&folder.join(CORRECTIONS))?.apply(&mut contract)?;
    Ok(contract)
}

/// Whether the folder has corrections, and so contracts.
fn is_folder(folder: &Path) -> bool {
    folder.join(CORRECTIONS).exists()
}

/// Fails with an instruction if the folder has no contracts.
fn expect_folder(folder: &Path) -> Result<(), Failure> {
    match is_folder(folder) {
        true => Ok(()),
        false => Err(format!(
            "there are no contracts with {CORRECTIONS} in {}: run this in a checkout of chv-sandbox, or name the \
             directory with --from",
            folder.display()
        )
        .into()),
    }
}

/// Prints what to review after an import: the corrections that no longer apply to the new document, and the command
/// that shows its changes.
fn review(contract: &Contract, folder: &Path) -> Result<(), CorrectionError> {
    let corrections = folder.join(CORRECTIONS);
    if corrections.exists() {
        let failures = Corrections::read(&corrections)?.failures(contract);
        println!("{}", verdict(&failures));
        list(&failures);
    }
    let releases = spec::contracts(folder)?;
    if let Some((before, _)) = releases.range(..contract.release).next_back() {
        let release = contract.release;
        println!("to see its changes: `chv-sandbox compat diff {before} {release}`");
    }
    Ok(())
}

fn verdict(failures: &[CorrectionError]) -> String {
    match failures.len() {
        0 => "all corrections apply".to_owned(),
        1 => "1 change does not apply".to_owned(),
        more => format!("{more} changes do not apply"),
    }
}

fn list(failures: &[CorrectionError]) {
    for failure in failures {
        println!("  {}", Causes(failure));
    }
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
