//! Fuzz target.

use std::fs::File;

use super::{Account, Target, TransferLimits, extract};

/// A tar stream of a guest, extracted as a pull extracts it. Nothing may be left of one that is refused.
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
    assert_eq!(left, 0, "what was not published is still there");
}
