//! Root disks of trees of every kind: the tree fits, `e2fsck` finds no errors, and the disk is little larger than it
//! must be.

use std::{
    fs::{self, File},
    ops::RangeInclusive,
    os::unix::fs::{FileExt, symlink},
    path::Path,
};

use chv_sandbox::image::{Error, ImageSpec, RootSource, pack};
use tempfile::TempDir;

use super::{Inputs, pack_or_skip, skip, skipped};

const MIB: u64 = 1 << 20;

/// A root tree with the files that `fill` makes. It lies in memory if possible, because some trees have many files.
fn tree(fill: impl FnOnce(&Path)) -> TempDir {
    let tree = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
    let tree = tree.expect("a directory");
    for dir in ["dev", "proc", "sys", "tmp"] {
        fs::create_dir(tree.path().join(dir)).expect("made");
    }
    fill(tree.path());
    tree
}

fn spec(inputs: &Inputs, tree: &TempDir) -> ImageSpec {
    let mut spec = inputs.spec();
    spec.root = RootSource::Tree(tree.path().into());
    spec
}

/// Checks the size of a tree's root disk. Packing runs `e2fsck`, so the disk has no errors.
fn check(fill: impl FnOnce(&Path), mib: RangeInclusive<u64>) {
    let (inputs, tree) = (Inputs::new(), tree(fill));
    let Some(image) = pack_or_skip(&spec(&inputs, &tree)) else {
        return;
    };
    let size = fs::metadata(image.root_disk()).expect("there").len();
    let (least, most) = (mib.start() * MIB, mib.end() * MIB);
    assert!((least..=most).contains(&size), "{size} bytes");
}

/// The error with which packing a tree is refused. Without `mke2fs` it prints that the test was skipped, and returns
/// `None`.
fn refused(spec: &ImageSpec) -> Option<Error> {
    match pack(spec).expect_err("must be refused") {
        Error::Mke2fsMissing { .. } => {
            skipped();
            None
        }
        error => {
            assert!(!spec.out.exists(), "{error}");
            Some(error)
        }
    }
}

#[test]
fn a_small_tree_has_the_smallest_disk() {
    check(|_| {}, 4..=4);
}

#[test]
fn a_disk_is_as_large_as_its_contents() {
    check(
        |tree| fs::write(tree.join("f"), vec![1; 20 << 20]).expect("written"),
        21..=21,
    );
}

#[test]
fn holes_take_no_room() {
    let sparse = |tree: &Path| {
        let file = File::create(tree.join("lastlog")).expect("made");
        file.set_len(70 << 30).expect("sized");
        file.write_all_at(b"the last login", 69 << 30)
            .expect("written");
    };
    check(sparse, 4..=4);
    // The file needs a list of 2000 extents.
    let pieces = |tree: &Path| {
        let file = File::create(tree.join("pieces")).expect("made");
        for piece in 0..2000 {
            file.write_all_at(b"x", piece * (1 << 20)).expect("written");
        }
    };
    check(pieces, 8..=9);
}

#[test]
fn a_file_with_many_names_is_there_once() {
    check(
        |tree| {
            fs::write(tree.join("0"), vec![1; 4 << 20]).expect("written");
            for name in 1..100 {
                fs::hard_link(tree.join("0"), tree.join(name.to_string())).expect("linked");
            }
        },
        5..=5,
    );
}

#[test]
fn many_long_names_have_room() {
    let names = |tree: &Path, make: fn(&Path)| {
        for dir in 0..15 {
            let dir = tree.join(dir.to_string());
            fs::create_dir(&dir).expect("made");
            (0..100).for_each(|name| make(&dir.join(format!("{name:0>255}"))));
        }
    };
    let file = |path: &Path| fs::write(path, "").expect("written");
    // The names take 105 blocks and the inodes 96.
    check(|tree| names(tree, file), 4..=4);
    let link = |path: &Path| symlink("x".repeat(100), path).expect("linked");
    // The targets take 1500 further blocks.
    check(|tree| names(tree, link), 7..=7);
}

