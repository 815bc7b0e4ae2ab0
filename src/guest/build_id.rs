//! [`BUILD_ID`], which identifies the guest's sources: a fingerprint that the compiler computes while it builds them.

/// Identifies the sources that `chv-guest` is built from: sixteen lower-case hexadecimal digits.
///
/// The host's library and `chv-guest` have the same id if they were built from the same sources, for any target and in
/// any profile. Any change of these sources changes the id, so a host can tell that an image holds an older
/// `chv-guest`. The id is a fingerprint (FNV-1a, 64 bits), not a proof: a hostile guest can send any id.
pub const BUILD_ID: &str = match std::str::from_utf8(&HEX) {
    Ok(hex) => hex,
    Err(_) => panic!("hexadecimal digits are ASCII"),
};

/// The text before the id in the executable `chv-guest`. It occurs there once. A program that packs an image finds the
/// id of an executable by this text, without running the executable. A zero byte follows the id.
pub(crate) const BUILD_ID_MARKER: &str = "chv-guest-build-id=";

/// `chv-guest-build-id=`, [`BUILD_ID`] and a zero byte, as `chv-guest` keeps them in its data.
pub const MARKED_BUILD_ID: [u8; BUILD_ID_MARKER.len() + HEX.len() + 1] = {
    let mut marked = [0; _];
    let (marker, id) = marked.split_at_mut(BUILD_ID_MARKER.len());
    marker.copy_from_slice(BUILD_ID_MARKER.as_bytes());
    id.split_at_mut(HEX.len()).0.copy_from_slice(&HEX);
    marked
};

/// Pairs each file's name, relative to `src/guest/`, with its content.
macro_rules! sources {
    ($($name:literal),+ $(,)?) => { &[$(($name, include_bytes!($name))),+] };
}

/// Every source file of the guest: this folder without `stand_in.rs`, which runs on the host only; the main file of
/// `chv-guest`; and the modules that decoding frames and transferring files use.
const SOURCES: &[(&str, &[u8])] = sources![
    "../archive/account.rs",
    "../archive/beneath.rs",
    "../archive/entry.rs",
    "../archive/error.rs",
    "../archive/extract.rs",
    "../archive/format.rs",
    "../archive/listing.rs",
    "../archive/mod.rs",
    "../archive/pack.rs",
    "../archive/path.rs",
    "../archive/remove.rs",
    "../archive/staged.rs",
    "../archive/stream.rs",
    "../archive/symlink_target.rs",
    "../bin/chv-guest.rs",
    "../digest.rs",
    "../hex.rs",
    "../sanitize.rs",
    "build_id.rs",
    "dispatcher/capture.rs",
    "dispatcher/cgroup.rs",
    "dispatcher/command.rs",
    "dispatcher/confinement.rs",
    "dispatcher/connection.rs",
    "dispatcher/descriptor_count.rs",
    "dispatcher/evidence.rs",
    "dispatcher/files.rs",
    "dispatcher/function.rs",
    "dispatcher/in_flight.rs",
    "dispatcher/landlock.rs",
    "dispatcher/limits.rs",
    "dispatcher/listener.rs",
    "dispatcher/mod.rs",
    "dispatcher/processes.rs",
    "dispatcher/relay/inbox.rs",
    "dispatcher/relay/input.rs",
    "dispatcher/relay/mod.rs",
    "dispatcher/relay/outbox.rs",
    "dispatcher/running.rs",
    "dispatcher/seccomp.rs",
    "dispatcher/session.rs",
    "dispatcher/stream_connection.rs",
    "dispatcher/stream_run.rs",
    "dispatcher/system.rs",
    "dispatcher/throwaway.rs",
    "dispatcher/toolbox/defaults.rs",
    "dispatcher/toolbox/file.rs",
    "dispatcher/toolbox/mod.rs",
    "dispatcher/toolbox/run_options.rs",
    "dispatcher/toolbox/tool.rs",
    "dispatcher/transfer.rs",
    "frame.rs",
    "init/cmdline.rs",
    "init/disks.rs",
    "init/mod.rs",
    "init/modules.rs",
    "init/mounts.rs",
    "mod.rs",
    "protocol/closed.rs",
    "protocol/evidence.rs",
    "protocol/extension.rs",
    "protocol/frame_type.rs",
    "protocol/json_text.rs",
    "protocol/limits.rs",
    "protocol/mod.rs",
    "protocol/query.rs",
    "protocol/reset.rs",
    "protocol/run_chain.rs",
    "protocol/stream.rs",
    "protocol/tests.rs",
    "protocol/tool.rs",
    "protocol/tool_result.rs",
    "record.rs",
];

