//! SIGINT and SIGTERM: every long command ends with 130 or 143, and nothing of its work is left.

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;

use chv_sandbox::compat::probe::idle_kernel;
use chv_sandbox::replay::Cassette;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::{command, make_fifo};
use crate::real::processes_with_files_in;

/// What a signal comes to.
const ENDS: [(Signal, i32); 2] = [(Signal::INT, 130), (Signal::TERM, 143)];

/// A folder with an image, a folder for what the commands leave, and a program that says when it runs.
struct Place {
    folder: TempDir,
    /// The pipe to which the program writes. It lies elsewhere: children of other tests inherit it between fork and exec.
    runs: (TempDir, File),
}

impl Place {
    fn new() -> Place {
        let folder = TempDir::with_prefix("cli-").unwrap();
        let elsewhere = TempDir::with_prefix("cli-").unwrap();
        let fifo = elsewhere.path().join("runs");
        make_fifo(&fifo);
        // Opened for both, so that neither side waits for the other.
        let runs = File::options().read(true).write(true).open(&fifo).unwrap();
        let place = Place {
            folder,
            runs: (elsewhere, runs),
        };
        for directory in ["image", "tmp", "run", "bin"] {
            fs::create_dir(place.path(directory)).unwrap();
            fs::set_permissions(place.path(directory), Permissions::from_mode(0o700)).unwrap();
        }
        // It has a file in the folder open for as long as it lives, by which it is found.
        let script = format!(
            "#!/bin/sh\nexec 9<\"$0\"\necho runs > {:?}\nexec sleep 1000\n",
            fifo
        );
        for program in ["bin/mke2fs", "vmm"] {
            fs::write(place.path(program), &script).unwrap();
            fs::set_permissions(place.path(program), Permissions::from_mode(0o700)).unwrap();
        }
        idle_kernel::write(&place.path("vmlinux")).unwrap();
        let guest = [&idle_kernel::bytes()[..], b"chv-guest-build-id=0123abcd\0"].concat();
        fs::write(place.path("guest"), guest).unwrap();
        place.write_image();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// An image whose files have the sizes that its manifest says.
    fn write_image(&self) {
        let record = |size: usize| serde_json::json!({ "size": size, "sha256": format!("sha256:{}", "0".repeat(64)) });
        let mut manifest = serde_json::json!({
            "format": 1, "cmdline": "quiet", "guest_build_id": "0123abcd", "modules": [],
        });
        for (field, name) in [
            ("kernel", "kernel"),
            ("initramfs", "initramfs"),
            ("root", "root.img"),
            ("overlay", "overlay.img"),
        ] {
            fs::write(self.path("image").join(name), name).unwrap();
            manifest[field] = record(name.len());
        }
        fs::write(self.path("image/image.json"), manifest.to_string()).unwrap();
    }

    /// A command that leaves temporary files and run directories in this place, and says when signals are caught.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = command(arguments);
        command
            .current_dir(self.folder.path())
            .env("TMPDIR", self.path("tmp"))
            .env("XDG_RUNTIME_DIR", self.path("run"))
            .env(
                "PATH",
                format!("{}:/usr/bin:/bin", self.path("bin").display()),
            )
            .env("RUST_LOG", "chv_sandbox::cli=debug")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Waits until the program that the command has started says that it runs.
    #[track_caller]
    fn wait_until_it_runs(&self) {
        let limit = Timespec {
            tv_sec: 60,
            tv_nsec: 0,
        };
        let ready = poll(
            &mut [PollFd::new(&self.runs.1, PollFlags::IN)],
            Some(&limit),
        );
        assert_eq!(ready, Ok(1), "the program does not run");
        let mut said = [0; 5];
        (&self.runs.1).read_exact(&mut said).unwrap();
        assert_eq!(&said, b"runs\n");
    }

    /// What is there, apart from what [`new`](Place::new) has made and the root of the run directories.
    fn left(&self) -> Vec<String> {
        let own = ["bin", "guest", "image", "run", "tmp", "vmlinux", "vmm"];
        let mut left = names(self.folder.path());
        left.retain(|name| !own.contains(&name.as_str()));
        left.extend(names(&self.path("tmp")));
        for root in names(&self.path("run")) {
            left.extend(names(&self.path("run").join(root)));
        }
        left
    }

    /// The command ends with `status`, prints nothing, and leaves no file and no process.
    #[track_caller]
    fn check_ended(&self, child: Child, status: i32) {
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(status), "{said}");
        assert_eq!(self.left(), [""; 0], "{said}");
        let processes = processes_with_files_in(self.folder.path());
        assert!(processes.is_empty(), "{said}");
    }
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.collect()
}

