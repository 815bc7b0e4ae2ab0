//! Reads the programs that go into an image (`chv-guest` and busybox), and checks that they are linked statically,
//! because an image has no dynamic loader.

use std::path::Path;

use super::{
    Error,
    elf::Elf,
    input::{self, MIB},
    kernel::find_all,
};
use crate::guest::BUILD_ID_MARKER;

/// The largest program that is accepted, in bytes.
const PROGRAM_LIMIT: u64 = 64 * MIB;
/// The longest build id that is accepted, in bytes.
pub(super) const BUILD_ID_LIMIT: usize = 128;

const BUILD_GUEST: &str = "build it static: cargo rustc --release --bin chv-guest -- -C target-feature=+crt-static, \
     and name it with --guest; or install both programs static: RUSTFLAGS='-C target-feature=+crt-static' cargo install \
     --path . --force --target x86_64-unknown-linux-gnu";
const GET_BUSYBOX: &str = "use a static one (Debian's package busybox-static has /bin/busybox)";

/// The guest's dispatcher, `chv-guest`, after the checks.
pub(super) struct Guest {
    pub(super) program: Vec<u8>,
    pub(super) build_id: String,
}

impl Guest {
    /// Reads `chv-guest` at `path`: static, for x86-64, and with a build id.
    pub(super) fn read(path: &Path) -> Result<Guest, Error> {
        let program = static_program(path, BUILD_GUEST)?;
        let build_id = build_id(&program).ok_or_else(|| Error::NoBuildId { path: path.into() })?;
        Ok(Guest { program, build_id })
    }
}

/// Reads a static busybox.
pub(super) fn busybox(path: &Path) -> Result<Vec<u8>, Error> {
    static_program(path, GET_BUSYBOX)
}

fn static_program(path: &Path, remedy: &'static str) -> Result<Vec<u8>, Error> {
    let program = input::read(path, PROGRAM_LIMIT)?;
    let elf = Elf::parse(&program, path)?;
    match elf.interpreter() {
        None => Ok(program),
        Some(loader) => Err(Error::NotStatic {
            path: path.into(),
            loader,
            remedy,
        }),
    }
}

/// The id between the marker and a NUL. A marker without an id is skipped: code that searches for the marker contains
/// it too.
fn build_id(program: &[u8]) -> Option<String> {
    let marker = BUILD_ID_MARKER.as_bytes();
    find_all(program, marker).find_map(|at| {
        let rest = &program[at + marker.len()..];
        let end = rest.iter().take(BUILD_ID_LIMIT + 1).position(|&b| b == 0)?;
        let id = std::str::from_utf8(&rest[..end]).ok()?;
        (!id.is_empty() && id.chars().all(|c| c.is_ascii_graphic())).then(|| id.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_build_id_lies_between_marker_and_nul() {
        let check = |after: &[u8], expected: Option<&str>| {
            let program = [b"..", BUILD_ID_MARKER.as_bytes(), after].concat();
            assert_eq!(build_id(&program).as_deref(), expected, "{after:?}");
        };
        check(b"0.1.0-abc\0rest", Some("0.1.0-abc"));
        check(b"\0", None);
        check(b"no end", None);
        check(b"a space\0", None);
        check(&[b'x'; BUILD_ID_LIMIT], None);
        let longest = "x".repeat(BUILD_ID_LIMIT);
        check(format!("{longest}\0").as_bytes(), Some(&longest));
        let later = format!("not this one\0{BUILD_ID_MARKER}this-one\0");
        check(later.as_bytes(), Some("this-one"));
        assert_eq!(build_id(b""), None);
    }
}
