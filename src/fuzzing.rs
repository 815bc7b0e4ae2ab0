//! Fuzz targets: one function of bytes for each parser of bytes that come from a guest, a VMM, a disk or a file.
//!
//! Only tests and fuzzers compile this module (`cfg(fuzzing)` is set by `cargo fuzz`). A target is defined beside the
//! code that it tests, in `fuzz.rs`. It panics where the code under test panics, and where a property that must hold
//! for all input does not hold: for instance, a value that is parsed, written and parsed again is the same value.
//! `fuzz/` has one program and one corpus for each target. `cargo test` runs each target on its corpus.

/// A target accepts any bytes, and must return.
type Target = fn(&[u8]);

/// Every target by the name of its corpus.
const TARGETS: &[(&str, Target)] = &[
    ("archive", crate::archive::fuzz::archive),
    ("cassette", crate::replay::fuzz::cassette),
    ("configuration", crate::sandbox::fuzz::configuration),
    ("contract", crate::spec::fuzz::contract),
    ("event_monitor", crate::client::fuzz::event_monitor),
    ("frames_to_guest", crate::guest::fuzz::frames_to_guest),
    ("frames_to_host", crate::vsock::fuzz::frames_to_host),
    ("handshake", crate::vsock::fuzz::handshake),
    ("http_answer", crate::client::fuzz::http_answer),
    ("manifest", crate::golden::fuzz::manifest),
    ("modules_dep", crate::image::fuzz::modules_dep),
    ("oci_layer", crate::image::fuzz::oci_layer),
    ("oci_layout", crate::image::fuzz::oci_layout),
    ("qcow2_header", crate::overlay::fuzz::qcow2_header),
    ("run_records", crate::vsock::fuzz::run_records),
    ("sanitize", crate::sanitize::fuzz::sanitize),
    ("snapshot_config", crate::machine::fuzz::snapshot_config),
    ("snapshot_state", crate::machine::fuzz::snapshot_state),
    ("tools_file", crate::guest::fuzz::tools_file),
];

/// Runs the target called `name` on `bytes`.
///
/// # Panics
///
/// If no target has that name, and if the target finds a fault.
pub fn run(name: &str, bytes: &[u8]) {
    let target = TARGETS.iter().find(|(known, _)| *known == name);
    let (_, target) = target.unwrap_or_else(|| panic!("no target is called {name}"));
    target(bytes);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::{Path, PathBuf};

    use super::*;

    /// How many variations of each input are tried in addition to the input itself.
    const VARIATIONS: usize = 24;

    /// The length in bytes up to which an input is varied. Variations of longer inputs would take too long.
    const VARIED: usize = 16 << 10;

    fn corpus() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus")
    }

    fn inputs(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
        let mut inputs: Vec<_> = fs::read_dir(corpus().join(target))
            .unwrap_or_else(|error| panic!("the corpus of {target}: {error}"))
            .map(|entry| entry.unwrap().path())
            .map(|path| (path.clone(), fs::read(path).unwrap()))
            .collect();
        inputs.sort();
        inputs
    }

    /// One variation of the input: cut, with one byte changed, or with a piece repeated at the end.
    fn variation(bytes: &[u8], random: &mut fastrand::Rng) -> Vec<u8> {
        let mut varied = bytes.to_vec();
        if varied.is_empty() {
            return vec![random.u8(..)];
        }
        let at = random.usize(..varied.len());
        match random.u8(..4) {
            0 => varied.truncate(at),
            1 => varied[at] = random.u8(..),
            2 => varied[at] ^= 1 << random.u8(..8),
            _ => {
                let piece = varied[at..].to_vec();
                varied.extend(&piece[..piece.len().min(64)]);
            }
        }
        varied
    }

    fn replay(name: &str) {
        let inputs = inputs(name);
        assert!(!inputs.is_empty(), "{name} has no corpus");
        // The seed is fixed, so that a failure can be repeated.
        let mut random = fastrand::Rng::with_seed(0x5eed);
        for (path, bytes) in inputs {
            let run_all = |random: &mut fastrand::Rng| {
                run(name, &bytes);
                if bytes.len() <= VARIED {
                    (0..VARIATIONS).for_each(|_| run(name, &variation(&bytes, random)));
                }
            };
            let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                run_all(&mut random);
            }));
            assert!(
                ran.is_ok(),
                "{name} fails on {} or a variation of it",
                path.display()
            );
        }
    }

    macro_rules! replayed {
        ($($target:ident),* $(,)?) => {
            $(
                #[test]
                fn $target() {
                    replay(stringify!($target));
                }
            )*

            const REPLAYED: &[&str] = &[$(stringify!($target)),*];
        };
    }

    replayed!(
        archive,
        cassette,
        configuration,
        contract,
        event_monitor,
        frames_to_guest,
        frames_to_host,
        handshake,
        http_answer,
        manifest,
        modules_dep,
        oci_layer,
        oci_layout,
        qcow2_header,
        run_records,
        sanitize,
        snapshot_config,
        snapshot_state,
        tools_file,
    );

    #[test]
    fn each_target_has_a_corpus_a_program_and_a_replay() {
        let names = |path: PathBuf| -> BTreeSet<String> {
            fs::read_dir(&path)
                .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
                .map(|entry| entry.unwrap().path())
                .map(|path| path.file_stem().unwrap().to_string_lossy().into_owned())
                .collect()
        };
        let targets: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).into()).collect();
        let replayed: BTreeSet<String> = REPLAYED.iter().map(|name| (*name).into()).collect();
        assert_eq!(replayed, targets);
        assert_eq!(names(corpus()), targets);
        assert_eq!(names(corpus().with_file_name("fuzz_targets")), targets);
    }
}
