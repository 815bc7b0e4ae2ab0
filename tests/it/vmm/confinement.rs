//! A VMM that its guest has taken over, inside its confinement: what it tries, which layer stops it, and that it
//! succeeds where that layer is left out.

mod compromised;

use std::fs::{self, Permissions};
use std::io::Read;
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::{env, process};

use chv_sandbox::vmm::{CgroupConfig, Confinement, Grants, Layer, LayerState, Vmm, VmmConfig};
use rustix::io::FdFlags;
use rustix::process::{Resource, getrlimit};
use tempfile::{TempDir, tempdir};

use super::{fake, has_logged};
use crate::real::skipped;
use compromised::{TRIED, TRY};

/// The configuration of a stand-in for a compromised VMM, and the files that it was granted.
struct CompromisedVmm {
    folder: TempDir,
    config: VmmConfig,
    grants: Grants,
}

impl CompromisedVmm {
    fn new(what: &str, without: &[Layer]) -> CompromisedVmm {
        let folder = tempdir().unwrap();
        let script = folder.path().join("compromised");
        fs::write(&script, include_str!("fake-vmm")).unwrap();
        fs::set_permissions(&script, Permissions::from_mode(0o700)).unwrap();
        let mut config = fake::config(&folder.path().join("run"), "");
        config.binary = script;
        config.env.push((
            "FAKE_VMM_TEST".into(),
            "vmm::confinement::compromised::play".into(),
        ));
        config.env.push((TRY.into(), what.into()));
        config.confinement = Confinement {
            without: without.to_vec(),
            ..Confinement::default()
        };
        CompromisedVmm {
            folder,
            config,
            grants: Grants::default(),
        }
    }

    async fn spawn(&mut self) -> Vmm {
        let grants = std::mem::take(&mut self.grants);
        let vmm = Vmm::spawn_with(&self.config, grants).await.unwrap();
        has_logged(&vmm, TRIED).await;
        vmm
    }
}

fn outcome(vmm: &Vmm) -> String {
    let log = vmm.log_tail();
    let tried = log.split_once(TRIED).unwrap().1;
    tried.split_once('.').unwrap().0.to_owned()
}

/// Why a layer is not in force. `None` if it is.
fn is_missing(vmm: &Vmm, layer: Layer) -> Option<String> {
    let report = vmm.layers().iter().find(|report| report.layer == layer);
    match &report.unwrap().state {
        LayerState::InForce { .. } => None,
        state => Some(format!("{state:?}")),
    }
}

/// Checks that each of these layers alone stops the attempt `what`, and that it succeeds where all of them are left
/// out.
async fn check(what: &str, layers: &[Layer]) {
    check_with(what, layers, |_| {}).await;
}

async fn check_with(what: &str, layers: &[Layer], prepare: impl Fn(&mut CompromisedVmm)) {
    for &alone in layers {
        let others: Vec<_> = layers
            .iter()
            .copied()
            .filter(|&layer| layer != alone)
            .collect();
        let mut compromised = CompromisedVmm::new(what, &others);
        prepare(&mut compromised);
        let vmm = compromised.spawn().await;
        match is_missing(&vmm, alone) {
            None => assert!(
                outcome(&vmm).starts_with("refused"),
                "{what}, {alone}: {}",
                outcome(&vmm)
            ),
            Some(why) => skipped(format!("{what}: {alone} is {why} here")),
        }
        vmm.shutdown().await;
    }
    let mut compromised = CompromisedVmm::new(what, layers);
    prepare(&mut compromised);
    let vmm = compromised.spawn().await;
    assert_eq!(outcome(&vmm), "done", "{what}, without {layers:?}");
    vmm.shutdown().await;
}

/// Whether the kernel's Landlock has at least this version.
fn landlock_has(version: u32) -> bool {
    let layers = chv_sandbox::vmm::available(&CgroupConfig::default()).unwrap();
    layers.iter().any(|report| {
        let LayerState::InForce { detail } = &report.state else {
            return false;
        };
        let abi = detail
            .split_once("ABI ")
            .map(|(_, abi)| abi.parse::<u32>().unwrap());
        abi.is_some_and(|abi| abi >= version)
    })
}

