//! A folder in which commands are started that a signal will end, with their inputs: an image, programs that only
//! report that they run, and a VMM that answers almost nothing.

use std::fs::{self, File, Permissions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use chv_sandbox::compat::probe::idle_kernel;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::{command, make_fifo};
use crate::real::processes_with_files_in;

/// A folder with an image, a folder for the commands' output, and a program that reports that it runs.
pub(super) struct Place {
    folder: TempDir,
    /// The pipe to which the program writes. It lies outside the folder: children of other tests inherit its
    /// descriptors between fork and exec.
    runs: (TempDir, File),
}

impl Place {
    pub(super) fn new() -> Place {
        let folder = TempDir::with_prefix("cli-").unwrap();
        let elsewhere = TempDir::with_prefix("cli-").unwrap();
        let fifo = elsewhere.path().join("runs");
        make_fifo(&fifo);
        // Opened for reading and writing, so that neither side waits for the other.
        let runs = File::options().read(true).write(true).open(&fifo).unwrap();
        let place = Place {
            folder,
            runs: (elsewhere, runs),
        };
        for directory in ["image", "tmp", "run", "bin"] {
            fs::create_dir(place.path(directory)).unwrap();
            fs::set_permissions(place.path(directory), Permissions::from_mode(0o700)).unwrap();
        }
        // The program keeps a file in the folder open for as long as it lives; the test finds the process by that file.
        let says_so = format!("echo runs > {fifo:?}");
        // The VMM's confinement does not let it write to the pipe.
        for (program, says_so) in [("bin/mke2fs", says_so.as_str()), ("vmm", "")] {
            let script = format!("#!/bin/sh\nexec 9<\"$0\"\n{says_so}\nexec sleep 1000\n");
            fs::write(place.path(program), script).unwrap();
            fs::set_permissions(place.path(program), Permissions::from_mode(0o700)).unwrap();
        }
        idle_kernel::write(&place.path("vmlinux")).unwrap();
        let guest = [&idle_kernel::bytes()[..], b"chv-guest-build-id=0123abcd\0"].concat();
        fs::write(place.path("guest"), guest).unwrap();
        place.write_image();
        place
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// An image whose files have the sizes that its manifest says.
    pub(super) fn write_image(&self) {
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

    /// A command that puts its temporary files and run directories in this place, and logs when it begins to catch
    /// signals.
    pub(super) fn command(&self, arguments: &[&str]) -> Command {
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

    /// Waits until the program that the command has started reports that it runs.
    #[track_caller]
    pub(super) fn wait_until_it_runs(&self) {
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

    /// Waits until the VMM that the command has started runs.
    #[track_caller]
    pub(super) fn wait_until_the_vmm_runs(&self) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while processes_with_files_in(&self.path("vmm")).is_empty() {
            assert!(Instant::now() < deadline, "the VMM does not run");
            std::thread::yield_now();
        }
    }

    /// The names in the folder, apart from those that [`new`](Place::new) made and the root of the run directories.
    pub(super) fn left(&self) -> Vec<String> {
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
    pub(super) fn check_ended(&self, child: Child, status: i32) {
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(status), "{said}");
        // This comes first: while the folder is listed, a child that another test forks has it open until it executes
        // something.
        let processes = processes_with_files_in(self.folder.path());
        assert!(processes.is_empty(), "{said}");
        assert_eq!(self.left(), [""; 0], "{said}");
    }
}

pub(super) fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.collect()
}

pub(crate) fn signal(child: &Child, signal: Signal) {
    let pid = Pid::from_raw(child.id() as i32).unwrap();
    kill_process(pid, signal).unwrap();
}

/// Reads standard error until a line has `words` in it.
#[track_caller]
pub(crate) fn wait_for_line(stderr: &mut impl BufRead, words: &str) {
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

/// What a VMM answers to `vmm.ping`.
pub(super) const PING: &str =
    r#"{"build_version":"v53.0.0","version":"53.0.0","features":[],"pid":4711}"#;

/// A VMM that answers `vmm.ping` and nothing else. Returns the first line of each request that it receives.
pub(super) fn serve(socket: &Path) -> mpsc::Receiver<String> {
    let listener = UnixListener::bind(socket).unwrap();
    let (asked, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let (mut connection, asked) = (connection.unwrap(), asked.clone());
            std::thread::spawn(move || {
                let lines = BufReader::new(connection.try_clone().unwrap()).lines();
                for line in lines.map_while(Result::ok) {
                    if line.ends_with(" HTTP/1.1") {
                        // The send fails once the test has ended.
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
