//! A golden snapshot verifies only as it was minted: a change of any byte of the manifest, of the signature or of a
//! file that the manifest names is found.

use std::fs;
use std::path::{Path, PathBuf};

use chv_sandbox::golden::{Golden, Trust, mint};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};

use super::manifest::keys;
use crate::sandbox::Scene;

/// A change to the bytes of a file. The place is given as a fraction of the length.
#[derive(Clone, Debug)]
enum Change {
    Flip { at: f64, bit: u8 },
    Insert { at: f64, byte: u8 },
    Remove { at: f64 },
    Cut { at: f64 },
    Repeat { at: f64 },
}

fn change() -> impl Strategy<Value = Change> {
    let at = || 0.0..1.0_f64;
    prop_oneof![
        (at(), 0..8_u8).prop_map(|(at, bit)| Change::Flip { at, bit }),
        (at(), any::<u8>()).prop_map(|(at, byte)| Change::Insert { at, byte }),
        at().prop_map(|at| Change::Remove { at }),
        at().prop_map(|at| Change::Cut { at }),
        at().prop_map(|at| Change::Repeat { at }),
    ]
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        let place = |at: &f64| (*at * bytes.len() as f64) as usize;
        match self {
            Change::Flip { at, bit } => {
                let at = place(at);
                bytes[at] ^= 1 << bit;
            }
            Change::Insert { at, byte } => bytes.insert(place(at), *byte),
            Change::Remove { at } => drop(bytes.remove(place(at))),
            Change::Cut { at } => bytes.truncate(place(at)),
            Change::Repeat { at } => {
                let again = bytes[place(at)..].to_vec();
                bytes.extend(again);
            }
        }
    }
}

const FILES: [&str; 6] = [
    "manifest.json",
    "manifest.sig",
    "overlay.img",
    "snapshot/config.json",
    "snapshot/state.json",
    "snapshot/memory-ranges",
];

#[tokio::test]
async fn only_the_minted_bytes_verify() {
    let scene = Scene::new();
    let (key, public) = keys(&scene, 7);
    let mut config = scene.mint_config();
    config.sign_with = Some(key);
    mint(config).await.unwrap();
    let golden = scene.path("golden");
    let mut trust = Trust::default();
    trust.signed_by = Some(public);
    let is_believed = |golden: &Path| {
        let opened = Golden::open_trusted(golden, &trust);
        let verified = opened.and_then(|golden| golden.verify());
        verified.is_ok_and(|inspection| inspection.mismatches.is_empty())
    };
    assert!(is_believed(&golden));
    let config = Config {
        cases: 200,
        failure_persistence: None,
        ..Config::default()
    };
    let cases = (prop::sample::select(&FILES[..]), change());
    let tried = TestRunner::new(config).run(&cases, |(file, change)| {
        let path: PathBuf = golden.join(file);
        let minted = fs::read(&path).unwrap();
        let mut changed = minted.clone();
        change.apply(&mut changed);
        fs::write(&path, &changed).unwrap();
        let believed = is_believed(&golden);
        fs::write(&path, &minted).unwrap();
        // A change may result in the same bytes as before.
        match believed == (changed == minted) {
            true => Ok(()),
            false => Err(TestCaseError::fail(format!("{file} after {change:?}"))),
        }
    });
    tried.unwrap();
    assert!(is_believed(&golden));
}
