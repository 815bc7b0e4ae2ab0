//! `chv-sandbox hash`: the digest of a file.

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use chv_sandbox::overlay::{self, AccessPolicy, FileProof, Progress, Threads};
use indicatif::ProgressBar;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::interrupt::Interrupt;
use super::status::{self, Status};
use super::{Failure, progress};

/// Prints the digest of a file, such as a disk or a file of a snapshot.
///
/// The default is the plain SHA-256, as `sha256sum` prints it.
#[derive(clap::Args)]
#[command(after_help = status::help(&[
    (Status::Yes, "the file's digest was printed"),
    (Status::Undecided, "the file can't be read, is not a regular file, or its length changed while it was read"),
]))]
pub(crate) struct Args {
    /// The file.
    file: PathBuf,
    /// Print the Linux fs-verity digest (SHA-256, blocks of 4 KiB, no salt) instead of the plain SHA-256
    ///
    /// It is computed on all available cores and skips holes.
    #[arg(long)]
    fsverity: bool,
    /// Print the digest and details as JSON
    ///
    /// The details are the file's length, device and inode, how it was accessed, how many bytes were hashed, mapped,
    /// read and skipped, and how many microseconds that took.
    #[arg(long)]
    json: bool,
}

/// Runs `chv-sandbox hash`.
pub(crate) async fn run(args: Args) -> Result<Status, Failure> {
    let interrupt = Interrupt::catch()?;
    let Args {
        file,
        fsverity,
        json,
    } = args;
    let progress = Arc::new(Progress::default());
    let watched = Arc::clone(&progress);
    let hashed = tokio::task::spawn_blocking(move || -> Result<(String, Value), Failure> {
        let policy = AccessPolicy::PreferMapped;
        if fsverity {
            let threads = Threads::default();
            let proof = overlay::fsverity_watched(&file, policy, threads, &watched)?;
            Ok((proof.digest.to_string(), proof_json(&proof)))
        } else {
            let proof = overlay::sha256_watched(&file, policy, &watched)?;
            Ok((proof.digest.to_string(), proof_json(&proof)))
        }
    });
    let hashed = interrupt.race(progress::shown(hashed, show(&progress)));
    let (digest, everything) = hashed.await???;
    match json {
        true => println!("{everything:#}"),
        false => println!("{digest}"),
    }
    Ok(Status::Yes)
}

/// A proof as this command prints it. The basis of the digest is printed as `access`.
fn proof_json<D: Serialize>(proof: &FileProof<D>) -> Value {
    let FileProof {
        digest,
        length,
        identity,
        basis,
        work,
        elapsed,
    } = proof;
    json!({
        "digest": digest,
        "length": length,
        "identity": identity,
        "access": basis,
        "work": work,
        "elapsed_us": elapsed.as_micros() as u64,
    })
}

/// Shows the progress of a digest, once it has taken half a second.
async fn show(progress: &Progress) -> Infallible {
    const MOMENT: Duration = Duration::from_millis(500);
    sleep(MOMENT).await;
    let bar = || ProgressBar::new(progress.length());
    let template = "{wide_bar} {binary_bytes} of {binary_total_bytes}, {binary_bytes_per_sec}";
    progress::draw(bar, template, |bar| bar.set_position(progress.reached())).await
}