#[tokio::test]
async fn it_cannot_read_the_agents_environment() {
    // A variable of this process, such as one of Cargo's, that is neither passed on nor set by the compromised VMM's shell.
    let passed = [
        "PATH", "LANG", "LC_ALL", "TZ", "SHLVL", "PWD", "OLDPWD", "_",
    ];
    let mut names = env::vars().map(|(name, _)| name);
    let name = names.find(|name| !passed.contains(&name.as_str()) && !name.contains("VMM"));
    let Some(name) = name else {
        return skipped("this process has no environment to keep secret");
    };
    check(&format!("environment {name}"), &[Layer::Environment]).await;
}

#[tokio::test]
async fn it_cannot_use_a_descriptor_that_the_agent_has_open() {
    let planted = tempfile::tempfile().unwrap();
    // A number above those of the descriptors that the compromised VMM's shell opens for itself.
    let planted = rustix::io::fcntl_dupfd_cloexec(&planted, 100).unwrap();
    rustix::io::fcntl_setfd(&planted, FdFlags::empty()).unwrap();
    let what = format!("descriptor {}", planted.as_raw_fd());
    check(&what, &[Layer::Descriptors]).await;
}

#[tokio::test]
async fn it_cannot_open_files_that_are_not_its_own() {
    let folder = tempdir().unwrap();
    let canary = folder.path().join("canary");
    fs::write(&canary, "precious").unwrap();
    check(&format!("read {}", canary.display()), &[Layer::Landlock]).await;
    check(&format!("write {}", canary.display()), &[Layer::Landlock]).await;
    check("folder", &[Layer::Landlock]).await;
}

#[tokio::test]
async fn it_reads_what_it_was_granted_and_does_not_write_it() {
    let folder = tempdir().unwrap();
    let canary = folder.path().join("canary");
    fs::write(&canary, "granted").unwrap();
    let grant = |compromised: &mut CompromisedVmm| compromised.grants.reads.push(canary.clone());
    let mut compromised = CompromisedVmm::new(&format!("read {}", canary.display()), &[]);
    grant(&mut compromised);
    let vmm = compromised.spawn().await;
    assert_eq!(outcome(&vmm), "done");
    vmm.shutdown().await;
    check_with(
        &format!("write {}", canary.display()),
        &[Layer::Landlock],
        grant,
    )
    .await;
}

/// The files that the agent keeps beside the folder that the VMM may write to.
#[tokio::test]
async fn it_cannot_change_what_the_next_start_believes() {
    for name in ["lock", "vmm.json", "vmm.stat", "vmm.log"] {
        let mut compromised = CompromisedVmm::new("environment PATH", &[]);
        let vmm = compromised.spawn().await;
        if let Some(why) = is_missing(&vmm, Layer::Landlock) {
            return skipped(format!("landlock is {why} here"));
        }
        // A sibling tries this; it has the same rights.
        let record = vmm.run_dir().unwrap().join(name);
        check(&format!("write {}", record.display()), &[Layer::Landlock]).await;
        vmm.shutdown().await;
    }
}

#[tokio::test]
async fn it_cannot_signal_the_agent() {
    let what = format!("signal {}", process::id());
    match landlock_has(6) {
        true => check(&what, &[Layer::Namespaces, Layer::Landlock]).await,
        false => {
            skipped("signals are in no Landlock domain here");
            check(&what, &[Layer::Namespaces]).await;
        }
    }
}

#[tokio::test]
async fn it_cannot_look_into_the_agent_or_a_sibling() {
    let mut compromised = CompromisedVmm::new("environment PATH", &[]);
    let sibling = compromised.spawn().await;
    // Even if root keeps its capabilities, each of these two layers stops it.
    let keeps_capabilities = |compromised: &mut CompromisedVmm| {
        compromised
            .config
            .confinement
            .without
            .push(Layer::Capabilities);
    };
    let what = format!("memory {}", process::id());
    let layers = [Layer::Landlock, Layer::Namespaces];
    check_with(&what, &layers, keeps_capabilities).await;
    let what = format!("memory {}", sibling.process().unwrap().pid());
    let vmm = CompromisedVmm::new(&what, &[]).spawn().await;
    assert!(outcome(&vmm).starts_with("refused"), "{}", outcome(&vmm));
    vmm.shutdown().await;
    sibling.shutdown().await;
}

