//! `chv-sandbox golden verify` and `chv-sandbox golden compare`, which read golden snapshots and start no VM.

use std::path::PathBuf;

use chv_sandbox::golden::{self, Error, Golden, GoldenVerification, MemoryNeed, PublicKey, Trust};
use chv_sandbox::overlay::Digest;
use chv_sandbox::sanitize;
use serde_json::{Value, json};

use super::super::interrupt::Interrupt;
use super::super::status::{self, Status};
use super::super::{Failure, explain};

/// Compares every file of a golden snapshot with its manifest.
///
/// Computes both digests (SHA-256 and fs-verity) of the disks, the kernel and the initramfs, and the fs-verity digest
/// of the VMM's own files. With --public-key it also checks the manifest's signature.
#[derive(clap::Args)]
#[command(after_help = status::help(&[
    (Status::Yes, "every file matches the manifest, and the manifest matches --public-key and --digest, if given"),
    (Status::No, "a file or the manifest does not match, and is named"),
    (Status::Undecided, "it could not be decided, for example because a file is missing"),
]))]
pub(super) struct VerifyArgs {
    /// The golden snapshot
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// Require a signature of the manifest by this Ed25519 public key: PEM, or 32 raw bytes
    ///
    /// Without this option no signature is checked.
    #[arg(long, value_name = "FILE")]
    public_key: Option<PathBuf>,
    /// Require this digest of the manifest, as `golden mint` printed it (sha256:...)
    ///
    /// Without this option any manifest is accepted.
    #[arg(long, value_name = "DIGEST")]
    digest: Option<Digest>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// Compares the manifests of two golden snapshots field by field.
///
/// No other file is read. The time of minting, the nonce, and the digests of memory and registers differ between any
/// two mints; they are shown, but don't count as a difference.
#[derive(clap::Args)]
#[command(after_help = status::help(&[
    (Status::Yes, "the manifests are equal"),
    (Status::No, "the manifests differ"),
    (Status::Undecided, "it could not be decided"),
]))]
pub(super) struct CompareArgs {
    /// The first golden snapshot
    #[arg(value_name = "A")]
    first: PathBuf,
    /// The second golden snapshot
    #[arg(value_name = "B")]
    second: PathBuf,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn verify(args: VerifyArgs) -> Result<Status, Failure> {
    let VerifyArgs {
        directory,
        public_key,
        digest,
        json,
    } = args;
    let interrupt = Interrupt::catch()?;
    let key = public_key.as_deref().map(PublicKey::load).transpose()?;
    let verified = tokio::task::spawn_blocking(move || {
        let mut trust = Trust::default();
        trust.signed_by = key;
        trust.digest = digest;
        let golden = Golden::open_trusted(&directory, &trust)?;
        Ok::<_, Error>((golden.digest(), golden.verify()?))
    });
    match interrupt.race(verified).await?? {
        Ok((digest, verification)) => {
            match json {
                true => {
                    let mut told = serde_json::to_value(&verification)?;
                    told["manifest"] = json!(digest);
                    println!("{}", serde_json::to_string_pretty(&told)?);
                }
                false => print(&digest, &verification, key.as_ref()),
            }
            Ok(Status::of(verification.mismatches.is_empty()))
        }
        Err(error) if is_verdict(&error) => {
            explain(&error);
            Ok(Status::No)
        }
        Err(error) => Err(error.into()),
    }
}

fn print(digest: &Digest, verification: &GoldenVerification, key: Option<&PublicKey>) {
    println!("manifest  {digest}");
    match key {
        Some(key) => println!("good      manifest, signed by {key}"),
        None => println!("unsigned  manifest: it is only as trustworthy as the directory"),
    }
    for file in &verification.files {
        let verdict = if file.good { "good" } else { "CHANGED" };
        let path = sanitize::line(&file.path.display().to_string(), usize::MAX);
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
    println!("memory    {}", memory(verification.memory));
}

/// How much memory a golden snapshot needs once a process has loaded it.
pub(super) fn memory(need: MemoryNeed) -> String {
    let mib = |bytes: u64| bytes.div_ceil(1 << 20);
    match need.none_with_fs_verity {
        true => "none of its own: fs-verity protects the snapshot's".to_owned(),
        false => format!(
            "{} MiB of RAM at first, at most {}, once for all sandboxes of a process",
            mib(need.at_first),
            mib(need.at_most)
        ),
    }
}

/// Whether an error means that the golden snapshot doesn't match, and not that the check failed.
fn is_verdict(error: &Error) -> bool {
    matches!(
        error,
        Error::Mismatch { .. }
            | Error::Refused { .. }
            | Error::Unsigned { .. }
            | Error::NotPinned { .. }
            | Error::BadSignature { .. }
    )
}

pub(super) fn compare(args: &CompareArgs) -> Result<Status, Failure> {
    let first = Golden::open(&args.first)?;
    let second = Golden::open(&args.second)?;
    let differences = golden::compare_manifests(first.manifest(), second.manifest());
    let same = differences.iter().all(|difference| difference.expected);
    if args.json {
        let told = json!({ "same": same, "differences": differences });
        println!("{}", serde_json::to_string_pretty(&told)?);
    } else {
        let shown = |value: &Option<Value>| match value {
            Some(value) => sanitize::line(&value.to_string(), usize::MAX),
            None => "nothing".to_owned(),
        };
        for difference in &differences {
            let kind = if difference.expected {
                "each time"
            } else {
                "DIFFERENT"
            };
            println!("{kind} {}", sanitize::line(&difference.field, usize::MAX));
            println!("  {}", shown(&difference.first));
            println!("  {}", shown(&difference.second));
        }
    }
    Ok(Status::of(same))
}