const HEX: [u8; 16] = hex(fingerprint(SOURCES));

/// FNV-1a over each file's name, its length and its content.
const fn fingerprint(sources: &[(&str, &[u8])]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325;
    let mut file = 0;
    while file < sources.len() {
        let (name, content) = sources[file];
        hash = fnv1a(hash, name.as_bytes());
        hash = fnv1a(hash, &(content.len() as u64).to_be_bytes());
        hash = fnv1a(hash, content);
        file += 1;
    }
    hash
}

const fn fnv1a(mut hash: u64, bytes: &[u8]) -> u64 {
    let mut at = 0;
    while at < bytes.len() {
        hash = (hash ^ bytes[at] as u64).wrapping_mul(0x0000_0100_0000_01b3);
        at += 1;
    }
    hash
}

const fn hex(value: u64) -> [u8; 16] {
    let mut digits = [0; 16];
    let mut at = 0;
    while at < digits.len() {
        digits[at] = b"0123456789abcdef"[(value >> (60 - 4 * at) & 15) as usize];
        at += 1;
    }
    digits
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// The names of all Rust files below `folder`, relative to it.
    fn rust_files(folder: &Path, prefix: &str, found: &mut Vec<String>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            let name = format!("{prefix}{}", entry.file_name().to_str().unwrap());
            if entry.file_type().unwrap().is_dir() {
                rust_files(&entry.path(), &format!("{name}/"), found);
            } else if name.ends_with(".rs") {
                found.push(name);
            }
        }
    }

    #[test]
    fn every_source_file_of_the_guest_counts() {
        let mut found = [
            "../bin/chv-guest.rs",
            "../digest.rs",
            "../hex.rs",
            "../sanitize.rs",
        ]
        .map(str::to_owned)
        .to_vec();
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        rust_files(&sources.join("guest"), "", &mut found);
        rust_files(&sources.join("archive"), "../archive/", &mut found);
        found.retain(|name| name != "stand_in.rs" && !name.starts_with("../archive/tests/"));
        // No program is built from the fuzz targets.
        found.retain(|name| !name.ends_with("fuzz.rs"));
        found.sort();
        let listed: Vec<_> = SOURCES.iter().map(|(name, _)| *name).collect();
        assert_eq!(listed, found, "SOURCES names every file of a guest, sorted");
    }

    #[test]
    fn the_fingerprint_is_fnv_1a() {
        // Test vectors of the algorithm's authors.
        let basis = 0xcbf2_9ce4_8422_2325;
        assert_eq!(fnv1a(basis, b""), basis);
        assert_eq!(fnv1a(basis, b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fnv1a(basis, b"foobar"), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn any_change_changes_the_fingerprint() {
        let original = fingerprint(&[("a", b"x"), ("b", b"y")]);
        for changed in [
            fingerprint(&[("a", b"x"), ("b", b"z")]),
            fingerprint(&[("a", b"x"), ("c", b"y")]),
            fingerprint(&[("a", b"xb"), ("b", b"")]),
            fingerprint(&[("a", b"x")]),
        ] {
            assert_ne!(original, changed);
        }
    }

    #[test]
    fn the_marked_id_ends_in_a_zero_byte() {
        let expected = format!("chv-guest-build-id={BUILD_ID}\0");
        assert_eq!(MARKED_BUILD_ID, expected.as_bytes());
    }

    #[test]
    fn the_id_is_sixteen_hexadecimal_digits() {
        assert_eq!(BUILD_ID, format!("{:016x}", fingerprint(SOURCES)));
    }
}
