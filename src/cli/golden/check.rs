//! `chv-sandbox golden verify` and `golden compare`: what is said of golden snapshots at rest.

use std::path::PathBuf;
use std::process::ExitCode;

use chv_sandbox::compat::render::neutral;
use chv_sandbox::golden::{self, Error, Golden, Inspection, PublicKey, Trust};
use serde_json::{Value, json};

use super::super::{Failure, explain};

/// What was asked holds.
const GOOD: u8 = 0;
/// It doesn't.
const BAD: u8 = 1;
/// Nobody can say.
const UNDECIDED: u8 = 2;

/// Compares every file of a golden snapshot with its manifest: both digests of the disks, kernel and initramfs, the
/// fs-verity digest of the VMM's own files, and the manifest with its signature.
///
/// Exit status: 0 good; 1 something is not what it should be, and is named; 2 it cannot be decided, for one because
/// a file is missing.
#[derive(clap::Args)]
pub(super) struct VerifyArgs {
    /// The golden snapshot
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// The Ed25519 key that must have signed the manifest: PEM or 32 bytes. Without it no signature is looked at
    #[arg(long, value_name = "FILE")]
    public_key: Option<PathBuf>,
    /// Say it as JSON
    #[arg(long)]
    json: bool,
}

/// Compares the manifests of two golden snapshots field by field. Reads no other file.
///
/// Exit status: 0 they say the same, apart from what differs between any two mints (the time, the nonce, what was in
/// memory and registers); 1 they differ; 2 it cannot be decided.
#[derive(clap::Args)]
pub(super) struct CompareArgs {
    /// A golden snapshot
    #[arg(value_name = "A")]
    first: PathBuf,
    /// Another
    #[arg(value_name = "B")]
    second: PathBuf,
    /// Say it as JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn verify(args: VerifyArgs) -> Result<ExitCode, Failure> {
    let VerifyArgs {
        directory,
        public_key,
        json,
    } = args;
    let key = match public_key.as_deref().map(PublicKey::load).transpose() {
        Ok(key) => key,
        Err(error) => {
            explain(&error);
            return Ok(UNDECIDED.into());
        }
    };
    let verified = tokio::task::spawn_blocking(move || {
        let trust = Trust {
            signed_by: key,
            digest: None,
        };
        Golden::open_trusted(&directory, &trust)?.verify()
    });
    match verified.await? {
        Ok(verification) => {
            let good = verification.mismatches.is_empty();
            match json {
                true => println!("{}", serde_json::to_string_pretty(&verification)?),
                false => print(&verification, key.as_ref()),
            }
            Ok(if good { GOOD } else { BAD }.into())
        }
        Err(error) => {
            explain(&error);
            Ok(status(&error).into())
        }
    }
}

fn print(verification: &Inspection, key: Option<&PublicKey>) {
    match key {
        Some(key) => println!("good      manifest, signed by {key}"),
        None => println!("unsigned  manifest: whoever may write to it may have written it"),
    }
    for file in &verification.files {
        let verdict = if file.good { "good" } else { "CHANGED" };
        let path = neutral(&file.path.display().to_string());
        println!(
            "{verdict:<9} {} ({} bytes, {path})",
            file.field, file.length
        );
    }
    for mismatch in &verification.mismatches {
        println!("{}", mismatch.field);
        println!("  expected {}", mismatch.expected);
        println!("  found    {}", mismatch.found);
    }
}

/// Some errors are a verdict.
fn status(error: &Error) -> u8 {
    match error {
        Error::Mismatch { .. }
        | Error::Refused { .. }
        | Error::Unsigned { .. }
        | Error::BadSignature { .. } => BAD,
        _ => UNDECIDED,
    }
}

pub(super) fn compare(args: &CompareArgs) -> Result<ExitCode, Failure> {
    let opened = Golden::open(&args.first).and_then(|first| {
        let second = Golden::open(&args.second)?;
        Ok((first, second))
    });
    let (first, second) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            explain(&error);
            return Ok(UNDECIDED.into());
        }
    };
    let differences = golden::compare(first.manifest(), second.manifest());
    let same = differences.iter().all(|difference| difference.expected);
    if args.json {
        let told = json!({ "same": same, "differences": differences });
        println!("{}", serde_json::to_string_pretty(&told)?);
    } else {
        let shown = |value: &Option<Value>| match value {
            Some(value) => neutral(&value.to_string()),
            None => "nothing".to_owned(),
        };
        for difference in &differences {
            let kind = if difference.expected {
                "each time"
            } else {
                "DIFFERENT"
            };
            println!("{kind} {}", neutral(&difference.field));
            println!("  {}", shown(&difference.first));
            println!("  {}", shown(&difference.second));
        }
    }
    Ok(if same { GOOD } else { BAD }.into())
}
