//! `chv-sandbox compat`, run as a program.

mod bad_input;
mod check;
mod corrected;
mod diff;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Runs `chv-sandbox compat` with these arguments.
fn compat<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Output {
    command(arguments).output().unwrap()
}

fn command<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_chv-sandbox"));
    command.arg("compat").args(arguments);
    // The settings of the terminal that runs the tests must not matter.
    for variable in ["CLICOLOR_FORCE", "CLICOLOR", "NO_COLOR", "RUST_LOG"] {
        command.env_remove(variable);
    }
    command
}

/// The path of a release's contract.
fn contract(release: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("api-spec");
    folder.join(format!("{release}.json"))
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}
