//! After any sequence of changes to a file, its digest is that of its bytes, and a copy has the same digest.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use chv_sandbox::overlay::{AccessPolicy, Digest, copy_private, make_sparse, record, sha256};
use proptest::prelude::*;
use rustix::fs::FallocateFlags;

use super::noise;

/// A change to a file. Offsets and lengths are in bytes.
#[derive(Clone, Debug)]
enum Step {
    Write { at: u64, length: usize },
    Zeros { at: u64, length: usize },
    Hole { at: u64, length: u64 },
    Truncate { length: u64 },
}

const LONGEST: u64 = 1 << 20;

fn step() -> impl Strategy<Value = Step> {
    let at = || 0..LONGEST;
    prop_oneof![
        (at(), 1_usize..100_000).prop_map(|(at, length)| Step::Write { at, length }),
        (at(), 1_usize..100_000).prop_map(|(at, length)| Step::Zeros { at, length }),
        (at(), 1_u64..200_000).prop_map(|(at, length)| Step::Hole { at, length }),
        at().prop_map(|length| Step::Truncate { length }),
    ]
}

/// Applies the steps to a file, and returns the bytes that it must have then.
fn make(path: &Path, steps: &[Step]) -> Vec<u8> {
    let file = File::create(path).unwrap();
    let mut expected: Vec<u8> = Vec::new();
    let write = |at: u64, bytes: &[u8], expected: &mut Vec<u8>| {
        file.write_all_at(bytes, at).unwrap();
        let (at, end) = (at as usize, at as usize + bytes.len());
        expected.resize(expected.len().max(end), 0);
        expected[at..end].copy_from_slice(bytes);
    };
    for step in steps {
        match *step {
            Step::Write { at, length } => write(at, &noise(length), &mut expected),
            Step::Zeros { at, length } => write(at, &vec![0; length], &mut expected),
            Step::Hole { at, length } => {
                let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                // On a file system without holes, zeros are written there.
                if rustix::fs::fallocate(&file, flags, at, length).is_ok() {
                    let end = expected.len().min((at + length) as usize);
                    let at = end.min(at as usize);
                    expected[at..end].fill(0);
                }
            }
            Step::Truncate { length } => {
                file.set_len(length).unwrap();
                expected.resize(length as usize, 0);
            }
        }
    }
    expected
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn a_digest_is_the_naive_one(steps in prop::collection::vec(step(), 0..8)) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("disk");
        let expected = make(&path, &steps);
        for policy in [AccessPolicy::PreferMapped, AccessPolicy::ReadOnly] {
            let hashed = sha256(&path, policy).unwrap();
            prop_assert_eq!(hashed.digest, Digest::of(&expected));
            prop_assert_eq!(hashed.length, expected.len() as u64);
        }
        // The fs-verity digest is also one of the bytes, wherever the file has holes.
        let recorded = record(&path, AccessPolicy::PreferMapped).unwrap().digest;
        let plain = directory.path().join("plain");
        fs::write(&plain, &expected).unwrap();
        let of_plain = record(&plain, AccessPolicy::ReadOnly).unwrap().digest;
        prop_assert_eq!(recorded.sha256, Digest::of(&expected));
        prop_assert_eq!(recorded.fsverity, of_plain.fsverity);
    }

    #[test]
    fn a_sparse_copy_and_a_copy_made_sparse_are_equal(steps in prop::collection::vec(step(), 0..8)) {
        let directory = tempfile::tempdir().unwrap();
        let (path, copy) = (directory.path().join("disk"), directory.path().join("copy"));
        let expected = make(&path, &steps);
        copy_private(&path, &copy).unwrap();
        prop_assert!(fs::read(&copy).unwrap() == expected);
        make_sparse(&copy).unwrap();
        prop_assert!(fs::read(&copy).unwrap() == expected);
        prop_assert_eq!(sha256(&copy, AccessPolicy::PreferMapped).unwrap().digest, Digest::of(&expected));
    }
}
