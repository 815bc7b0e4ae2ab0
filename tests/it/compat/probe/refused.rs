//! Binaries that are not Cloud Hypervisor: the probe ends with 2 in time, says why, and leaves nothing.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::real::processes_with_files_in;

/// A limit that none of these binaries reaches.
const LONG: Duration = Duration::from_secs(60);

/// A directory with a program, and a directory for the probe.
struct Place {
    folder: TempDir,
}

impl Place {
    fn new(script: &str) -> Place {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("d")).unwrap();
        let program = folder.path().join("program");
        fs::write(&program, script).unwrap();
        fs::set_permissions(&program, Permissions::from_mode(0o700)).unwrap();
        Place { folder }
    }

    fn program(&self) -> PathBuf {
        self.folder.path().join("program")
    }

    fn directory(&self) -> PathBuf {
        self.folder.path().join("d")
    }

    fn probe(&self, binary: &Path, patience: u32) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_chv-sandbox"));
        command
            .args(["compat", "probe", "--vmm"])
            .arg(binary)
            .arg("--directory")
            .arg(self.directory())
            .args(["--patience", &patience.to_string()])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Checks that the directory is empty, and that no process has a file open in it. A process that was killed may
    /// take a moment to end.
    fn assert_nothing_left(&self) {
        let left: Vec<_> = fs::read_dir(self.directory()).unwrap().collect();
        assert!(left.is_empty(), "{left:?}");
        let deadline = Instant::now() + LONG;
        loop {
            let processes = processes_with_files_in(&self.directory());
            if processes.is_empty() {
                return;
            }
            assert!(Instant::now() < deadline, "{processes:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Checks that the probe of `binary` ends with 2 and says each of `expected`.
#[track_caller]
fn check(place: &Place, binary: &Path, expected: &[&str]) {
    let start = Instant::now();
    let Output {
        status,
        stdout,
        stderr,
    } = place.probe(binary, 2).output().unwrap();
    let said = String::from_utf8_lossy(&stderr);
    assert_eq!(status.code(), Some(2), "{said}");
    assert!(stdout.is_empty(), "{}", String::from_utf8_lossy(&stdout));
    for words in expected {
        assert!(said.contains(words), "no {words:?} in {said}");
    }
    assert!(start.elapsed() < LONG, "{:?}", start.elapsed());
    place.assert_nothing_left();
}

#[test]
fn a_binary_that_is_no_vmm_is_refused() {
    let place = Place::new("");
    check(
        &place,
        &place.folder.path().join("missing"),
        &["there is no VMM binary", "missing"],
    );
    check(&place, &place.directory(), &["can't be executed"]);
    // Two programs that every system has.
    check(
        &place,
        Path::new("true"),
        &["true can't be probed", "died at its start"],
    );
    check(
        &place,
        Path::new("sleep"),
        &["sleep can't be probed", "died at its start"],
    );
    let unknown = Place::new("\x7fELF and no more");
    check(&unknown, &unknown.program(), &["can't be probed"]);
}

#[test]
fn a_program_that_never_answers_is_refused() {
    let silent = Place::new("#!/bin/sh\nsleep 1000\n");
    check(
        &silent,
        &silent.program(),
        &["didn't answer vmm.ping", "within 1s"],
    );
}

#[test]
fn a_program_that_writes_without_end_is_stopped() {
    let loud =
        Place::new("#!/bin/sh\nwhile :; do echo 0123456789012345678901234567890123456789; done\n");
    let flood = "#!/bin/sh\nexec head -c 100000000 /dev/zero\n";
    let short = Place::new(flood);
    check(&loud, &loud.program(), &[]);
    check(&short, &short.program(), &[]);
}
