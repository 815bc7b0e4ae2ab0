//! `chv-sandbox spec`: the contracts under `api-spec/`.

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

/// Manages the contracts of the VMM's API.
#[derive(clap::Args)]
#[command(after_help = after_help())]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Derives a release's contract from an upstream API document: its facts, sorted, without its prose.
    #[command(after_help = after_help())]
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
        #[arg(long, default_value = FOLDER)]
        into: PathBuf,
    },
    /// Tries every correction on every contract that it holds for, and lists all that don't apply.
    #[command(after_help = status::help(&[
        (Status::Yes, "every correction applies"),
        (Status::No, "some don't, and are listed"),
        (Status::Undecided, "it could not be decided"),
    ]))]
    Check {
        /// The directory that holds the contracts, `sources.toml` and `corrections.toml`.
        #[arg(long, default_value = FOLDER)]
        from: PathBuf,
    },
    /// Prints the contract of a release as its server has it: after the corrections.
    #[command(after_help = after_help())]
    Show {
        /// The tag of the release, for instance v53.0.
        release: Release,
        /// The directory that holds the contracts, `sources.toml` and `corrections.toml` [default: api-spec, where there
        /// is one, else what is built into this program]
        #[arg(long)]
        from: Option<PathBuf>,
    },
}

/// The end of the help of a command without a verdict of its own.
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
                println!("corrections that correct nothing:");
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

/// Whether contracts and corrections may be read there.
fn is_folder(folder: &Path) -> bool {
    folder.join(CORRECTIONS).exists()
}

/// Says what to do where there are no contracts.
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

/// Says what is left to look at after an import: the corrections that the new document needs no more, and what it
/// brings.
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
        println!("what it brings: `chv-sandbox compat diff {before} {release}`");
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