fn signal(child: &Child, signal: Signal) {
    let pid = Pid::from_raw(child.id() as i32).unwrap();
    kill_process(pid, signal).unwrap();
}

/// Reads standard error until a line has `words` in it.
#[track_caller]
fn wait_for_line(stderr: &mut impl BufRead, words: &str) {
    let mut said = String::new();
    loop {
        let begin = said.len();
        let length = stderr.read_line(&mut said).unwrap();
        assert_ne!(length, 0, "no {words:?} in {said}");
        if said[begin..].contains(words) {
            return;
        }
    }
}

#[test]
fn a_command_whose_vmm_is_starting() {
    let commands: &[&[&str]] = &[
        &[
            "golden", "mint", "--vmm", "./vmm", "--image", "image", "--out", "golden",
        ],
        &["demo", "--vmm", "./vmm", "--image", "image"],
        &[
            "demo",
            "--vmm",
            "./vmm",
            "--image",
            "image",
            "--directory",
            "demo",
        ],
        &["compat", "probe", "--vmm", "./vmm"],
    ];
    let place = Place::new();
    for arguments in commands {
        for (number, status) in ENDS {
            // Twice with the same paths: nothing of the first is in the way of the second.
            let child = place.command(arguments).spawn().unwrap();
            place.wait_until_it_runs();
            signal(&child, number);
            place.check_ended(child, status);
        }
    }
}

#[test]
fn an_image_whose_disks_are_being_made() {
    let place = Place::new();
    let arguments = &[
        "image",
        "--kernel",
        "vmlinux",
        "--busybox",
        "vmlinux",
        "--guest",
        "guest",
        "--out",
        "packed",
    ];
    for (number, status) in ENDS {
        let child = place.command(arguments).spawn().unwrap();
        place.wait_until_it_runs();
        signal(&child, number);
        place.check_ended(child, status);
    }
}

/// A command that reads for a quarter of an hour, writes nothing, and ends as soon as a signal comes.
#[track_caller]
pub(crate) fn check_reader<A: AsRef<OsStr>>(arguments: &[A]) {
    for (number, status) in ENDS {
        let mut child = command(arguments)
            .env("RUST_LOG", "chv_sandbox::cli=debug")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        wait_for_line(&mut stderr, "SIGINT and SIGTERM are caught");
        signal(&child, number);
        let output = child.wait_with_output().unwrap();
        let mut said = String::new();
        stderr.read_to_string(&mut said).unwrap();
        assert_eq!(output.status.code(), Some(status), "{said}");
        assert!(output.stdout.is_empty());
        assert!(
            said.contains("interrupted") || said.contains("terminated"),
            "{said}"
        );
    }
}

/// Holes cost no disk space, and SHA-256 a quarter of an hour.
pub(crate) fn make_long(path: &Path) {
    let file = File::options()
        .create(true)
        .append(true)
        .open(path)
        .unwrap();
    file.set_len(1 << 40).unwrap();
}

#[test]
fn a_digest_that_takes_long() {
    let folder = tempfile::tempdir().unwrap();
    let disk = folder.path().join("disk");
    make_long(&disk);
    check_reader(&[OsStr::new("hash"), disk.as_os_str()]);
}

#[test]
fn the_demo_on_a_recording() {
    let place = Place::new();
    for (number, status) in ENDS {
        let mut child = place.command(&["demo"]).spawn().unwrap();
        // Its first lines come before anything is minted.
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        wait_for_line(&mut stdout, "chv-sandbox demo");
        signal(&child, number);
        place.check_ended(child, status);
    }
}

/// What a VMM answers to `vmm.ping`.
const PING: &str = r#"{"build_version":"v53.0.0","version":"53.0.0","features":[],"pid":4711}"#;

/// A VMM that answers `vmm.ping`, and nothing else, ever. Returns what it is asked for: the first line of each request.
fn serve(socket: &Path) -> mpsc::Receiver<String> {
    let listener = UnixListener::bind(socket).unwrap();
    let (asked, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let (mut connection, asked) = (connection.unwrap(), asked.clone());
            std::thread::spawn(move || {
                let lines = BufReader::new(connection.try_clone().unwrap()).lines();
                for line in lines.map_while(Result::ok) {
                    if line.ends_with(" HTTP/1.1") {
                        // The test may have ended.
                        let _ = asked.send(line.clone());
                    }
                    if line.contains("/vmm.ping ") {
                        let length = PING.len();
                        let answer =
                            format!("HTTP/1.1 200 \r\nContent-Length: {length}\r\n\r\n{PING}");
                        connection.write_all(answer.as_bytes()).unwrap();
                    }
                }
            });
        }
    });
    receiver
}

