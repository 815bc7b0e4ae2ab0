//! Measures resets on the recorded answers of a real VMM, which come at once, with a simulated guest in this process.

use std::time::{Duration, Instant};

use chv_sandbox::golden::mint;
use chv_sandbox::replay::{RecordedSession, RecordedVmm};
use chv_sandbox::sandbox::{ChvSandbox, Reset, ResetReport, Sandbox, SandboxConfig};

use super::Outcome;
use super::measure::{Row, print};

const ROOT_BYTES: u64 = 8 << 20;
const OVERLAY_BYTES: u64 = 64 << 20;

pub(crate) async fn run(resets: usize) -> Outcome<()> {
    let folder = tempfile::tempdir()?;
    // The first reset only warms up.
    let session = RecordedSession::new()
        .resets(1 + resets)
        .disks(ROOT_BYTES, OVERLAY_BYTES);
    let vmm = RecordedVmm::start(&folder.path().canonicalize()?, &session).await?;
    mint(vmm.mint_config()).await?;
    let sandbox = ChvSandbox::with_vmm(SandboxConfig::golden(vmm.golden()), vmm.vmm_source())?;
    sandbox.boot().await?;
    let mut whole = Row::new("a reset, in place, verified");
    let mut hashing = Row::new("of it, the overlay's digest");
    for round in 0..=resets {
        let began = Instant::now();
        let Reset::Verified(outcome) = sandbox.reset().await? else {
            return Err("a reset was not verified".into());
        };
        if round > 0 {
            whole.add(began.elapsed());
            hashing.add(hashing_time(&outcome.report));
        }
    }
    sandbox.shutdown().await;
    vmm.finish().await?;
    println!("\non recordings: a VMM that answers at once, a simulated guest");
    let host = whole.median().saturating_sub(hashing.median());
    print(&[whole, hashing]);
    println!(
        "host-side cost beyond VMM and hashing: {:.2} ms (goal: under 2)",
        super::millis(host)
    );
    Ok(())
}

fn hashing_time(report: &ResetReport) -> Duration {
    report.disks.iter().map(|disk| disk.bytes.elapsed).sum()
}
