//! Measures the first tool after a restore, with a golden snapshot that the tool has warmed, compared with one that it
//! has not.

use std::env;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chv_sandbox::api;
use chv_sandbox::golden::{Golden, LoadOptions, MintError, WarmTool};
use chv_sandbox::guest::protocol::{DEFAULT_PORT, ToolDispatch, ToolName};
use chv_sandbox::machine::{Machine, MachineConfig, RevertOptions, VmmFiles, VmmSource};
use serde_json::{Value, json};

use super::guest::RealGuest;
use super::measure::{Row, print};
use super::{Outcome, limits, patience};

/// The default script for the tool `sh`; `CHV_SANDBOX_WARM` replaces it.
const SCRIPT: &str = "python3 -c 'import json, re, ssl'";

/// The time limit of the script.
const DEADLINE: Duration = Duration::from_secs(60);

/// The root disk reads and the times of the first runs of the tool.
struct FirstRuns {
    read_bytes: u64,
    times: Row,
}

/// Mints both golden snapshots, and measures one after the other.
pub(crate) async fn run(vmm: &Path, image: &Path, resets: usize) -> Outcome<()> {
    let script = env::var("CHV_SANDBOX_WARM").unwrap_or_else(|_| SCRIPT.to_owned());
    let params = json!({ "script": script });
    let tool = WarmTool {
        tool: ToolName::new("sh")?,
        params: params.clone(),
        deadline_ms: (DEADLINE * patience()?).as_millis().try_into()?,
    };
    let warm = match RealGuest::mint_warm(vmm, image, vec![tool.clone()]).await {
        Err(error) if matches!(error.downcast_ref(), Some(MintError::Warm { .. })) => {
            println!(
                "the first tool after a reset: skipped, because the script fails in this image: {error}"
            );
            return Ok(());
        }
        minted => minted?,
    };
    let cold = RealGuest::mint(vmm, image).await?;
    println!("\nthe first tool after a reset: {script}");
    let mut found = [("not warmed", &cold), ("warmed", &warm)].map(|(name, guest)| {
        let runs = FirstRuns {
            read_bytes: 0,
            times: Row::new(name),
        };
        (guest, runs)
    });
    for (guest, runs) in &mut found {
        let need = guest.golden().memory_need()?.at_first >> 20;
        println!("{need} MiB of memory in the snapshot");
        measure(guest, &tool, resets, runs).await?;
    }
    let [(_, cold), (_, warm)] = found;
    let (before, after) = (cold.read_bytes, warm.read_bytes);
    println!("read of the root disk: {before} bytes not warmed, {after} warmed");
    println!(
        "warmed / not warmed: {:.3} (goal: at most 0.1)",
        after as f64 / before as f64
    );
    let ratio = warm.times.median().as_secs_f64() / cold.times.median().as_secs_f64();
    print(&[cold.times, warm.times]);
    println!("time, warmed / not warmed: {ratio:.2}");
    Ok(())
}

/// Reverts `resets` times, and keeps the largest number of bytes that a run read.
async fn measure(
    guest: &RealGuest,
    tool: &WarmTool,
    resets: usize,
    runs: &mut FirstRuns,
) -> Outcome<()> {
    let golden: &Golden = guest.golden();
    let loaded = golden.load(&LoadOptions::default())?;
    let snapshot = loaded.snapshot();
    let options = RevertOptions::new(Arc::clone(snapshot));
    let mut machine = Machine::start(MachineConfig {
        vmm: VmmSource::Spawn(guest.vmm().clone()),
        disks: golden.disks(),
        memory: snapshot.memory().clone(),
        port: DEFAULT_PORT,
        files: VmmFiles::of_restore(snapshot.shape()),
        limits: limits()?,
    })
    .await?;
    for number in 0..resets.max(1) {
        machine.revert(&options).await?;
        let before = root_reads(&machine).await?;
        let dispatch = ToolDispatch {
            command_id: format!("first-{number}"),
            tool: tool.tool.clone(),
            params: Value::clone(&tool.params),
            deadline_ms: tool.deadline_ms,
        };
        let channel = machine.channel().ok_or("the machine has no channel")?;
        let began = Instant::now();
        let answer = channel.dispatch(dispatch, limits()?.tool_grace).await?;
        runs.times.add(began.elapsed());
        let result = answer.result;
        if result.exit_code != 0 {
            return Err(format!(
                "the tool ended with {}: {}",
                result.exit_code, result.stderr
            )
            .into());
        }
        let read = root_reads(&machine).await? - before;
        runs.read_bytes = runs.read_bytes.max(read);
    }
    machine.shutdown().await;
    Ok(())
}

async fn root_reads(machine: &Machine) -> Outcome<u64> {
    let counters = machine.client().send(api::vm_counters()).await?;
    let root = counters.get("root").and_then(|root| root.get("read_bytes"));
    Ok(*root.ok_or("the VMM doesn't count the reads of the root disk")?)
}
