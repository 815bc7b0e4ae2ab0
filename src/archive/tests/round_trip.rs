//! Tests that an extracted tree is the tree that was packed.

use std::os::unix::fs::symlink;

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use rustix::fs::{AtFlags, CWD, OFlags, Timespec, Timestamps, mkdirat, openat, utimensat};

use super::*;

/// Creates this tree at `root`, with its permissions and times.
fn make(root: &Path, nodes: &Tree) {
    for (path, node) in nodes {
        let at = if path.is_empty() {
            root.to_owned()
        } else {
            root.join(os(path))
        };
        match node {
            Node::Directory { .. } => fs::create_dir(&at).unwrap(),
            Node::Link(target) => symlink(target, &at).unwrap(),
            Node::File { bytes, .. } => fs::write(&at, bytes).unwrap(),
        }
    }
    // From the leaves up, since each name changes the time of its directory.
    for (path, node) in nodes.iter().rev() {
        let at = if path.is_empty() {
            root.to_owned()
        } else {
            root.join(os(path))
        };
        let (Node::File { mode, mtime, .. } | Node::Directory { mode, mtime }) = node else {
            continue;
        };
        fs::set_permissions(&at, fs::Permissions::from_mode(*mode)).unwrap();
        set_time(&at, *mtime);
    }
}

