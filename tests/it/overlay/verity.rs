//! The fs-verity digests of files, compared with those of Debian's fsverity-utils 1.5.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use chv_sandbox::overlay::{
    AccessPolicy, Digest, FileProof, Threads, VerityDigest, Work, fsverity, record, sha256,
};
use serde::Deserialize;

/// A file's content, and the digests that `fsverity digest --hash-alg=sha256 --block-size=4096` and `sha256sum` print
/// for it.
#[derive(Debug, Deserialize)]
struct Vector {
    length: u64,
    /// Offset and length of each range of data; everything else is a hole.
    data: Vec<(u64, u64)>,
    fsverity: VerityDigest,
    sha256: Digest,
}

/// Half a MiB of pseudo-random bytes. Each range of data repeats them.
fn noise() -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    });
    words.take(64 << 10).flat_map(u64::to_le_bytes).collect()
}

impl Vector {
    fn all() -> Vec<Vector> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/verity/vectors.json");
        serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
    }

    fn write_to(&self, path: &Path, noise: &[u8]) {
        let file = File::create(path).unwrap();
        file.set_len(self.length).unwrap();
        for (offset, length) in &self.data {
            let mut done = 0;
            while done < *length {
                let some = (length - done).min(noise.len() as u64);
                let bytes = &noise[..some as usize];
                file.write_all_at(bytes, offset + done).unwrap();
                done += some;
            }
        }
    }
}

/// Temporary directories on filesystems that report holes and on filesystems that don't, as far as this machine has
/// both.
fn directories() -> Vec<tempfile::TempDir> {
    let places = [std::env::temp_dir(), "/dev/shm".into()];
    let found = places.iter().map(tempfile::tempdir_in);
    found.filter_map(Result::ok).collect()
}

/// A file with more bytes than this is digested in one way only, because the test build's hash function is slow.
const LARGE: u64 = 11 << 20;

#[test]
fn every_file_has_the_digest_of_fsverity_and_sha256sum() {
    let (noise, directories) = (noise(), directories());
    for vector in Vector::all() {
        for directory in &directories {
            let path = directory.path().join("disk");
            vector.write_to(&path, &noise);
            let four = Threads::new(4.try_into().unwrap());
            let given = [
                (AccessPolicy::PreferMapped, four),
                (AccessPolicy::PreferMapped, Threads::ONE),
                (AccessPolicy::ReadOnly, four),
            ];
            let data: u64 = vector.data.iter().map(|(_, length)| length).sum();
            let ways = if data > LARGE { 1 } else { given.len() };
            for (policy, threads) in given.into_iter().take(ways) {
                let hashed = fsverity(&path, policy, threads).unwrap();
                assert_eq!(hashed.digest, vector.fsverity, "{vector:?}");
                assert_eq!(hashed.length, vector.length);
                assert_adds_up(&hashed);
            }
            if vector.length <= LARGE {
                let hashed = sha256(&path, AccessPolicy::PreferMapped).unwrap();
                assert_eq!(hashed.digest, vector.sha256, "{vector:?}");
            }
        }
    }
}

#[test]
fn both_digests_come_out_of_one_pass() {
    let (noise, directory) = (noise(), tempfile::tempdir().unwrap());
    let path = directory.path().join("disk");
    for vector in Vector::all() {
        if vector.length > LARGE {
            continue;
        }
        vector.write_to(&path, &noise);
        for policy in [AccessPolicy::PreferMapped, AccessPolicy::ReadOnly] {
            let both = record(&path, policy).unwrap();
            assert_eq!(both.digest.fsverity, vector.fsverity, "{vector:?}");
            assert_eq!(both.digest.sha256, vector.sha256, "{vector:?}");
            assert_eq!(
                (both.digest.length, both.length),
                (vector.length, vector.length)
            );
            assert_eq!(both.work.hashed, vector.length);
        }
    }
}

fn assert_adds_up(hashed: &FileProof<VerityDigest>) {
    let Work {
        hashed: bytes,
        mapped,
        read,
        skipped,
    } = hashed.work;
    assert_eq!(mapped + read, bytes);
    assert_eq!(bytes + skipped, hashed.length);
}

#[test]
fn bytes_in_memory_have_the_digest_of_their_file() {
    let noise = noise();
    let dense = |vector: &Vector| vector.data == [(0, vector.length)] && vector.length <= LARGE;
    for vector in Vector::all().into_iter().filter(dense) {
        let bytes: Vec<u8> = noise
            .iter()
            .copied()
            .cycle()
            .take(vector.length as usize)
            .collect();
        assert_eq!(VerityDigest::of(&bytes), vector.fsverity);
    }
}

/// A file of 1 GiB with 64 KiB of data in `/dev/shm`, where the filesystem reports holes. `None` if there is no such
/// directory.
fn sparse() -> Option<(tempfile::TempDir, PathBuf)> {
    let directory = tempfile::tempdir_in("/dev/shm").ok()?;
    let path = directory.path().join("disk");
    let file = File::create(&path).unwrap();
    file.set_len(1 << 30).unwrap();
    file.write_all_at(&[7; 64 << 10], 300 << 20).unwrap();
    Some((directory, path))
}

#[test]
fn holes_are_not_read() {
    let Some((_directory, path)) = sparse() else {
        return;
    };
    let skipped = (1 << 30) - (64 << 10);
    for policy in [AccessPolicy::PreferMapped, AccessPolicy::ReadOnly] {
        let hashed = fsverity(&path, policy, Threads::default()).unwrap();
        assert_eq!(hashed.work.skipped, skipped);
    }
    // tmpfs allocates a page of a hole when it is read, so the unchanged number of blocks shows that no hole was read.
    assert_eq!(path.metadata().unwrap().blocks() * 512, 64 << 10);
}
