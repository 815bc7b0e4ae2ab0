//! Measures what waiting sandboxes cost the one that is in use.

use std::sync::Arc;
use std::time::{Duration, Instant};

use chv_sandbox::guest::frame::encode;
use chv_sandbox::guest::protocol::{
    EvidenceChain, EvidenceChunk, Frame, ResultDetails, ToolDispatch, ToolOutcomeKind, ToolResult,
};
use chv_sandbox::guest::stand_in::Behaviour;
use chv_sandbox::sandbox::{
    Event, GoldenOrigin, MemoryPerVm, Pool, PoolConfig, Sandbox, SandboxConfig, ToolsPerReset,
    VmmUsed,
};

use super::{Place, alone};
use crate::sandbox::{PATIENCE, assert_echoed, echo, generous, told};

/// The numbers of waiting sandboxes that are measured.
const COUNTS: [u32; 4] = [1, 8, 64, 256];
const ROUNDS: usize = 2;

const CALLS: usize = 2000;
const RESETS: usize = 20;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures"]
async fn the_cost_of_waiting_sandboxes() {
    let place = Place::new().await;
    // A tool that is a process would take most of the time of a call.
    place.scene.guest.behave(answers_of_echo());
    alone::run(&place, "sandbox::pool::scale::one_in_use").await;
}

/// A guest that answers each tool as `echo` would, without starting a process.
pub(super) fn answers_of_echo() -> Behaviour {
    Behaviour::Intercepted(Arc::new(|frame| match frame {
        Frame::ToolDispatch(dispatch) => Some(answer(dispatch)),
        _ => None,
    }))
}

/// The frames of a tool that has echoed its message.
fn answer(dispatch: &ToolDispatch) -> Vec<u8> {
    let message = dispatch.params["message"].as_str().unwrap();
    let stdout = format!("{message}\n");
    let chunk = EvidenceChunk {
        command_id: dispatch.command_id.clone(),
        seq: 1,
        chunk_data: stdout.clone().into_bytes(),
        chunk_size: stdout.len() as u32,
        is_terminal: true,
    };
    let mut chain = EvidenceChain::default();
    chain.append(&chunk);
    let details = ResultDetails {
        outcome: ToolOutcomeKind::Exited,
        stdout_total: stdout.len() as u64,
        stdout_kept: stdout.len() as u64,
        stderr_total: 0,
        stderr_kept: 0,
    };
    let result = ToolResult {
        command_id: dispatch.command_id.clone(),
        exit_code: 0,
        stdout,
        stderr: String::new(),
        evidence_hash: Some(chain.last_link()),
        details: Some(details),
    };
    let frames = [Frame::EvidenceChunk(chunk), Frame::ToolResult(result)];
    frames
        .iter()
        .flat_map(|frame| encode(frame).unwrap())
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a part of the_cost_of_waiting_sandboxes"]
#[expect(clippy::print_stdout, reason = "it prints what it found")]
async fn one_in_use() {
    let Some((golden, loaded, vmm)) = alone::given() else {
        return;
    };
    println!(
        "a pool on scripted VMMs, all but one sandbox waiting; medians of {CALLS} calls and {RESETS} resets"
    );
    println!(
        "{:>9}{:>12}{:>8}{:>12}{:>8}{:>14}{:>12}{:>10}",
        "sandboxes", "call us", "ratio", "reset ms", "ratio", "acquire us", "memory KiB", "threads"
    );
    let mut alone = None;
    for count in [COUNTS; ROUNDS].concat() {
        let origin = GoldenOrigin::new(&golden).spares(1);
        let sandbox = SandboxConfig::new(origin)
            .tools_per_reset(ToolsPerReset::Many)
            .limits(generous().scaled(10));
        let config = PoolConfig::new(sandbox)
            .size(count)
            .idle(count)
            .memory_per_vm(MemoryPerVm::Measured { mib: 1 });
        let pool = Pool::with_loaded(config, vmm.clone(), Arc::clone(&loaded)).unwrap();
        let mut events = pool.subscribe();
        pool.wait_until(|status| status.idle == count as usize)
            .await;
        told(&mut events, |event| {
            matches!(event, Event::SpareReady).then_some(())
        })
        .await;
        let (memory, threads) = (alone::status("VmRSS:"), alone::status("Threads:"));

        let began = Instant::now();
        let sandbox = pool.acquire(PATIENCE).await.unwrap();
        let acquired = began.elapsed();
        let mut calls = Vec::with_capacity(CALLS);
        for _ in 0..CALLS {
            let began = Instant::now();
            let execution = echo(&*sandbox, "hello").await;
            calls.push(began.elapsed());
            assert_echoed(execution, "hello");
        }
        let mut resets = Vec::with_capacity(RESETS);
        for _ in 0..RESETS {
            let began = Instant::now();
            let reset = sandbox.reset().await.unwrap();
            resets.push(began.elapsed());
            assert_eq!(reset.outcome().report.vmm, Some(VmmUsed::Spare));
            told(&mut events, |event| {
                matches!(event, Event::SpareReady).then_some(())
            })
            .await;
        }
        drop(sandbox);
        pool.shutdown().await;
        let (call, reset) = (median(&mut calls), median(&mut resets));
        let (call_alone, reset_alone) = *alone.get_or_insert((call, reset));
        println!(
            "{count:>9}{:>12.1}{:>8.2}{:>12.2}{:>8.2}{:>14.1}{memory:>12}{threads:>10}",
            call.as_secs_f64() * 1e6,
            call.as_secs_f64() / call_alone.as_secs_f64(),
            reset.as_secs_f64() * 1e3,
            reset.as_secs_f64() / reset_alone.as_secs_f64(),
            acquired.as_secs_f64() * 1e6,
        );
    }
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort();
    times[times.len() / 2]
}
