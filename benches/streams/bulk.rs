//! Measures the speed of 1 GiB of output, and the memory that it needs.

use std::fs;
use std::io::Write;
use std::os::unix::net::UnixListener;
use std::thread;
use std::time::{Duration, Instant};

use chv_sandbox::sandbox::{ChvSandbox, Sandbox};
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;

use super::{Outcome, PIECE, invocation, piece, sandbox};

const BYTES: u64 = 1 << 30;
const ROUNDS: usize = 5;

pub(crate) async fn run() -> Outcome<()> {
    let replay = sandbox().await?;
    let sandbox = replay.sandbox();
    let folder = tempfile::tempdir()?;
    let socket = folder.path().join("bulk");
    let listener = UnixListener::bind(&socket)?;
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a caller");
            let piece = piece();
            let mut digest = Sha256::new();
            for _ in 0..BYTES / PIECE as u64 {
                digest.update(&piece);
                stream.write_all(&piece).expect("sent");
            }
            std::hint::black_box(digest.finalize());
        }
    });
    // One run in advance, so that one-time allocations are not counted.
    through_a_tool(&sandbox, PIECE as u64).await?;
    let before = resident_kib()?;
    let (mut bare, mut tool) = (Vec::new(), Vec::new());
    let mut most = before;
    for _ in 0..ROUNDS {
        bare.push(through_a_socket(&socket).await?);
        let (took, peak) = through_a_tool(&sandbox, BYTES).await?;
        tool.push(took);
        most = most.max(peak);
    }
    let (bare, tool) = (median(&mut bare), median(&mut tool));
    let rate = |took: Duration| BYTES as f64 / f64::from(1 << 30) / took.as_secs_f64();
    println!("\n1 GiB of output, medians of {ROUNDS}");
    println!(
        "through a socket, SHA-256 on both ends: {:.2} GiB/s",
        rate(bare)
    );
    println!("through a RunningTool: {:.2} GiB/s", rate(tool));
    println!(
        "RunningTool / socket: {:.2} (goal: at least 0.6)",
        rate(tool) / rate(bare)
    );
    println!(
        "additional memory of agent and guest together: {} KiB (goal: at most 8 MiB each)",
        most.saturating_sub(before)
    );
    sandbox.shutdown().await;
    Ok(())
}

async fn through_a_socket(socket: &std::path::Path) -> Outcome<Duration> {
    let began = Instant::now();
    let mut stream = UnixStream::connect(socket).await?;
    let mut digest = Sha256::new();
    let mut buffer = vec![0; PIECE];
    let mut left = BYTES;
    while left > 0 {
        let read = stream.read(&mut buffer).await?;
        digest.update(&buffer[..read]);
        left -= read as u64;
    }
    std::hint::black_box(digest.finalize());
    Ok(began.elapsed())
}

/// Returns the time that it took, and the peak memory of this process during it, in KiB.
async fn through_a_tool(sandbox: &ChvSandbox, bytes: u64) -> Outcome<(Duration, u64)> {
    let began = Instant::now();
    let write = invocation("write", json!({ "bytes": bytes.to_string() }));
    let mut tool = sandbox.start(write).await?;
    let (mut came, mut looked_at, mut most) = (0, 0, 0);
    while let Some(chunk) = tool.next().await {
        came += chunk?.bytes.len() as u64;
        if came - looked_at > 32 << 20 {
            looked_at = came;
            most = most.max(resident_kib()?);
        }
    }
    let report = tool.wait().await?;
    assert!(report.outcome.is_success(), "{report:?}");
    assert_eq!((came, report.evidence.stdout_total), (bytes, bytes));
    Ok((began.elapsed(), most))
}

fn resident_kib() -> Outcome<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    Ok(number.ok_or("the kernel says it")?.parse()?)
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}