#[test]
fn many_small_files_and_directories_have_room() {
    let files = |tree: &Path, dirs: usize, files: usize, content: &str| {
        for dir in 0..dirs {
            let dir = tree.join("tmp").join(dir.to_string());
            fs::create_dir(&dir).expect("made");
            (0..files)
                .for_each(|file| fs::write(dir.join(file.to_string()), content).expect("written"));
        }
    };
    check(|tree| files(tree, 1500, 1, "x"), 13..=13);
    // The inodes alone are 8 MiB, in two groups.
    check(|tree| files(tree, 100, 340, ""), 9..=14);
}

#[test]
fn extended_attributes_have_room() {
    let attribute = |path: &Path, value: &[u8]| {
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::setxattr(path, "user.test", value, flags)
    };
    if attribute(tree(|_| {}).path(), b"x").is_err() {
        return skip("the temporary directory takes no extended attributes");
    }
    let with = |len: usize| {
        move |tree: &Path| {
            for name in 0..2000 {
                let path = tree.join(name.to_string());
                fs::write(&path, "").expect("written");
                attribute(&path, &vec![b'x'; len]).expect("set");
            }
        }
    };
    // The attributes lie in the inode, and in one further block for each file.
    check(with(40), 4..=4);
    check(with(400), 9..=9);
}

#[test]
fn more_attributes_than_ext4_takes_are_refused() {
    let tree = tree(|tree| fs::write(tree.join("f"), "").expect("written"));
    let path = tree.path().join("f");
    let flags = rustix::fs::XattrFlags::empty();
    if rustix::fs::setxattr(&path, "user.test", &[b'x'; 10_000], flags).is_err() {
        return skip("the temporary directory takes no extended attributes of 10,000 bytes");
    }
    match refused(&spec(&Inputs::new(), &tree)) {
        Some(Error::TreeAttributes { path: named, .. }) => assert_eq!(named, path),
        Some(other) => panic!("{other}"),
        None => {}
    }
}

#[test]
fn more_names_than_ext4_takes_are_refused() {
    let tree = tree(|tree| fs::write(tree.join("tmp/0"), "").expect("written"));
    let names = tree.path().join("tmp");
    for name in 1..=65_000 {
        if fs::hard_link(names.join("0"), names.join(name.to_string())).is_err() {
            return skip("the temporary directory takes no 65,001 names of one file");
        }
    }
    match refused(&spec(&Inputs::new(), &tree)) {
        Some(Error::TreeLinks { path, limit, .. }) => {
            assert_eq!((path.parent(), limit), (Some(&*names), 65_000));
        }
        Some(other) => panic!("{other}"),
        None => {}
    }
}

#[test]
fn more_subdirectories_than_ext4_counts_are_refused() {
    let tree = tree(|tree| {
        for name in 0..64_999 {
            fs::create_dir(tree.join("tmp").join(name.to_string())).expect("made");
        }
    });
    match refused(&spec(&Inputs::new(), &tree)) {
        Some(Error::TreeLinks { path, limit, .. }) => {
            assert_eq!((path, limit), (tree.path().join("tmp"), 64_998));
        }
        Some(other) => panic!("{other}"),
        None => {}
    }
}

#[test]
fn a_size_that_is_asked_for_is_kept() {
    let (inputs, tree) = (Inputs::new(), tree(|_| {}));
    let mut spec = spec(&inputs, &tree);
    spec.root_mib = Some(32);
    let Some(image) = pack_or_skip(&spec) else {
        return;
    };
    let size = fs::metadata(image.root_disk()).expect("there").len();
    assert_eq!(size, 32 * MIB);
}

#[test]
fn errors_in_the_file_system_are_found() {
    let (inputs, tree) = (Inputs::new(), tree(|_| {}));
    let tools = inputs.path("tools");
    fs::create_dir(&tools).expect("made");
    // This program ends like an `e2fsck` that found errors.
    symlink("/bin/false", tools.join("e2fsck")).expect("linked");
    let mut spec = spec(&inputs, &tree);
    spec.search_path.insert(0, tools);
    match refused(&spec) {
        Some(Error::FilesystemErrors { path, status, .. }) => {
            assert_eq!(path.file_name().expect("a name"), "root.img");
            assert_eq!(status.code(), Some(1));
        }
        Some(other) => panic!("{other}"),
        None => {}
    }
}
