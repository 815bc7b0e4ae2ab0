//! What a transfer of files costs, against `tar` on both ends of the same kind of socket.
//!
//! Both sides move the same tree over a Unix stream, which is what a VMM's hybrid vsock is on the host's side, digest it with
//! SHA-256 on both ends, and bring it to the disk. `tar` reads and writes the files for the one, in processes of its own; the
//! other is a channel to the real dispatcher. A directory on a disk is needed for figures that mean something: name it in
//! `TMPDIR`.

#![expect(clippy::print_stdout, reason = "a bench prints what it found")]

#[expect(dead_code, reason = "a part of it is for the other benches")]
mod measure;

use std::error::Error;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;

use chv_sandbox::archive::{Account, Cancel, extract, open_at, pack, target_at};
use measure::Row;
use sha2::{Digest, Sha256};

const ROUNDS: usize = 7;
const FILES: usize = 2000;
const SIZE: usize = 256 << 20;

fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let tree = folder.path().join("tree");
    let mut bytes = vec![0; SIZE / FILES];
    for number in 0..FILES {
        let directory = tree.join(format!("d{}", number % 40));
        fs::create_dir_all(&directory)?;
        fastrand::fill(&mut bytes);
        fs::write(directory.join(format!("file-{number}")), &bytes)?;
    }
    rustix::fs::syncfs(File::open(&tree)?)?;
    measure::print_load();
    println!("{FILES} files, {} MiB", SIZE >> 20);
    let mut rows = [
        Row::new("tar, SHA-256, socket, SHA-256, tar, sync"),
        Row::new("pack, socket, extract, publish"),
        Row::new("the same with a manifest on both sides"),
    ];
    for round in 0..ROUNDS {
        let to = |what: &str| folder.path().join(format!("{what}-{round}"));
        rows[0].block(1, || by_tar(&tree, &to("tar")).expect("transferred"));
        rows[1].block(1, || ours(&tree, &to("ours"), false).expect("transferred"));
        rows[2].block(1, || ours(&tree, &to("listed"), true).expect("transferred"));
        for what in ["tar", "ours", "listed"] {
            fs::remove_dir_all(to(what))?;
        }
        rustix::fs::syncfs(File::open(&tree)?)?;
    }
    measure::print(&rows);
    Ok(())
}

/// Copies all that comes, and digests it.
fn copy(mut from: impl Read, mut to: impl Write) -> io::Result<[u8; 32]> {
    let mut digest = Sha256::new();
    let mut buffer = vec![0; 256 << 10];
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

fn by_tar(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir(to)?;
    let (here, there) = UnixStream::pair()?;
    let mut packing = Command::new("tar")
        .arg("-C")
        .arg(from)
        .args(["-cf", "-", "."])
        .stdout(Stdio::piped())
        .spawn()?;
    let mut extracting = Command::new("tar")
        .arg("-C")
        .arg(to)
        .args(["-xf", "-"])
        .stdin(Stdio::piped())
        .spawn()?;
    let packed = packing.stdout.take().expect("piped");
    let sender = thread::spawn(move || {
        let digest = copy(packed, &here)?;
        here.shutdown(Shutdown::Write)?;
        Ok::<_, io::Error>(digest)
    });
    let into = extracting.stdin.take().expect("piped");
    let received = copy(there, into)?;
    assert_eq!(received, sender.join().expect("it ends")?);
    assert!(packing.wait()?.success() && extracting.wait()?.success());
    rustix::fs::syncfs(File::open(to)?)?;
    Ok(())
}

fn ours(from: &Path, to: &Path, listed: bool) -> Result<(), Box<dyn Error>> {
    let account = move || match listed {
        true => Account::default().with_manifest(),
        false => Account::default(),
    };
    let (here, there) = UnixStream::pair()?;
    let root = open_at(from)?;
    let here = Arc::new(here);
    let sender = thread::spawn(move || {
        let packed = pack(root, &*here, &mut account());
        here.shutdown(Shutdown::Write).expect("it is connected");
        packed
    });
    let (staged, totals) = extract(there, target_at(to)?, None, &mut account())?;
    assert_eq!(totals, sender.join().expect("it ends")?);
    staged.publish(&Cancel::default())?;
    Ok(())
}
