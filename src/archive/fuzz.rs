//! The fuzz target for tar streams.

use std::fs::File;

use super::{Account, Target, TransferLimits, extract};

/// Extracts a guest's tar stream as a pull does, and drops the result. The directory must be empty afterwards, whether
/// the stream was refused or not.
pub(crate) fn archive(bytes: &[u8]) {
    let top = tempfile::tempdir().expect("a directory");
    let directory = File::open(top.path()).expect("opened");
    let target = Target::new(directory.into(), "tree").expect("a plain name");
    let limits = TransferLimits {
        entries: 100,
        bytes: 1 << 20,
    };
    let extracted = extract(bytes, target, None, &mut Account::new(limits));
    drop(extracted);
    let left = std::fs::read_dir(top.path()).expect("listed").count();
    assert_eq!(left, 0, "files that were not published are still there");
}
