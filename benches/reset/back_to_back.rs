//! Measures dispatches and resets of a real guest in a tight loop, compared with the same number of the predecessor's
//! resets.

use std::env;
use std::time::{Duration, Instant};

use chv_sandbox::sandbox::{ChvSandbox, Reset, Sandbox, VmmUsed};

use super::guest::{RealGuest, a_spare_is_ready, run_tool};
use super::measure::{Row, print};
use super::predecessor::Predecessor;
use super::step_times::StepTimes;
use super::used::{Use, tool};
use super::{Outcome, millis};

pub(crate) async fn run(
    guest: &RealGuest,
    predecessor: Option<&Predecessor>,
    resets: usize,
) -> Outcome<()> {
    let count = count()?;
    println!("\n{count} times a dispatch and a reset, back to back, by the default configuration");
    let mut theirs = Row::new("ch-remote, cp, sha256sum: a reset");
    // Half of them run before and half after, so that other load on the machine affects both sides.
    predecessor_resets(predecessor, &mut theirs, resets.div_ceil(2)).await?;
    let ours = back_to_back(guest, count).await?;
    predecessor_resets(predecessor, &mut theirs, resets / 2).await?;

    println!("resets: p50 of {}", ours.steps);
    println!(
        "{} resets used a spare, {} a new VMM; the whole took {:.0} ms, {:.1} ms each time",
        ours.spares,
        ours.new,
        millis(ours.whole),
        millis(ours.whole) / count as f64
    );
    let whole = ours.whole.as_secs_f64();
    let times = [ours.dispatches, ours.resets];
    match predecessor {
        None => print(&times),
        Some(_) => {
            let [dispatches, resets] = times;
            print(&[theirs.clone(), dispatches, resets]);
            let ratio = whole / (count as f64 * theirs.median().as_secs_f64());
            println!(
                "the whole / {count} times the predecessor's reset: {ratio:.2} (goal: at most 0.45)"
            );
        }
    }
    Ok(())
}

/// The number of dispatches, each with a reset.
fn count() -> Outcome<usize> {
    Ok(match env::var("CHV_SANDBOX_LOOP") {
        Ok(count) => count.parse()?,
        Err(_) => 100,
    })
}

async fn predecessor_resets(
    predecessor: Option<&Predecessor>,
    row: &mut Row,
    resets: usize,
) -> Outcome<()> {
    let Some(predecessor) = predecessor else {
        return Ok(());
    };
    for round in 0..=resets {
        let took = predecessor.reset(Use::Tool).await?;
        // The first reset only warms up.
        if round > 0 {
            row.add(took);
        }
    }
    Ok(())
}

struct BackToBack {
    whole: Duration,
    dispatches: Row,
    resets: Row,
    steps: StepTimes,
    spares: usize,
    new: usize,
}

async fn back_to_back(guest: &RealGuest, count: usize) -> Outcome<BackToBack> {
    let sandbox = ChvSandbox::new(guest.config()?)?;
    let mut events = sandbox.subscribe();
    sandbox.boot().await?;
    a_spare_is_ready(&mut events).await?;
    drop(events);
    let mut found = BackToBack {
        whole: Duration::ZERO,
        dispatches: Row::new("a dispatch"),
        resets: Row::new("a reset"),
        steps: StepTimes::default(),
        spares: 0,
        new: 0,
    };
    let began = Instant::now();
    for _ in 0..count {
        let dispatched = Instant::now();
        run_tool(&sandbox, tool()?).await?;
        found.dispatches.add(dispatched.elapsed());
        let Reset::Verified(outcome) = sandbox.reset().await? else {
            return Err("a reset was not verified".into());
        };
        let report = outcome.report;
        found.resets.add(Duration::from_micros(report.micros));
        found.steps.add(&report.steps);
        match report.vmm {
            Some(VmmUsed::Spare) => found.spares += 1,
            _ => found.new += 1,
        }
    }
    found.whole = began.elapsed();
    sandbox.shutdown().await;
    Ok(found)
}
