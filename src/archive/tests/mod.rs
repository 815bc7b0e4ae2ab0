//! Tests of packing and extracting: trees that come back as they were, and streams and trees that are refused.

mod hostile;
mod packing;
mod round_trip;
mod staging;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::*;
use crate::digest::Digest;

/// The attributes of a file that the tests compare.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Node {
    File {
        mode: u32,
        mtime: i64,
        bytes: Vec<u8>,
    },
    Directory {
        mode: u32,
        mtime: i64,
    },
    Link(PathBuf),
}

type Tree = BTreeMap<Vec<u8>, Node>;

/// The tree at `root`, by path relative to it; empty if nothing is there.
fn tree(root: &Path) -> Tree {
    let mut tree = Tree::new();
    let mut waiting = vec![PathBuf::new()];
    while let Some(path) = waiting.pop() {
        let at = if path.as_os_str().is_empty() {
            root.to_owned()
        } else {
            root.join(&path)
        };
        let Ok(metadata) = fs::symlink_metadata(&at) else {
            continue;
        };
        let (mode, mtime) = (metadata.permissions().mode() & 0o7777, metadata.mtime());
        let node = if metadata.is_symlink() {
            Node::Link(fs::read_link(&at).unwrap())
        } else if metadata.is_dir() {
            let names = fs::read_dir(&at).unwrap();
            waiting.extend(names.map(|entry| path.join(entry.unwrap().file_name())));
            Node::Directory { mode, mtime }
        } else {
            let bytes = fs::read(&at).unwrap();
            Node::File { mode, mtime, bytes }
        };
        tree.insert(path.into_os_string().into_vec(), node);
    }
    tree
}

fn open(path: &Path) -> OwnedFd {
    File::open(path).unwrap().into()
}

fn limits(entries: u64, bytes: u64) -> Account {
    Account::new(TransferLimits { entries, bytes })
}

fn packed(path: &Path, account: &mut Account) -> Result<(Vec<u8>, Totals), ArchiveError> {
    let mut stream = Vec::new();
    let totals = pack(open(path), &mut stream, account)?;
    Ok((stream, totals))
}

/// A directory to extract into.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Place {
        Place(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn target(&self, name: &str) -> Target {
        Target::new(open(self.0.path()), name).unwrap()
    }

    fn extract(&self, stream: &[u8], account: &mut Account) -> Result<Totals, ArchiveError> {
        let (staged, totals) = extract(stream, self.target("out"), None, account)?;
        staged.publish(&Cancel::default())?;
        Ok(totals)
    }

    /// The names in the directory.
    fn names(&self) -> Vec<Vec<u8>> {
        let names = fs::read_dir(self.0.path()).unwrap();
        names
            .map(|entry| entry.unwrap().file_name().into_vec())
            .collect()
    }
}

fn os(name: &[u8]) -> &OsStr {
    OsStr::from_bytes(name)
}
