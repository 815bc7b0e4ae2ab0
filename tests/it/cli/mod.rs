//! The commands of `chv-sandbox`, run as programs. This file has the checks that hold for every command.

mod compat;
mod demo;
mod doctor;
mod hash;
mod latency;
mod place;
mod record;
mod redteam;
mod refused;
mod run;
pub(crate) mod signals;
mod spec;
mod statuses;

use std::ffi::OsStr;
use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};

pub(crate) fn command<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_chv-sandbox"));
    command.args(arguments).env_remove("RUST_LOG");
    command
}

/// Runs a command. Returns its exit status, and the text that it wrote to standard output and to standard error.
pub(crate) fn run<A: AsRef<OsStr>>(
    arguments: impl IntoIterator<Item = A>,
) -> (Option<i32>, String, String) {
    let output = command(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

/// Runs a command that ends with `status` and prints something. Where its output can't be written, it ends with 2
/// (undecided); where the reader has closed the pipe, it ends with `status` all the same.
#[track_caller]
pub(crate) fn check_output<A: AsRef<OsStr> + std::fmt::Debug>(arguments: &[A], status: i32) {
    let (found, printed, said) = run(arguments);
    assert_eq!(found, Some(status), "{arguments:?}: {said}");
    assert_ne!(printed, "", "{arguments:?}");

    let full = File::options().write(true).open("/dev/full").unwrap();
    let output = command(arguments).stdout(full).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
    assert!(
        said.contains("error: cannot write to standard output\n"),
        "{arguments:?}: {said}"
    );

    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let closed = command(arguments)
        .stdout(writer)
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert_eq!(closed.code(), Some(status), "{arguments:?}");
}

fn make_fifo(path: &Path) {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
}
