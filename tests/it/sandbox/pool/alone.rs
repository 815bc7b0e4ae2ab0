//! Runs a pool in a process of its own, so that no other test changes the memory, descriptors and threads that are
//! measured. The stage and the guests stay in the process of the test that starts it.

use std::env;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use chv_sandbox::golden::{Golden, LoadOptions, LoadedGolden};
use chv_sandbox::vmm::VmmConfig;

use super::Place;
use crate::sandbox::stage::Stage;

const VARIABLES: [&str; 3] = ["POOL_GOLDEN", "POOL_STAGE", "POOL_RUN_ROOT"];

/// Runs this test in another process. The test gets its pool's parts from [`given`].
pub(super) async fn run(place: &Place, test: &str) {
    let golden = place.scene.path("golden");
    let (socket, run_root) = place.stage.place();
    let mut pool = Command::new(env::current_exe().unwrap());
    pool.args(["--exact", test, "--ignored", "--nocapture"])
        .envs(VARIABLES.into_iter().zip([&*golden, socket, run_root]));
    let status = tokio::task::spawn_blocking(move || pool.status()).await;
    assert!(status.unwrap().unwrap().success());
    place.stage.assert_empty();
}

/// The golden snapshot and the VMMs for a pool; `None` if no other test has started this one.
#[expect(clippy::print_stdout, reason = "it says that it was skipped")]
pub(super) fn given() -> Option<(PathBuf, Arc<LoadedGolden>, VmmConfig)> {
    let [Some(golden), Some(stage), Some(run_root)] =
        VARIABLES.map(|name| env::var_os(name).map(PathBuf::from))
    else {
        println!("skipped: only of use to another test");
        return None;
    };
    let vmm = Stage::config_at(&stage, &run_root, &env::current_exe().unwrap());
    let loaded = Golden::open(&golden).unwrap().load(&LoadOptions::default());
    Some((golden, Arc::new(loaded.unwrap()), vmm))
}

/// A number from `/proc/self/status`.
pub(super) fn status(name: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|line| line.split_whitespace().next());
    number.unwrap().parse().unwrap()
}

/// How many descriptors this process has open.
pub(super) fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}
