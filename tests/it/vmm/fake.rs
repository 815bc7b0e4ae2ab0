//! A stand-in for the VMM process: the script `fake-vmm`, which executes this test binary.

use std::env;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::thread;

use chv_sandbox::vmm::VmmConfig;

/// The bytes that the fake writes to its event monitor for each `vm.info`.
const EVENTS: &str = "{\n  \"timestamp\": {\"secs\": 1, \"no more of th\n\n\
    {\n  \"timestamp\": {\"secs\": 1, \"nanos\": 5},\n  \"source\": \"vm\",\n  \"event\": \"booted\",\n  \
    \"properties\": {\"id\": \"_disk0\"}\n}\n\n";

/// How many bytes a VMM with the word `flood` writes.
pub(super) const FLOOD: u64 = 6 * 1024 * 1024;

/// A configuration that starts a fake VMM, below `run_root`. The words say how it behaves:
///
/// - `die`: writes a line to standard error and exits with 1.
/// - `forge`: the same with what would act on a terminal and pass for lines of the agent's own.
/// - `silent`: takes connections, because the listener is ours, and never answers.
/// - `refuse-shutdown`, `hang-shutdown`: answers `vmm.shutdown` with 500, or not at all.
/// - `ignore-term`: ignores SIGTERM.
/// - `turncoat`: becomes another program when it is asked for `vm.boot`.
/// - `flood`: writes more to its standard error than any disk should take, before it answers anything.
/// - `survive`: outlives its parent.
pub(super) fn config(run_root: &Path, words: &str) -> VmmConfig {
    VmmConfig {
        binary: PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/it/vmm/fake-vmm"),
        env: vec![
            ("FAKE_VMM".into(), words.into()),
            (
                "FAKE_VMM_PLAYER".into(),
                env::current_exe().unwrap().into_os_string(),
            ),
        ],
        run_root: run_root.to_owned(),
        programs: programs(&env::current_exe().unwrap()),
        ..VmmConfig::default()
    }
}

/// The programs that the fake runs: those of its shell, and `player`.
pub(crate) fn programs(player: &Path) -> Vec<PathBuf> {
    let folder = player.parent().unwrap().to_owned();
    let programs = ["/bin".into(), "/usr/bin".into(), folder];
    programs
        .into_iter()
        .filter(|path: &PathBuf| path.exists())
        .collect()
}

/// The same configuration, where `survive` outlives its parent as the real VMM.
pub(super) fn surviving_real(run_root: &Path, real: &Path) -> VmmConfig {
    let mut config = config(run_root, "survive");
    config.env.push(("FAKE_VMM_REAL".into(), real.into()));
    config.programs.push(real.to_owned());
    config
}

#[test]
#[ignore = "plays a VMM for other tests"]
pub(super) fn serve() {
    let (Ok(words), Ok(args)) = (env::var("FAKE_VMM"), env::var("FAKE_VMM_ARGS")) else {
        println!("skipped: only of use to other tests");
        return;
    };
    let has = |word| words.split(' ').any(|found| found == word);
    let real = env::var_os("FAKE_VMM_REAL");
    if has("survive") {
        // The parent-death signal belongs to a thread, and the test harness never runs a test on the first thread of
        // the process: the program that is executed from here has no such signal, as a binary with file capabilities
        // has none.
        let mut next = match &real {
            Some(real) => Command::new(real),
            None => Command::new("/proc/self/exe"),
        };
        if real.is_some() {
            next.args(args.split(' '));
        } else {
            next.args(["--exact", "vmm::fake::serve", "--ignored", "--nocapture"]);
        }
        let error = next.env("FAKE_VMM", words.replace("survive", "")).exec();
        panic!("{error}");
    }
    if !has("ignore-term") {
        // The VMM handles SIGTERM too. The first process of a pid namespace gets no SIGTERM unless it handles the
        // signal.
        let always = Arc::new(AtomicBool::new(true));
        let term = signal_hook::consts::SIGTERM;
        signal_hook::flag::register_conditional_shutdown(term, 0, always).unwrap();
    }
    let descriptor = |option: &str| -> OwnedFd {
        let mut args = args.split(' ').skip_while(|arg| *arg != option);
        let number = args.nth(1).unwrap().strip_prefix("fd=").unwrap();
        // SAFETY: the parent passed this descriptor to this process for this use, and it is taken once.
        unsafe { OwnedFd::from_raw_fd(number.parse().unwrap()) }
    };
    let listener = UnixListener::from(descriptor("--api-socket"));
    let events = Arc::new(Mutex::new(File::from(descriptor("--event-monitor"))));
    if has("forge") {
        eprint!("\x1b[2J\x1b]0;title\x07gone\nERROR \u{202e}forged\n  because\r\n");
        std::process::exit(1);
    }
    if has("flood") {
        let line = "x".repeat(1023);
        for _ in 0..FLOOD / 1024 {
            eprintln!("{line}");
        }
        eprintln!("the flood ends");
    }
    eprintln!("the fake VMM serves");
    for connection in listener.incoming() {
        let (events, words) = (Arc::clone(&events), words.clone());
        thread::spawn(move || answer(connection.unwrap(), &events, &words));
    }
}

fn answer(mut connection: UnixStream, events: &Mutex<File>, words: &str) {
    let requests = BufReader::new(connection.try_clone().unwrap()).lines();
    for line in requests.map_while(Result::ok) {
        let Some(path) = line.strip_suffix(" HTTP/1.1") else {
            continue;
        };
        let (status, body) = match path {
            "GET /api/v1/vmm.ping" => {
                let pid = std::process::id();
                let ping = format!(
                    r#"{{"build_version":"v53.0","version":"53.0.0","pid":{pid},"features":[]}}"#
                );
                (200, ping)
            }
            "GET /api/v1/vm.info" => {
                events.lock().unwrap().write_all(EVENTS.as_bytes()).unwrap();
                (200, "{}".to_owned())
            }
            "PUT /api/v1/vm.boot" if words.contains("turncoat") => {
                let error = Command::new("sleep").arg("1000").exec();
                panic!("{error}");
            }
            "PUT /api/v1/vmm.shutdown" if words.contains("hang-shutdown") => continue,
            "PUT /api/v1/vmm.shutdown" if words.contains("refuse-shutdown") => {
                (500, "[\"no\"]".to_owned())
            }
            "PUT /api/v1/vmm.shutdown" => std::process::exit(0),
            _ => (404, String::new()),
        };
        write!(
            connection,
            "HTTP/1.1 {status} \r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
    }
}
