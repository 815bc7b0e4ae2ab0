//! Measures a reset in place together with a tool that writes much memory, with mapped memory compared with copied
//! memory.

use std::time::{Duration, Instant};

use chv_sandbox::sandbox::{ChvSandbox, MemoryMode, Sandbox, Strategy};

use super::Outcome;
use super::guest::{RealGuest, run_tool};
use super::measure::{Row, print};
use super::used::writing_tool;

/// In a smaller guest, a tool that writes 64 MiB of memory is killed.
const NEEDS_MIB: u64 = 256;

/// Measures both in turns, so that other load on the machine affects both.
pub(crate) async fn run(guest: &RealGuest, resets: usize) -> Outcome<()> {
    if guest.memory_mib() < NEEDS_MIB {
        println!(
            "a tool that writes 64 MiB of memory: skipped, it needs a guest of {NEEDS_MIB} MiB"
        );
        return Ok(());
    }
    println!("\na reset in place, and a tool that writes 64 MiB of memory");
    let mut rows = [
        ("copied", MemoryMode::Copied),
        ("mapped", MemoryMode::Mapped),
    ]
    .map(|(name, memory)| (memory, Row::new(name)));
    let mut sandboxes = Vec::new();
    for (memory, _) in &rows {
        let golden = guest.origin().memory(*memory).strategy(Strategy::InPlace);
        let sandbox = ChvSandbox::new(guest.config_of(golden)?)?;
        sandbox.boot().await?;
        sandboxes.push(sandbox);
    }
    for round in 0..=resets {
        for ((_, row), sandbox) in rows.iter_mut().zip(&sandboxes) {
            let took = reset_and_write(sandbox).await?;
            // The first reset only warms up.
            if round > 0 {
                row.add(took);
            }
        }
    }
    for sandbox in &sandboxes {
        sandbox.shutdown().await;
    }
    let [copied, mapped] = rows.map(|(_, row)| row);
    let ratio = mapped.median().as_secs_f64() / copied.median().as_secs_f64();
    print(&[copied, mapped]);
    println!("mapped / copied: {ratio:.2} (goal: at most 1.1 at 512 MiB)");
    Ok(())
}

async fn reset_and_write(sandbox: &ChvSandbox) -> Outcome<Duration> {
    let began = Instant::now();
    sandbox.reset().await?;
    run_tool(sandbox, writing_tool()?).await?;
    Ok(began.elapsed())
}