/// Sets the time of the last change, to just before the next second.
fn set_time(path: &Path, seconds: i64) {
    let time = Timespec {
        tv_sec: seconds,
        tv_nsec: 999_999_999,
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    utimensat(CWD, path, &times, AtFlags::empty()).unwrap();
}

#[track_caller]
fn check(nodes: &Tree) -> Vec<FileEntry> {
    let (from, to) = (Place::new(), Place::new());
    make(&from.path("in"), nodes);
    let mut account = Account::default().with_manifest();
    let (stream, sent) = packed(&from.path("in"), &mut account).unwrap();
    let sent_entries = account.into_manifest();

    let mut account = Account::default().with_manifest();
    let came = to.extract(&stream, &mut account).unwrap();
    assert_eq!(tree(&to.path("out")), *nodes);
    assert_eq!(to.names(), [b"out"]);
    assert_eq!(came, sent);
    assert_eq!(came.sha256, Digest::of(&stream));
    assert_eq!(came.entries, nodes.len() as u64);
    let came_entries = account.into_manifest();
    assert_eq!(came_entries, sent_entries);
    came_entries
}

fn file(bytes: impl Into<Vec<u8>>) -> Node {
    Node::File {
        mode: 0o644,
        mtime: 1_700_000_000,
        bytes: bytes.into(),
    }
}

fn directory() -> Node {
    Node::Directory {
        mode: 0o755,
        mtime: 1_600_000_000,
    }
}

fn rooted<const N: usize>(nodes: [(&[u8], Node); N]) -> Tree {
    let mut tree = Tree::from([(Vec::new(), directory())]);
    tree.extend(nodes.map(|(path, node)| (path.to_owned(), node)));
    tree
}

#[test]
fn unusual_names_are_kept() {
    let long = [b'n'; 255];
    let deep = [&long[..], b"/", &long, b"/", &long].concat();
    check(&rooted([
        (b"-rf", file("a")),
        (b" ", file("b")),
        (b"line\nfeed\n12 path=x\n", file("c")),
        (b"\xff\xfe\x80", file("d")),
        (b"\\ \" ' $(reboot) ; * ?", file("e")),
        (b"\x1b[31m\x07", file("f")),
        ("grün 語".as_bytes(), file("g")),
        (b"...", file("h")),
        (b"con:", directory()),
        (&long, directory()),
        (&deep[..511], directory()),
        (&deep, file("i")),
        (&[&long[..10], &b"\n".repeat(200)].concat(), file("j")),
    ]));
}

#[test]
fn files_of_each_size_around_a_block_and_a_chunk() {
    for size in [
        0,
        1,
        511,
        512,
        513,
        CHUNK - 513,
        CHUNK - 512,
        CHUNK,
        CHUNK + 1,
        3 * CHUNK + 7,
    ] {
        let bytes: Vec<u8> = (0..size).map(|n| (n % 251) as u8).collect();
        let entries = check(&rooted([(b"a", file(bytes.clone())), (b"b", file("b"))]));
        assert_eq!(entries[1].sha256, Some(Digest::of(&bytes)));
        assert_eq!(entries[1].size, size as u64);
    }
}

#[test]
fn a_single_file_is_transferred() {
    let entries = check(&Tree::from([(Vec::new(), file("alone"))]));
    let [entry] = &entries[..] else {
        panic!("{entries:?}");
    };
    assert_eq!(entry.path, Path::new(""));
    assert_eq!(entry.kind, EntryKind::File);
    check(&Tree::from([(Vec::new(), file(""))]));
}

#[test]
fn links_permissions_and_times_are_kept() {
    let short = |target: &str| Node::Link(target.into());
    let far = "x".repeat(255) + "/" + &"y".repeat(255);
    let mode = |mode| Node::File {
        mode,
        mtime: 0,
        bytes: b"#!".to_vec(),
    };
    check(&rooted([
        (b"to-nothing", short("nowhere")),
        (b"to-directory", short("d")),
        (b"far", short(&far)),
        (b"d", directory()),
        (b"d/up", short("../x")),
        (b"x", mode(0o755)),
        (b"read-only", mode(0o400)),
        (b"all", mode(0o777)),
        (
            b"late",
            Node::File {
                mode: 0o600,
                mtime: (1 << 31) - 1,
                bytes: Vec::new(),
            },
        ),
    ]));
}

#[test]
fn set_id_bits_hard_links_and_times_before_1970_are_not_kept() {
    let (from, to) = (Place::new(), Place::new());
    let root = from.path("in");
    fs::create_dir_all(root.join("locked")).unwrap();
    fs::write(root.join("a"), "a").unwrap();
    fs::hard_link(root.join("a"), root.join("b")).unwrap();
    fs::set_permissions(root.join("a"), fs::Permissions::from_mode(0o6755)).unwrap();
    fs::set_permissions(root.join("locked"), fs::Permissions::from_mode(0o1055)).unwrap();
    set_time(&root.join("a"), -5);
    let (stream, _) = packed(&root, &mut Account::default()).unwrap();
    to.extract(&stream, &mut Account::default()).unwrap();
    let found = tree(&to.path("out"));
    let a = Node::File {
        mode: 0o755,
        mtime: 0,
        bytes: b"a".to_vec(),
    };
    assert_eq!((&found[&b"a"[..]], &found[&b"b"[..]]), (&a, &a));
    assert_eq!(fs::metadata(to.path("out").join("b")).unwrap().nlink(), 1);
    assert!(matches!(
        found[&b"locked"[..]],
        Node::Directory { mode: 0o755, .. }
    ));
    fs::set_permissions(root.join("locked"), fs::Permissions::from_mode(0o700)).unwrap();
}

#[test]
fn a_tree_of_the_greatest_depth_is_transferred() {
    let mut nodes = rooted([]);
    let mut path = Vec::new();
    while path.len() < 4094 {
        path.extend(if path.is_empty() {
            &b"d"[..]
        } else {
            &b"/d"[..]
        });
        nodes.insert(path.clone(), directory());
    }
    assert_eq!(nodes.len(), 2049);
    let (from, to) = (Place::new(), Place::new());
    let mut here = open(from.0.path());
    for name in std::iter::once("in").chain(std::iter::repeat_n("d", 2048)) {
        mkdirat(&here, name, 0o755.into()).unwrap();
        here = openat(&here, name, OFlags::DIRECTORY, 0.into()).unwrap();
    }
    let (stream, sent) = packed(&from.path("in"), &mut Account::default()).unwrap();
    assert_eq!(sent.entries, 2049);
    assert_eq!(to.extract(&stream, &mut Account::default()).unwrap(), sent);
}

#[test]
fn the_stream_does_not_depend_on_the_name_of_the_root() {
    let place = Place::new();
    let nodes = rooted([(b"b", file("1")), (b"a", directory()), (b"a/c", file("2"))]);
    for name in ["one", "two"] {
        make(&place.path(name), &nodes);
    }
    let one = packed(&place.path("one"), &mut Account::default()).unwrap();
    let two = packed(&place.path("two"), &mut Account::default()).unwrap();
    assert!(one == two);
    let names: Vec<_> = tar::Archive::new(&one.0[..])
        .entries()
        .unwrap()
        .map(|entry| entry.unwrap().path_bytes().into_owned())
        .collect();
    assert_eq!(names, [&b"./"[..], b"a/", b"a/c", b"b"]);
}

fn arbitrary() -> impl Strategy<Value = Tree> {
    let name = vec(prop_oneof![Just(b'a'), Just(b'b'), 1..=255_u8], 1..40)
        .prop_map(|name| {
            name.into_iter()
                .filter(|&byte| byte != b'/')
                .collect::<Vec<_>>()
        })
        .prop_filter("a name", |name| {
            !name.is_empty() && name != b"." && name != b".." && name.len() < 256
        });
    let leaf = prop_oneof![
        (vec(any::<u8>(), 0..2000), 0..0o1000_u32, 0..1_i64 << 31).prop_map(
            |(bytes, mode, mtime)| {
                // The owner can read every file, so that the test runs as any user.
                let mode = mode | 0o400;
                Node::File { mode, mtime, bytes }
            }
        ),
        vec(1..=255_u8, 1..150).prop_filter_map("a target", |target| {
            let is_plain = !target.starts_with(b"/") && !target.windows(2).any(|two| two == b"..");
            is_plain.then(|| Node::Link(os(&target).into()))
        }),
    ];
    let leaf = leaf.prop_map(|node| Tree::from([(Vec::new(), node)]));
    leaf.prop_recursive(4, 40, 6, move |inner| {
        (
            btree_map(name.clone(), inner, 0..6),
            0..0o1000_u32,
            0..1_i64 << 31,
        )
            .prop_map(|(children, mode, mtime)| {
                let mode = mode | 0o700;
                let mut tree = Tree::from([(Vec::new(), Node::Directory { mode, mtime })]);
                for (name, child) in children {
                    tree.extend(child.into_iter().map(|(path, node)| match path.is_empty() {
                        true => (name.clone(), node),
                        false => ([&name[..], b"/", &path].concat(), node),
                    }));
                }
                tree
            })
    })
    .prop_filter("a root", |tree| !matches!(tree[&b""[..]], Node::Link(_)))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn an_extracted_tree_is_the_packed_one(nodes in arbitrary()) {
        check(&nodes);
    }
}