/// Starts `record`, and waits until it listens.
fn recording(place: &Place, out: &str) -> (Child, impl BufRead) {
    let arguments = [
        "record", "--socket", "vmm.sock", "--listen", "listen", "--out", out,
    ];
    let mut child = place.command(&arguments).spawn().unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    wait_for_line(&mut stderr, "recording v53.0 on listen");
    (child, stderr)
}

fn ping(place: &Place) {
    let asked = place
        .command(&["api", "--socket", "listen", "vmm.ping"])
        .output()
        .unwrap();
    assert_eq!(asked.status.code(), Some(0), "{asked:?}");
}

#[track_caller]
fn check_cassette(text: &str) {
    let cassette: Cassette = text.parse().unwrap();
    assert_eq!(cassette.exchanges.len(), 1);
}

#[test]
fn a_call_that_is_not_answered() {
    let place = Place::new();
    let asked = serve(&place.path("vmm.sock"));
    for (number, status) in ENDS {
        let arguments = ["api", "--socket", "vmm.sock", "vm.boot"];
        let child = place.command(&arguments).spawn().unwrap();
        assert!(asked.iter().any(|line| line.contains("/vm.boot ")));
        signal(&child, number);
        assert_eq!(
            child.wait_with_output().unwrap().status.code(),
            Some(status)
        );
    }
}

#[test]
fn a_recording_is_kept() {
    let place = Place::new();
    serve(&place.path("vmm.sock"));
    for (number, _) in ENDS {
        let (mut child, _stderr) = recording(&place, "cassette.json");
        ping(&place);
        signal(&child, number);
        assert_eq!(child.wait().unwrap().code(), Some(0));
        check_cassette(&fs::read_to_string(place.path("cassette.json")).unwrap());
        assert!(!place.path("listen").exists());
    }
}

#[test]
fn a_recording_that_cannot_be_written_at_the_end_is_kept_elsewhere() {
    let place = Place::new();
    serve(&place.path("vmm.sock"));
    let end_without_its_directory = || {
        fs::create_dir(place.path("gone")).unwrap();
        let (child, mut stderr) = recording(&place, "gone/cassette.json");
        ping(&place);
        fs::remove_dir(place.path("gone")).unwrap();
        signal(&child, Signal::INT);
        let output = child.wait_with_output().unwrap();
        let mut said = String::new();
        stderr.read_to_string(&mut said).unwrap();
        assert_eq!(output.status.code(), Some(2), "{said}");
        (String::from_utf8(output.stdout).unwrap(), said)
    };
    let (printed, said) = end_without_its_directory();
    assert_eq!(printed, "");
    let [kept] = &names(&place.path("tmp"))[..] else {
        panic!("{said}");
    };
    let kept = place.path("tmp").join(kept);
    assert!(said.contains(kept.to_str().unwrap()), "{said}");
    assert!(said.contains("gone/cassette.json"), "{said}");
    check_cassette(&fs::read_to_string(kept).unwrap());

    fs::remove_dir_all(place.path("tmp")).unwrap();
    let (printed, said) = end_without_its_directory();
    assert!(said.contains("on standard output"), "{said}");
    check_cassette(&printed);
}

#[test]
fn a_second_signal_ends_at_once() {
    let place = Place::new();
    let asked = serve(&place.path("vmm.sock"));
    for (number, status) in ENDS {
        let (mut child, mut stderr) = recording(&place, "cassette.json");
        // No answer comes, for which the end of the recording waits.
        let mut asking = place.command(&["api", "--socket", "listen", "vm.boot"]);
        let mut asking = asking.stderr(Stdio::null()).spawn().unwrap();
        assert!(asked.iter().any(|line| line.contains("/vm.boot ")));
        signal(&child, number);
        wait_for_line(&mut stderr, "waiting for the answer");
        signal(&child, number);
        assert_eq!(child.wait().unwrap().code(), Some(status));
        asking.wait().unwrap();
        fs::remove_file(place.path("listen")).unwrap();
    }
}
