//! Agents that are killed with SIGKILL at any moment: nothing of a killed agent runs on, and a start with the same
//! configuration works without cleaning by hand and touches no file that isn't the library's.
//!
//! The agent is this test binary again, whose test [`agent`] boots, runs tools, moves files, resets, mints and shuts
//! down until it is killed. The stand-ins of its VMMs belong to the test that kills it. `CHV_SANDBOX_KILLS` says how
//! many agents die.

use std::env;
use std::fs;
use std::io::{self, BufRead, BufReader};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use chv_sandbox::golden::mint;
use chv_sandbox::machine::VmmSource;
use chv_sandbox::sandbox::{ChvSandbox, Sandbox, SandboxConfig, TransferOptions};
use tokio::runtime::Runtime;
use tokio::time::timeout;

use super::hanging::Vmms;
use super::stage::Stage;
use super::{PATIENCE, Scene, assert_echoed, echo, invocation};

/// The number of agents that die, unless the variable sets another.
const KILLS: u64 = 20;

/// The longest time in milliseconds that an agent lives once it has begun: about as long as one round of its work.
const LONGEST: u64 = 600;

const VARIABLES: [&str; 4] = ["AGENT_STAGE", "AGENT_RUN_ROOT", "AGENT_SCENE", "AGENT_VMMS"];

/// The work of the agent, over and over.
async fn work(scene: &Path, config: SandboxConfig, source: VmmSource) {
    let sandbox = ChvSandbox::with_vmm(config, source.clone()).unwrap();
    fs::write(scene.join("local"), "to be pushed").unwrap();
    for round in 0.. {
        sandbox.boot().await.unwrap();
        for turn in 0..2 {
            echo(&sandbox, "while it lives").await.unwrap();
            let options = TransferOptions::default();
            let name = format!("in-{round}-{turn}-{}", std::process::id());
            let pushed = sandbox.push(&scene.join("local"), &name, &options).await;
            pushed.unwrap();
            let mut run = sandbox.start(invocation("streamed", "echo")).await.unwrap();
            run.wait().await.unwrap();
            assert!(sandbox.reset().await.unwrap().is_verified());
        }
        sandbox.shutdown().await;
    }
}

#[test]
#[ignore = "plays an agent for the other tests"]
#[expect(clippy::print_stdout, reason = "it says that it has begun")]
fn agent() {
    let [Some(stage), Some(run_root), Some(scene), Some(vmms)] = VARIABLES.map(env::var_os) else {
        println!("skipped: only of use to other tests");
        return;
    };
    let scene = PathBuf::from(scene);
    let source = source(Path::new(&stage), Path::new(&run_root));
    let runtime = Runtime::new().unwrap();
    println!("begins");
    if vmms == "mint" {
        runtime.block_on(async {
            loop {
                let mut config = Scene::mint_config_at(&scene, source.clone());
                config.into = scene.join("minted");
                mint(config).await.unwrap();
                fs::remove_dir_all(scene.join("minted")).unwrap();
            }
        });
    }
    let vmms = match vmms.to_str() {
        Some("in place") => Vmms::InPlace,
        Some("fresh") => Vmms::Fresh(0),
        _ => Vmms::Fresh(1),
    };
    let config = vmms.config_at(&scene);
    runtime.block_on(work(&scene, config, source));
}

fn source(stage: &Path, run_root: &Path) -> VmmSource {
    let executable = env::current_exe().unwrap();
    VmmSource::Spawn(Stage::config_at(stage, run_root, &executable))
}

/// A process that plays an agent.
struct Agent {
    process: Child,
    stdout: BufReader<ChildStdout>,
}

impl Agent {
    /// Kills it. A child that it had just cloned has the agent's standard output until it has closed the agent's other
    /// files, so the end of the output is waited for: a start before that could take the agent for a living one.
    fn end(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        io::copy(&mut self.stdout, &mut io::sink()).unwrap();
    }
}

/// Starts an agent, and waits until it has begun.
fn start(scene: &Scene, stage: &Stage, vmms: &str) -> Agent {
    let (socket, run_root) = stage.place();
    let mut agent = Command::new(env::current_exe().unwrap())
        .args([
            "--exact",
            "sandbox::agent_death::agent",
            "--ignored",
            "--nocapture",
        ])
        .envs(VARIABLES.into_iter().zip([
            socket.as_os_str(),
            run_root.as_os_str(),
            scene.directory.path().as_os_str(),
            vmms.as_ref(),
        ]))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut stdout = BufReader::new(agent.stdout.take().unwrap());
    let begins = (&mut stdout)
        .lines()
        .any(|line| line.is_ok_and(|line| line.contains("begins")));
    assert!(begins, "the agent does not begin: {:?}", agent.wait());
    Agent {
        process: agent,
        stdout,
    }
}

