//! A tool's writes reach the disk that is hashed, and a revert takes them away.

use std::path::Path;
use std::sync::Arc;

use chv_sandbox::golden::LoadOptions;
use chv_sandbox::guest::protocol::{ToolDispatch, ToolName, ToolResult};
use chv_sandbox::machine::{DiskRole, Machine, Readings, RevertOptions};
use chv_sandbox::overlay::{self, AccessPolicy, Digest};
use chv_sandbox::vsock::Channel;
use serde_json::Value;

use super::traces::{self, MEMORY_KIB, PROCESS, SLACK_KIB, TOKEN};
use super::{Stage, Stopwatch, limits};

pub(super) async fn land_on_the_disk_and_are_gone_after_a_revert(stage: &Stage) {
    let watch = Stopwatch::start();
    let golden = stage.golden.load(&LoadOptions::default()).unwrap();
    let options = RevertOptions::new(Arc::clone(golden.snapshot()));
    let baseline = stage.golden.manifest().baselines.fs_hash;
    let mut machine = Machine::start(stage.machine(&golden)).await.unwrap();
    let overlay = machine.disk_path(DiskRole::Overlay).unwrap();

    let readings = machine.revert(&options).await.unwrap();
    assert_eq!(overlay_digest(&readings), baseline);
    let clean = Guest::look(machine.channel().unwrap()).await;
    assert!(!clean.has_process && !has_token(&overlay));

    leave(machine.channel().unwrap()).await;
    let dirty = Guest::look(machine.channel().unwrap()).await;
    assert!(dirty.has_process && has_token(&overlay));
    assert!(dirty.used_kib + SLACK_KIB > clean.used_kib + MEMORY_KIB);
    let digest = overlay::sha256(&overlay, AccessPolicy::ReadOnly)
        .unwrap()
        .digest;
    assert_ne!(digest, baseline);
    println!(
        "a tool left a file, a process and {} KiB of memory; the overlay is {digest} instead of {baseline}",
        dirty.used_kib - clean.used_kib
    );

    let filled_kib = fill(machine.channel().unwrap()).await;
    let length = std::fs::metadata(&overlay).unwrap().len();
    println!("a tool filled the disk with {filled_kib} KiB; the overlay's file has {length} bytes");

    let readings = machine.revert(&options).await.unwrap();
    assert_eq!(overlay_digest(&readings), baseline);
    let after = Guest::look(machine.channel().unwrap()).await;
    assert!(!after.has_process && !has_token(&overlay));
    assert!(after.used_kib < clean.used_kib + SLACK_KIB);
    machine.shutdown().await.unwrap();
    watch.say("reverted by the machine: none of the three is left");
}

fn overlay_digest(readings: &Readings) -> Digest {
    let overlay = readings.disks.last().unwrap();
    assert_eq!(overlay.role, DiskRole::Overlay);
    overlay.bytes.digest.sha256
}

/// Whether the file that the tool wrote is on the disk. A file begins with a block, and no block is smaller than 1 KiB.
fn has_token(disk: &Path) -> bool {
    let bytes = std::fs::read(disk).unwrap();
    let mut blocks = bytes.chunks(1024);
    blocks.any(|block| block.starts_with(TOKEN.as_bytes()))
}

async fn leave(channel: &Channel) {
    run(channel, traces::leave()).await;
}

/// Writes until the guest's file system is full, and returns the size of the file in KiB. No limit of the VMM may stop
/// the writes before that.
async fn fill(channel: &Channel) -> u64 {
    let result = run(channel, traces::fill()).await;
    assert!(result.stderr.contains("No space left"), "{result:?}");
    let kib: u64 = result.stdout.trim().parse().unwrap();
    assert!(kib > 40_000, "{result:?}");
    kib
}

async fn run(channel: &Channel, params: Value) -> ToolResult {
    let dispatch = ToolDispatch {
        command_id: "sh".to_owned(),
        tool: ToolName::new("sh").unwrap(),
        params,
        deadline_ms: traces::deadline().as_millis() as u64,
    };
    let answer = channel.dispatch(dispatch, limits().query).await;
    let result = answer.unwrap().result;
    assert_eq!(result.exit_code, 0, "{result:?}");
    result
}

/// What a guest reports about itself.
struct Guest {
    has_process: bool,
    used_kib: u64,
}

impl Guest {
    async fn look(channel: &Channel) -> Guest {
        let limit = limits().settle;
        let processes = channel.process_list(limit).await.unwrap();
        let memory = channel.mem_usage(limit).await.unwrap();
        Guest {
            has_process: processes.iter().any(|process| process.name == PROCESS),
            used_kib: memory.bytes_used / 1024,
        }
    }
}
