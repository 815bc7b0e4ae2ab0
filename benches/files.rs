//! Measures pushing and pulling a tree, compared with `tar` on both ends of a socket.
//!
//! Both sides digest the stream with SHA-256 and sync the files to the disk. The sandbox runs on recordings, so the
//! guest is the real dispatcher in this process, behind a Unix socket, as a VMM's hybrid vsock is on the host. The
//! figures are meaningful only for a directory on a disk: set `TMPDIR` to one.

#![expect(clippy::print_stdout, reason = "a bench prints what it found")]

#[expect(dead_code, reason = "a part of it is for the other benches")]
mod measure;

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use chv_sandbox::replay::ReplaySandbox;
use chv_sandbox::sandbox::{Sandbox, TransferOptions};
use measure::{Row, print};
use sha2::{Digest, Sha256};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

const FILES: usize = 2_000;
const BYTES: usize = 256 << 20;
const ROUNDS: usize = 7;
const PIECE: usize = 256 << 10;

#[tokio::main]
async fn main() -> Outcome<()> {
    let folder = tempfile::tempdir()?;
    let path = |name: &str| folder.path().join(name);
    let (tree, guest) = (path("tree"), path("guest"));
    make(&tree)?;
    fs::create_dir(&guest)?;
    let replay = ReplaySandbox::verified().files(&guest).start().await?;
    let sandbox = replay.sandbox();
    sandbox.boot().await?;
    measure::print_load();
    let options = TransferOptions::default();
    let mut rows = [
        Row::new("tar through a socket"),
        Row::new("push"),
        Row::new("pull"),
    ];
    for _ in 0..ROUNDS {
        let (tree_of_tar, into) = (tree.clone(), path("by-tar"));
        let by_tar = tokio::task::spawn_blocking(move || {
            tar(&tree_of_tar, &into).map_err(|error| error.to_string())
        });
        rows[0].add(by_tar.await??);
        let began = Instant::now();
        sandbox.push(&tree, "pushed", &options).await?;
        rows[1].add(began.elapsed());
        let began = Instant::now();
        sandbox.pull("pushed", &path("pulled"), &options).await?;
        rows[2].add(began.elapsed());
        for name in ["by-tar", "guest/pushed", "pulled"] {
            fs::remove_dir_all(path(name))?;
        }
        rustix::fs::sync();
    }
    println!("\n{} MiB in {FILES} files", BYTES >> 20);
    print(&rows);
    let faster = |row: usize| rows[0].median().as_secs_f64() / rows[row].median().as_secs_f64();
    println!(
        "push / tar, as rates: {:.2} (goal: at least 0.6)",
        faster(1)
    );
    println!(
        "pull / tar, as rates: {:.2} (goal: at least 0.6)",
        faster(2)
    );
    sandbox.shutdown().await;
    Ok(())
}

fn make(tree: &Path) -> io::Result<()> {
    let content: Vec<u8> = (0..BYTES / FILES)
        .map(|at| (at / 4096 + at) as u8)
        .collect();
    for number in 0..FILES {
        let directory = tree.join(format!("{:02}", number % 40));
        fs::create_dir_all(&directory)?;
        fs::write(directory.join(number.to_string()), &content)?;
    }
    rustix::fs::sync();
    Ok(())
}

/// `tar` to `tar`, through a socket with SHA-256 on both ends, with a sync to the disk.
fn tar(tree: &Path, into: &Path) -> Outcome<Duration> {
    fs::create_dir(into)?;
    let began = Instant::now();
    let (mut here, mut there) = UnixStream::pair()?;
    let mut packing = Command::new("tar")
        .arg("-C")
        .arg(tree)
        .args(["-cf", "-", "."])
        .stdout(Stdio::piped())
        .spawn()?;
    let mut packed = packing.stdout.take().ok_or("it was asked for")?;
    let sender = thread::spawn(move || digest_through(&mut packed, &mut here));
    let mut extracting = Command::new("tar")
        .arg("-C")
        .arg(into)
        .args(["-xf", "-"])
        .stdin(Stdio::piped())
        .spawn()?;
    let mut stdin = extracting.stdin.take().ok_or("it was asked for")?;
    let came = digest_through(&mut there, &mut stdin)?;
    drop(stdin);
    assert_eq!(sender.join().expect("no panic")?, came);
    assert!(extracting.wait()?.success() && packing.wait()?.success());
    rustix::fs::syncfs(File::open(into)?)?;
    Ok(began.elapsed())
}

fn digest_through(from: &mut impl Read, to: &mut impl Write) -> io::Result<[u8; 32]> {
    let mut digest = Sha256::new();
    let mut buffer = vec![0; PIECE];
    loop {
        match from.read(&mut buffer)? {
            0 => return Ok(digest.finalize().into()),
            read => {
                digest.update(&buffer[..read]);
                to.write_all(&buffer[..read])?;
            }
        }
    }
}