#[tokio::test]
async fn it_cannot_reach_a_siblings_socket() {
    for keep_socket_names in [false, true] {
        let mut compromised = CompromisedVmm::new("environment PATH", &[]);
        compromised.config.keep_socket_names = keep_socket_names;
        let sibling = compromised.spawn().await;
        let what = format!("connect {}", sibling.client().socket().display());
        let vmm = CompromisedVmm::new(&what, &[]).spawn().await;
        // No layer restricts connecting to a socket by its name. The sibling is safe because its socket has no name.
        assert_eq!(
            outcome(&vmm) == "done",
            keep_socket_names,
            "{}",
            outcome(&vmm)
        );
        vmm.shutdown().await;
        sibling.shutdown().await;
    }
}

#[tokio::test]
async fn it_cannot_open_tcp_connections() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let what = format!("tcp {}", listener.local_addr().unwrap().port());
    match landlock_has(4) {
        true => check(&what, &[Layer::Namespaces, Layer::Landlock]).await,
        false => {
            skipped("TCP is in no Landlock domain here");
            check(&what, &[Layer::Namespaces]).await;
        }
    }
}

#[tokio::test]
async fn it_has_no_capability_of_root() {
    match rustix::process::geteuid().is_root() {
        true => check("chown", &[Layer::Capabilities, Layer::Namespaces]).await,
        false => skipped("only root has capabilities to lose"),
    }
}

#[tokio::test]
async fn it_gains_no_privilege_and_writes_no_core() {
    // Landlock needs `no_new_privs`, so both are left out together.
    let mut compromised = CompromisedVmm::new("privileges", &[]);
    let vmm = compromised.spawn().await;
    assert!(outcome(&vmm).starts_with("refused"), "{}", outcome(&vmm));
    vmm.shutdown().await;
    let mut compromised = CompromisedVmm::new("privileges", &[Layer::NoNewPrivs, Layer::Landlock]);
    let vmm = compromised.spawn().await;
    assert_eq!(outcome(&vmm), "done");
    vmm.shutdown().await;
    match getrlimit(Resource::Core).maximum {
        Some(0) => skipped("core dumps are off for this process too"),
        _ => check("core", &[Layer::Rlimits]).await,
    }
}

#[tokio::test]
async fn it_fills_no_disk_beyond_its_own() {
    let limit = 1 << 20;
    let grant = |compromised: &mut CompromisedVmm| compromised.grants.largest_file = Some(limit);
    check_with(&format!("grow {}", limit + 1), &[Layer::Rlimits], grant).await;
    let mut compromised = CompromisedVmm::new(&format!("grow {limit}"), &[]);
    grant(&mut compromised);
    let vmm = compromised.spawn().await;
    assert_eq!(outcome(&vmm), "done");
    vmm.shutdown().await;
}

#[tokio::test]
async fn a_fork_ends_with_it() {
    for without in [vec![], vec![Layer::Namespaces]] {
        for kill in [false, true] {
            let folder = tempdir().unwrap();
            let socket = folder.path().join("socket");
            let listener = UnixListener::bind(&socket).unwrap();
            let mut compromised =
                CompromisedVmm::new(&format!("fork {}", socket.display()), &without);
            let vmm = compromised.spawn().await;
            assert_eq!(outcome(&vmm), "done");
            let (mut held, _) = listener.accept().unwrap();
            held.set_nonblocking(true).unwrap();
            let alive = held.read(&mut [0]).unwrap_err();
            assert_eq!(alive.kind(), std::io::ErrorKind::WouldBlock, "it was left");
            held.set_nonblocking(false).unwrap();
            match kill {
                true => drop(vmm),
                false => drop(vmm.shutdown().await),
            }
            // The fork holds the other end open until it has ended.
            held.set_read_timeout(Some(super::GENEROUS)).unwrap();
            let end = held.read(&mut [0]);
            assert_eq!(end.unwrap(), 0, "without {without:?}, killed: {kill}");
        }
    }
}

