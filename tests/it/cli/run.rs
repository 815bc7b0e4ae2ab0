//! `chv-sandbox run`, on VMMs that are scripted processes.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use chv_sandbox::guest::dispatcher::Toolbox;
use chv_sandbox::guest::stand_in::StandIn;
use rustix::process::Signal;

use crate::cli::{self, place, signals};
use crate::golden::manifest::keys;
use crate::sandbox::stage::Stage;
use crate::sandbox::{PATIENCE, Scene};

/// A golden snapshot, scripted VMMs, and the configuration file that names both.
struct Place {
    scene: Scene,
    stage: Stage,
}

impl Place {
    async fn new() -> Place {
        let leaking = Arc::default();
        let scene = Scene::of(tools(&leaking));
        *leaking.lock().unwrap() = Some(scene.guest.clone());
        scene.mint().await.unwrap();
        let stage = scene.stage();
        let place = Place { scene, stage };
        fs::write(place.path("sandbox.toml"), place.configuration()).unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scene.path(name)
    }

    fn configuration(&self) -> String {
        let vmm = self.stage.config();
        let quoted = |path: &std::path::Path| format!("{:?}", path.display().to_string());
        let env = vmm.env.iter().map(|(name, value)| {
            format!("{} = {:?}\n", name.display(), value.display().to_string())
        });
        let programs: Vec<_> = vmm.programs.iter().map(|path| quoted(path)).collect();
        format!(
            "vmm = {}\nvmm_programs = [{}]\nrun_root = {}\nconfinement = {{ without = [\"rlimits\"] }}\n\
             [vmm_env]\n{}[golden]\ndirectory = {}\nevidence_dir = {}\n[limits]\nboot = \"60s\"\nsettle = \"60s\"\n",
            quoted(&vmm.binary),
            programs.join(", "),
            quoted(&vmm.run_root),
            env.collect::<String>(),
            quoted(&self.path("golden")),
            quoted(&self.path("evidence")),
        )
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let config = self.path("sandbox.toml");
        let mut command = cli::command(["run", "--config", config.to_str().unwrap()]);
        command
            .args(arguments)
            .current_dir(self.scene.directory.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Runs a tool that reads `stdin`.
    fn run(&self, stdin: &[u8], arguments: &[&str]) -> Output {
        let mut child = self.command(arguments).spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        // A tool that takes no standard input leaves the bytes unread.
        let _ = input.write_all(stdin);
        drop(input);
        let output = child.wait_with_output().unwrap();
        self.stage.assert_empty();
        output
    }
}

/// The guest's tools. One of them makes the guest report too many descriptors from then on.
fn tools(leaking: &Arc<Mutex<Option<StandIn>>>) -> Toolbox {
    let leaking = Arc::clone(leaking);
    Toolbox::built_in()
        .with_function("upper", |run| {
            let mut text = Vec::new();
            run.stdin.read_to_end(&mut text).unwrap();
            text.make_ascii_uppercase();
            run.stdout.write_all(&text).unwrap();
            write!(run.stderr, "{} bytes", text.len()).unwrap();
            3
        })
        .with_function("wait", |run| {
            writeln!(run.stdout, "waiting").unwrap();
            let deadline = Instant::now() + PATIENCE * 10;
            while !run.is_cancelled() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(5));
            }
            0
        })
        .with_function("leak", move |_| {
            let guest = leaking.lock().unwrap().take();
            guest.unwrap().set_open_files(99);
            0
        })
}

