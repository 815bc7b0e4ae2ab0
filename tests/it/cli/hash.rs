//! `chv-sandbox hash`, run as a program.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};
use tempfile::TempDir;

const ABC: &str = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
const ABC_VERITY: &str =
    "fsverity-sha256:700b6bd8510f0b4f9bac8b9cf0459151a1c4a99f467892bb4bd289a67df8e19c";

fn command<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_chv-sandbox"));
    command.arg("hash").args(arguments).env_remove("RUST_LOG");
    command
}

/// The standard output of a command that succeeds and writes nothing to standard error.
fn stdout<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> String {
    let Output {
        status,
        stdout,
        stderr,
    } = command(arguments).output().unwrap();
    assert_eq!(String::from_utf8(stderr).unwrap(), "");
    assert_eq!(status.code(), Some(0));
    String::from_utf8(stdout).unwrap()
}

/// The error for a file that can't be digested, which is the same with and without `--json`.
fn refusal(file: &Path) -> String {
    let [plain, verity] = [&[][..], &["--fsverity", "--json"][..]].map(|options| {
        let Output {
            status,
            stdout,
            stderr,
        } = command(options).arg(file).output().unwrap();
        assert_eq!(String::from_utf8(stdout).unwrap(), "");
        assert_eq!(status.code(), Some(2));
        String::from_utf8(stderr).unwrap()
    });
    assert_eq!(plain, verity);
    assert!(plain.starts_with("error: "), "{plain}");
    assert!(plain.contains(file.to_str().unwrap()), "{plain}");
    plain
}

fn file_of(bytes: impl AsRef<[u8]>) -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("disk");
    fs::write(&path, bytes).unwrap();
    (directory, path)
}

#[test]
fn it_prints_the_digest_and_nothing_else() {
    let (directory, path) = file_of("abc");
    let verity = OsStr::new("--fsverity");
    assert_eq!(stdout([&path]), format!("{ABC}\n"));
    assert_eq!(
        stdout([verity, path.as_os_str()]),
        format!("{ABC_VERITY}\n")
    );
    let link = directory.path().join("link");
    symlink(&path, &link).unwrap();
    assert_eq!(stdout([&link]), format!("{ABC}\n"));
}

#[test]
fn an_empty_file_has_a_digest() {
    let (_directory, path) = file_of("");
    let sha256 = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    assert_eq!(stdout([&path]), format!("{sha256}\n"));
    let verity = "fsverity-sha256:3d248ca542a24fc62d1c43b916eae5016878e2533c88238480b26128a1f1af95";
    let arguments = [OsStr::new("--fsverity"), path.as_os_str()];
    assert_eq!(stdout(arguments), format!("{verity}\n"));
}

#[test]
fn the_json_output_has_every_field() {
    let (_directory, path) = file_of("abc");
    for (options, digest) in [
        (&["--json"][..], ABC),
        (&["--json", "--fsverity"][..], ABC_VERITY),
    ] {
        let arguments = options.iter().map(OsStr::new).chain([path.as_os_str()]);
        let mut told: Value = serde_json::from_str(&stdout(arguments)).unwrap();
        // The access depends on the filesystem, and the time on the machine.
        assert!(told["elapsed_us"].take().is_u64());
        let access = told["access"].take();
        assert!(["mapped", "read"].contains(&access.as_str().unwrap()));
        let [mapped, read] = ["mapped", "read"].map(|way| if access == way { 3 } else { 0 });
        let metadata = path.metadata().unwrap();
        let expected = json!({
            "digest": digest,
            "length": 3,
            "identity": { "device": metadata.dev(), "inode": metadata.ino() },
            "access": null,
            "work": { "hashed": 3, "mapped": mapped, "read": read, "skipped": 0 },
            "elapsed_us": null,
        });
        assert_eq!(told, expected);
    }
}

#[test]
fn things_that_are_no_regular_file_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("missing");
    assert!(refusal(&missing).contains("No such file"));
    let dangling = directory.path().join("dangling");
    symlink(&missing, &dangling).unwrap();
    assert!(refusal(&dangling).contains("No such file"));

    let not_regular = |path: &Path| {
        let said = refusal(path);
        assert!(said.contains("not a regular file"), "{said}");
    };
    not_regular(directory.path());
    not_regular(Path::new("/dev/null"));
    // No process will ever write to this FIFO, so the command must not wait for one.
    let fifo = directory.path().join("fifo");
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    not_regular(&fifo);
}

#[test]
fn an_unreadable_file_has_no_digest() {
    // The first byte of the address space, where no process has memory.
    assert!(refusal(Path::new("/proc/self/mem")).contains("error: could not read"));

    let (_directory, path) = file_of("abc");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
    // Root may read the file in spite of its mode.
    if File::open(&path).is_err() {
        assert!(refusal(&path).contains("Permission denied"));
    }
}

#[test]
fn the_arguments_are_one_file() {
    for arguments in [&[][..], &["one", "two"][..], &["--md5", "one"][..]] {
        let output = command(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(64));
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn a_pipe_gets_no_progress_bar() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("disk");
    // The digest takes longer than the delay after which a progress bar appears.
    File::create(&path).unwrap().set_len(2 << 30).unwrap();
    let zeros = "sha256:a7c744c13cc101ed66c29f672f92455547889cc586ce6d44fe76ae824958ea51";
    assert_eq!(stdout([&path]), format!("{zeros}\n"));
}

#[test]
fn a_closed_standard_error_does_not_change_the_exit_status() {
    let (_directory, path) = file_of("abc");
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let missing = path.with_extension("missing");
    let status = command([&missing]).stderr(writer).status().unwrap();
    assert_eq!(status.code(), Some(2));
}