#[tokio::test]
async fn a_wrapper_that_forks_the_vmm_is_refused_where_nothing_catches_forks() {
    let mut compromised =
        CompromisedVmm::new("environment PATH", &[Layer::Namespaces, Layer::Cgroup]);
    let wrapper = include_str!("fake-vmm").replace("exec \"$FAKE", "\"$FAKE");
    fs::write(&compromised.config.binary, format!("{wrapper}\nexit 0\n")).unwrap();
    let error = Vmm::spawn(&compromised.config).await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains("have it `exec` the VMM"), "{text}");
    // The forks of the wrapper have ended with it.
    let run_root = compromised.config.run_root.clone();
    assert!(run_root.read_dir().unwrap().next().is_none());

    compromised.config.confinement = Confinement::default();
    let vmm = Vmm::spawn(&compromised.config).await.unwrap();
    match is_missing(&vmm, Layer::Namespaces) {
        Some(why) => skipped(format!("namespaces are {why} here")),
        None => drop(vmm.shutdown().await),
    }
    drop(compromised.folder);
}

#[tokio::test]
async fn a_layer_that_is_required_and_missing_is_told() {
    let mut compromised = CompromisedVmm::new("environment PATH", &[]);
    compromised.config.confinement.require = vec![Layer::Cgroup];
    compromised.config.cgroup.parent = Some(compromised.folder.path().to_owned());
    let error = Vmm::spawn(&compromised.config).await.unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("cgroup layer") && text.contains("no cgroup v2"),
        "{text}"
    );
    assert!(
        compromised
            .config
            .run_root
            .read_dir()
            .unwrap()
            .next()
            .is_none()
    );
}

#[tokio::test]
async fn its_control_group_has_the_limits_and_goes_with_it() {
    let mount = Path::new("/sys/fs/cgroup");
    let parent = mount.join(format!("chv-sandbox-test-{}", process::id()));
    if !mount.join("cgroup.controllers").exists() || fs::create_dir(&parent).is_err() {
        return skipped("there is no cgroup v2 in which a test may make groups");
    }
    let _ = fs::write(mount.join("cgroup.subtree_control"), "+pids +memory +cpu");
    let folder = tempdir().unwrap();
    let socket = folder.path().join("socket");
    let listener = UnixListener::bind(&socket).unwrap();
    let what = format!("fork {}", socket.display());
    let mut compromised = CompromisedVmm::new(&what, &[Layer::Namespaces]);
    let mut cgroup = CgroupConfig::default();
    cgroup.parent = Some(parent.clone());
    cgroup.memory_max_mib = Some(512);
    cgroup.pids_max = Some(64);
    cgroup.cpu_max_percent = Some(100);
    compromised.config.cgroup = cgroup;
    let vmm = compromised.spawn().await;
    let pid = vmm.process().unwrap().pid();
    match is_missing(&vmm, Layer::Cgroup) {
        Some(why) => skipped(format!("the control group is {why} here")),
        None => {
            let own = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
            assert!(own.contains("chv-sandbox-test"), "{own}");
        }
    }
    assert_eq!(outcome(&vmm), "done");
    let (mut held, _) = listener.accept().unwrap();
    vmm.shutdown().await;
    drop(vmm);
    // The fork has ended with the VMM, and the group was removed.
    held.set_read_timeout(Some(super::GENEROUS)).unwrap();
    assert_eq!(held.read(&mut [0]).unwrap(), 0);
    assert_eq!(
        fs::read_dir(&parent)
            .unwrap()
            .filter(|entry| entry.as_ref().unwrap().path().is_dir())
            .count(),
        0
    );
    fs::remove_dir(&parent).unwrap();
}
