//! A tool that warmed the guest before its snapshot: the blocks that it read are in memory, and nothing that it wrote
//! is on the disk.

use std::sync::Arc;

use chv_sandbox::golden::{Golden, LoadOptions, MintError, MintProgress, WarmTool, mint};
use chv_sandbox::guest::protocol::{ToolDispatch, ToolName, ToolOutcomeKind};
use chv_sandbox::machine::{Machine, RevertOptions};
use serde_json::json;

use super::{Stage, Stopwatch, limits, traces};
use crate::real::assert_nothing_left;

/// Reads 4 MiB of the root's programs and libraries, leaves a file, and leaves a process that has the file open.
const SCRIPT: &str = "find /bin /sbin /lib /usr -type f 2>/dev/null | while read -r file; do cat \"$file\"; done \
     | head -c 4194304 | wc -c; echo left > /tmp/warm; sleep 100000 </tmp/warm >/dev/null 2>&1 &";

/// The greatest share of the cold guest's reads that a warmed guest may read from the disk.
const SHARE: f64 = 0.1;

pub(super) async fn tools_that_ran_before_the_snapshot_have_read_what_they_need(stage: &Stage) {
    let tool = |script: &str| WarmTool {
        tool: ToolName::new("sh").unwrap(),
        params: json!({ "script": script }),
        deadline_ms: traces::deadline().as_millis() as u64,
    };
    let warmed = async |name: &str, script: &str| {
        let mut config = stage.minted_by.clone();
        config.warm = vec![tool(script)];
        config.into = stage.folder().join(name);
        config.progress = MintProgress::default();
        let minted = mint(config).await;
        assert_nothing_left(stage.folder());
        minted
    };
    let watch = Stopwatch::start();
    let warm = warmed("warm", SCRIPT).await.unwrap();
    watch.say("minted warm");
    let (cold_bytes, cold_read) = first_run(stage, &stage.golden).await;
    let (warm_bytes, warm_read) = first_run(stage, &warm).await;
    assert_eq!(cold_read, warm_read, "both read the same files");
    println!(
        "a tool's first run reads {cold_bytes} bytes of the root disk cold, {warm_bytes} warm"
    );
    assert!(warm_bytes as f64 <= SHARE * cold_bytes as f64);

    let failed = warmed("failed", "echo no use >&2; exit 3").await;
    let Err(MintError::Warm { failure, .. }) = failed else {
        panic!("{failed:?}");
    };
    assert_eq!(failure.outcome, Some(ToolOutcomeKind::Exited));
    assert_eq!(
        (failure.exit_code, failure.stderr.as_str()),
        (3, "no use\n")
    );
    assert!(!stage.folder().join("failed").exists());
}

/// The bytes of the root disk that the first tool after a revert reads, and the tool's output.
async fn first_run(stage: &Stage, golden: &Golden) -> (u64, String) {
    let loaded = golden.load(&LoadOptions::default()).unwrap();
    let options = RevertOptions::new(Arc::clone(loaded.snapshot()));
    let machine = Machine::start(stage.machine_of(golden, &loaded)).await;
    let mut machine = machine.unwrap();
    machine.revert(&options).await.unwrap();
    let before = root_reads(&machine).await;
    let dispatch = ToolDispatch {
        command_id: "first".to_owned(),
        tool: ToolName::new("sh").unwrap(),
        params: json!({ "script": format!("test ! -e /tmp/warm && {{ {SCRIPT} }}") }),
        deadline_ms: traces::deadline().as_millis() as u64,
    };
    let channel = machine.channel().unwrap();
    let answer = channel.dispatch(dispatch, limits().query).await;
    let result = answer.unwrap().result;
    assert_eq!(result.exit_code, 0, "{result:?}");
    let read = root_reads(&machine).await - before;
    machine.shutdown().await.unwrap();
    (read, result.stdout)
}

async fn root_reads(machine: &Machine) -> u64 {
    let counters = machine.client().vm_counters().await.unwrap();
    counters["root"]["read_bytes"]
}
