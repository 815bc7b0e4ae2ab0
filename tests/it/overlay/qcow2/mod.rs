//! Chains of backing files.

pub(crate) mod image;

use std::fs::{self, File, hard_link};
use std::path::{Path, PathBuf};

use chv_sandbox::overlay::qcow2::{Problem, chain};
use chv_sandbox::overlay::{DiskFormat, Error};
use proptest::prelude::*;
use tempfile::TempDir;

use image::{CLUSTER, Image};

struct Scene {
    folder: TempDir,
}

impl Scene {
    /// A scene with a raw `base`.
    fn new() -> Scene {
        let scene = Scene {
            folder: tempfile::tempdir().unwrap(),
        };
        File::create(scene.path("base"))
            .unwrap()
            .set_len(8 << 20)
            .unwrap();
        scene
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes `image`, with the bytes at these offsets replaced.
    fn write(&self, image: &Image, changes: &[(usize, &[u8])]) -> PathBuf {
        let mut bytes = image.bytes();
        for (offset, change) in changes {
            bytes[*offset..offset + change.len()].copy_from_slice(change);
        }
        let path = self.path("overlay");
        fs::write(&path, bytes).unwrap();
        path
    }
}

fn refusal(path: &Path) -> (PathBuf, Problem) {
    match chain(path) {
        Err(Error::Qcow2 { path, problem }) => (path, problem),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_chain_is_followed_to_its_end() {
    let scene = Scene::new();
    let (base, middle, top) = (scene.path("base"), scene.path("middle"), scene.path("top"));
    // Backing files are never written to, so their version doesn't matter.
    Image {
        version: 3,
        ..Image::over(&base, "raw")
    }
    .write(&middle);
    Image::over(&middle, "qcow2").write(&top);
    let chain = chain(&top).unwrap();
    assert_eq!(chain.image().path, top);
    assert_eq!(chain.disk_length(), 8 << 20);
    let below: Vec<_> = chain
        .backing()
        .iter()
        .map(|m| (&m.path, m.format))
        .collect();
    assert_eq!(
        below,
        [(&middle, DiskFormat::Qcow2), (&base, DiskFormat::Raw)]
    );
    chain.check_writable().unwrap();

    Image::alone().write(&top);
    assert_eq!(self::chain(&top).unwrap().backing(), []);
    let error = self::chain(&middle).unwrap().check_writable().unwrap_err();
    let problem = Problem::ChangedByOpening;
    assert!(matches!(error, Error::Qcow2 { problem: p, .. } if p == problem));
}

#[test]
fn images_that_are_refused() {
    let scene = Scene::new();
    let base = scene.path("base");
    let check = |version: u32, changes: &[(usize, &[u8])], expected: Problem| {
        let image = Image {
            version,
            ..Image::over(&base, "raw")
        };
        let path = scene.write(&image, changes);
        assert_eq!(refusal(&path), (path, expected), "{changes:?}");
    };
    let bit = |bit: u64| (1_u64 << bit).to_be_bytes();
    check(2, &[(0, b"RAW!")], Problem::NoHeader);
    check(2, &[(7, &[1])], Problem::Version(1));
    check(2, &[(7, &[4])], Problem::Version(4));
    check(2, &[(35, &[1])], Problem::Encrypted);
    check(2, &[(63, &[2])], Problem::Snapshots(2));
    check(
        2,
        &[(23, &[8])],
        Problem::Malformed("the size of a cluster"),
    );
    check(
        2,
        &[(23, &[22])],
        Problem::Malformed("the size of a cluster"),
    );
    check(3, &[(72, &bit(0))], Problem::Dirty);
    check(3, &[(72, &bit(1))], Problem::Corrupt);
    check(3, &[(72, &bit(2))], Problem::ExternalData);
    check(3, &[(72, &bit(4))], Problem::Features(16));
    check(3, &[(72, &bit(63))], Problem::Features(1 << 63));
    check(
        3,
        &[(103, &[96])],
        Problem::Malformed("the header's length"),
    );
    check(
        3,
        &[(103, &[105])],
        Problem::Malformed("the header's length"),
    );
    let ends = Problem::Malformed("it ends within its header");
    check(
        3,
        &[(100, &[0x7f])],
        Problem::Malformed("the place of the backing file's name"),
    );
    check(2, &[(76, &[0x7f])], ends.clone());
    check(2, &[(13, &[1])], ends.clone());
    check(2, &[(14, &[0xff, 0xff])], ends);
    check(
        2,
        &[(14, &[0, 1])],
        Problem::Malformed("the place of the backing file's name"),
    );
    check(
        2,
        &[(8, &[0; 8])],
        Problem::Malformed("half of the backing file's name"),
    );
    check(
        2,
        &[(16, &[0; 4])],
        Problem::Malformed("half of the backing file's name"),
    );
    check(
        2,
        &[(18, &[4])],
        Problem::Malformed("the length of the backing file's name"),
    );
    check(2, &[(72, &[0; 4])], Problem::BackingFormatMissing);
    check(2, &[(80, b"vmd")], Problem::BackingFormat("vmd".to_owned()));
    let again = [&0xe279_2aca_u32.to_be_bytes()[..], &[0, 0, 0, 3], b"raw"].concat();
    check(
        2,
        &[(88, &again)],
        Problem::Malformed("two formats of the backing file"),
    );
}

#[test]
fn a_backing_file_is_named_absolutely_and_is_what_it_is_said_to_be() {
    let scene = Scene::new();
    let overlay = scene.path("overlay");
    for name in ["base", "./base", "nbd://host/base", "json:{}", "/base\0"] {
        let image = Image {
            backing: Some((name.to_owned(), Some("raw"))),
            ..Image::alone()
        };
        image.write(&overlay);
        let expected = Problem::BackingNotAbsolute(name.to_owned());
        assert_eq!(refusal(&overlay), (overlay.clone(), expected));
    }

    let posing = scene.path("posing");
    Image::alone().write(&posing);
    Image::over(&posing, "raw").write(&overlay);
    assert_eq!(
        refusal(&overlay),
        (overlay.clone(), Problem::NotRaw(posing))
    );
    Image::over(&scene.path("base"), "qcow2").write(&overlay);
    assert_eq!(refusal(&overlay), (scene.path("base"), Problem::NoHeader));

    Image::over(&scene.path("missing"), "raw").write(&overlay);
    let error = chain(&overlay).unwrap_err();
    assert!(matches!(&error, Error::Io { path, .. } if *path == scene.path("missing")));
    Image::over(scene.folder.path(), "raw").write(&overlay);
    let error = chain(&overlay).unwrap_err();
    assert!(matches!(error, Error::NotRegular { .. }), "{error}");
}

#[test]
fn a_chain_ends() {
    let scene = Scene::new();
    let level = |level: usize| scene.path(&format!("level{level}"));
    Image::over(&scene.path("base"), "raw").write(&level(1));
    for number in 2..=9 {
        Image::over(&level(number - 1), "qcow2").write(&level(number));
    }
    assert_eq!(chain(&level(8)).unwrap().backing().len(), 8);
    assert_eq!(refusal(&level(9)), (level(1), Problem::TooDeep));

    let (one, other) = (scene.path("one"), scene.path("other"));
    Image::over(&other, "qcow2").write(&one);
    Image::over(&one, "qcow2").write(&other);
    assert_eq!(refusal(&one), (other, Problem::Cycle(one.clone())));
    // An image whose backing file is itself, by another name.
    let hard = scene.path("hard");
    Image::over(&hard, "qcow2").write(&one);
    hard_link(&one, &hard).unwrap();
    assert_eq!(refusal(&one), (one, Problem::Cycle(hard)));
}

proptest! {
    /// Reading a header gives a result or an error, whatever the bytes are.
    #[test]
    fn no_header_is_too_strange(
        version in 2_u32..=3,
        changes in prop::collection::vec((0_usize..600, any::<u8>()), 0..12),
        length in 0_usize..=4 * CLUSTER,
    ) {
        let scene = Scene::new();
        let image = Image { version, ..Image::over(&scene.path("base"), "raw") };
        let mut bytes = image.bytes();
        for (offset, byte) in changes {
            bytes[offset] = byte;
        }
        bytes.truncate(length);
        let path = scene.path("overlay");
        fs::write(&path, bytes).unwrap();
        if let Ok(chain) = chain(&path) {
            for member in chain.backing() {
                prop_assert!(member.path.is_absolute());
            }
        }
    }
}