#[track_caller]
fn check(output: &Output, status: i32, said: &str) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(status), "{stderr}");
    assert!(stderr.contains(said), "{stderr}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_has_the_streams_of_the_command() {
    let place = Place::new().await;
    let text = [&b"quiet \x1b[2J \xff\n"[..], &[b'x'; 300_000]].concat();
    let output = place.run(&text, &["--", "upper"]);
    // Standard output is a pipe, not a terminal.
    assert_eq!(output.stdout, text.to_ascii_uppercase());
    check(&output, 3, &format!("{} bytes", text.len()));

    let output = place.run(b"", &["--", "echo", "--param", "message=a b"]);
    assert_eq!(output.stdout, b"a b\n");
    check(&output, 0, "");

    // The image gives this tool no standard input; the tool still runs.
    let output = place.run(b"unread", &["--", "whoami"]);
    assert!(output.status.success() && !output.stdout.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_other_than_the_tools_own_exit_code_are_125() {
    let place = Place::new().await;
    check(
        &place.run(b"", &["--", "nonesuch"]),
        125,
        "the guest has no such tool",
    );
    check(
        &place.run(b"", &["--deadline", "100ms", "--", "wait"]),
        125,
        "killed at its deadline",
    );
    check(
        &place.run(b"", &["--push", "nowhere:/in", "--", "whoami"]),
        125,
        "nowhere",
    );
    let output = place.run(b"", &["--", "leak"]);
    check(&output, 125, "open descriptors: found");
    assert!(place.path("evidence").is_dir(), "the evidence is kept");
}

/// A golden snapshot that isn't signed, and a public key.
async fn unsigned() -> (Scene, [String; 2]) {
    let scene = Scene::minted().await;
    let (_, key) = keys(&scene, 7);
    fs::write(scene.path("key"), key.as_bytes()).unwrap();
    let paths = ["golden", "key"].map(|name| scene.path(name).display().to_string());
    (scene, paths)
}

#[tokio::test]
async fn a_golden_snapshot_without_the_required_signature_is_refused() {
    let (_scene, [golden, key]) = unsigned().await;
    for command in ["run", "redteam"] {
        let mut arguments = vec![command, "--golden", &golden, "--public-key", &key];
        if command == "run" {
            arguments.extend(["--", "echo"]);
        }
        let (status, printed, said) = cli::run(arguments);
        assert_ne!(status, Some(0), "{command}");
        let output = printed + &said;
        assert!(output.contains("is not signed"), "{command}: {output}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_go_in_before_the_tool_and_come_out_after_it() {
    let place = Place::new().await;
    fs::create_dir(place.path("tree")).unwrap();
    fs::write(place.path("tree/a"), "content").unwrap();
    let files = place.path("work").canonicalize().unwrap().join("in");
    let (push, pull) = (
        format!("tree:{}", files.display()),
        format!("{}:back", files.display()),
    );
    let output = place.run(b"", &["--push", &push, "--pull", &pull, "--", "whoami"]);
    check(&output, 0, "");
    assert_eq!(fs::read_to_string(place.path("back/a")).unwrap(), "content");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_cancels_the_tool_and_leaves_nothing() {
    let stage = Place::new().await;
    for (number, status) in signals::ENDS {
        let mut child: Child = stage.command(&["--", "wait"]).spawn().unwrap();
        let mut said = String::new();
        let stdout = child.stdout.take().unwrap();
        BufReader::new(stdout).read_line(&mut said).unwrap();
        assert_eq!(said, "waiting\n");
        place::signal(&child, number);
        let output = child.wait_with_output().unwrap();
        let expected = if number == Signal::INT {
            "interrupted"
        } else {
            "terminated"
        };
        check(&output, status, expected);
        stage.stage.assert_empty();
    }
}

#[test]
fn a_line_that_cannot_be_used_is_64() {
    for arguments in [
        &["run", "--golden", "g"][..],
        &["run", "--", "echo"],
        &["run", "--golden", "g", "--config", "c", "--", "echo"],
        &["run", "--golden", "g", "--", "echo", "--param", "message"],
        &["run", "--golden", "g", "--push", "a", "--", "echo"],
        &["run", "--golden", "g", "--pull", "a:", "--", "echo"],
        &["run", "--golden", "g", "--deadline", "soon", "--", "echo"],
        &["run", "--golden", "g", "--env", "x", "--", "echo"],
        &["run", "--config", "c", "--public-key", "k", "--", "echo"],
    ] {
        assert_eq!(cli::run(arguments).0, Some(64), "{arguments:?}");
    }
    let (_, _, said) = cli::run(["run", "--", "echo"]);
    assert!(said.contains("<--golden <DIR>|--config <FILE>>"), "{said}");
    let (_, _, said) = cli::run(["run", "--golden", "g", "--deadline", "5", "--", "echo"]);
    assert!(said.contains("a number and a unit, such as 5s"), "{said}");
    let (status, _, said) = cli::run(["run", "--golden", "nowhere", "--", "echo"]);
    assert_eq!(status, Some(125));
    // The log doesn't repeat the error.
    assert!(
        said.starts_with("error: ") && !said.contains("ERROR"),
        "{said}"
    );
}
