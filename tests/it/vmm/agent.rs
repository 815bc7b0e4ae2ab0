//! An agent in a process of its own, which a test kills.

use std::env;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use chv_sandbox::vmm::{Vmm, VmmConfig};

/// An agent process with one VMM. A test kills it with SIGKILL, as the kernel does when memory runs out; dropping this
/// kills it too.
pub(super) struct Agent {
    child: Child,
    /// The process id of its VMM.
    pub(super) vmm: u32,
    /// The run directory of its VMM.
    pub(super) run_dir: PathBuf,
}

impl Agent {
    /// Starts an agent and waits until its VMM is ready.
    pub(super) fn start(config: &VmmConfig) -> Agent {
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "vmm::agent::run", "--ignored", "--nocapture"])
            .env("AGENT_RUN_ROOT", &config.run_root)
            .env("AGENT_VMM", &config.binary)
            .env("AGENT_PROGRAMS", env::join_paths(&config.programs).unwrap())
            .envs(config.env.iter().cloned())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let ready = lines.find_map(|line| Some(line.ok()?.split_once("ready ")?.1.to_owned()));
        let Some(ready) = ready else {
            panic!("the agent didn't start: {:?}", child.wait());
        };
        let (vmm, run_dir) = ready.split_once(' ').unwrap();
        Agent {
            child,
            vmm: vmm.parse().unwrap(),
            run_dir: run_dir.into(),
        }
    }

    /// Kills the agent and waits until it has ended.
    pub(super) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.kill();
    }
}

#[test]
#[ignore = "plays an agent for other tests"]
fn run() {
    let (Some(run_root), Some(binary)) = (env::var_os("AGENT_RUN_ROOT"), env::var_os("AGENT_VMM"))
    else {
        println!("skipped: only of use to other tests");
        return;
    };
    let config = VmmConfig {
        binary: binary.into(),
        run_root: run_root.into(),
        env: env::vars_os()
            .filter(|(name, _)| name.to_string_lossy().starts_with("FAKE_VMM"))
            .collect(),
        programs: env::split_paths(&env::var_os("AGENT_PROGRAMS").unwrap_or_default())
            .filter(|program| !program.as_os_str().is_empty())
            .collect(),
        ..VmmConfig::default()
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let vmm = runtime.block_on(Vmm::spawn(&config)).unwrap();
    let pid = vmm.process().unwrap().pid();
    // Output of its VMM that an agent has not read is lost when the agent is killed, so the test waits for this line
    // first.
    let is_fake = env::var_os("FAKE_VMM").is_some() && env::var_os("FAKE_VMM_REAL").is_none();
    while is_fake && !vmm.log_tail().contains("serves") {
        std::thread::yield_now();
    }
    println!("ready {pid} {}", vmm.run_dir().unwrap().display());
    loop {
        std::thread::park();
    }
}

/// Whether a process runs. A zombie doesn't.
pub(super) fn runs(pid: u32) -> bool {
    let stat = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat"));
    stat.is_ok_and(|stat| !stat.rsplit(')').next().unwrap().starts_with(" Z"))
}