/// Entries of the run root whose names look like the library's, and which belong to others.
struct Foreign {
    names: Vec<PathBuf>,
    canary: PathBuf,
    _listener: UnixListener,
}

impl Foreign {
    fn place(run_root: &Path, beside: &Path) -> Foreign {
        fs::create_dir_all(run_root).unwrap();
        fs::set_permissions(
            run_root,
            std::os::unix::fs::PermissionsExt::from_mode(0o700),
        )
        .unwrap();
        let canary = beside.join("canary");
        fs::create_dir(&canary).unwrap();
        fs::write(canary.join("vmm.json"), "kept").unwrap();
        let link = run_root.join("vmm-0123456789abcdef");
        symlink(&canary, &link).unwrap();
        let socket = run_root.join("another.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        Foreign {
            names: vec![link, socket],
            canary,
            _listener: listener,
        }
    }

    fn assert_untouched(&self) {
        for name in &self.names {
            assert!(
                name.symlink_metadata().is_ok(),
                "{} is gone",
                name.display()
            );
        }
        let kept = fs::read_to_string(self.canary.join("vmm.json"));
        assert_eq!(kept.unwrap(), "kept");
    }
}

/// Agents die one after the other, each at a random moment of its work; the next one begins at once.
#[test]
fn at_any_moment() {
    let kills = env::var("CHV_SANDBOX_KILLS").map_or(KILLS, |kills| kills.parse().unwrap());
    let runtime = Runtime::new().unwrap();
    let places = Places {
        serving: Place::new(runtime.block_on(Scene::minted())),
        // A mint changes the state of its scene's guest.
        minting: Place::new(Scene::new()),
    };
    let mut random = fastrand::Rng::with_seed(17);
    let work = ["spare", "mint", "fresh", "in place"];
    for (kill, vmms) in (0..kills).zip(work.into_iter().cycle()) {
        let place = match vmms {
            "mint" => &places.minting,
            _ => &places.serving,
        };
        let mut agent = start(&place.scene, &place.stage, vmms);
        // The random moment is what the test tries, so there is no event to wait for.
        std::thread::sleep(Duration::from_millis(random.u64(..LONGEST)));
        assert!(
            agent.process.try_wait().unwrap().is_none(),
            "{kill}: it ended itself"
        );
        agent.end();
        match vmms {
            "mint" => runtime.block_on(place.mints_again()),
            _ => runtime.block_on(place.boots_again(kill)),
        }
        place.foreign.assert_untouched();
        place.assert_nothing_runs();
    }
}

struct Places {
    serving: Place,
    minting: Place,
}

/// A place in which agents work one after the other.
struct Place {
    scene: Scene,
    stage: Stage,
    foreign: Foreign,
}

impl Place {
    fn new(scene: Scene) -> Place {
        let stage = scene.stage();
        let foreign = Foreign::place(stage.place().1, scene.directory.path());
        Place {
            scene,
            stage,
            foreign,
        }
    }

    /// Checks that a sandbox of the same configuration boots, is reset and is shut down.
    async fn boots_again(&self, kill: u64) {
        let sandbox = self.stage.sandbox(Vmms::Fresh(1).config(&self.scene));
        sandbox.boot().await.unwrap();
        assert_echoed(echo(&sandbox, "again").await, "again");
        assert!(sandbox.reset().await.unwrap().is_verified(), "{kill}");
        timeout(PATIENCE, sandbox.shutdown()).await.unwrap();
    }

    /// Mints a golden snapshot where a killed agent left an unfinished one.
    async fn mints_again(&self) {
        let into = self.scene.path("minted");
        if into.join("manifest.json").exists() {
            fs::remove_dir_all(&into).unwrap();
        }
        let (socket, run_root) = self.stage.place();
        let source = source(socket, run_root);
        let mut config = Scene::mint_config_at(self.scene.directory.path(), source);
        config.into.clone_from(&into);
        mint(config).await.unwrap();
        fs::remove_dir_all(&into).unwrap();
    }

    /// Checks that no VMM of any agent runs, and that the run root has only the entries that it had before.
    fn assert_nothing_runs(&self) {
        let deadline = Instant::now() + PATIENCE;
        while let Some(vmm) = self.stage.running().first() {
            assert!(Instant::now() < deadline, "VMM {} is left", vmm.pid);
            std::thread::yield_now();
        }
        let left = fs::read_dir(self.stage.place().1).unwrap();
        let left = left.map(|entry| entry.unwrap().path());
        let left: Vec<_> = left
            .filter(|path| !self.foreign.names.contains(path))
            .collect();
        assert!(left.is_empty(), "{left:?} is left");
    }
}
