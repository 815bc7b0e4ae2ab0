//! Measures whole resets of a real guest with each strategy, compared with the predecessor's.

use std::time::Duration;

use chv_sandbox::broadcast::Receiver;
use chv_sandbox::machine::DiskProof;
use chv_sandbox::sandbox::{ChvSandbox, Event, Reset, Sandbox, Strategy, VmmUsed};
use tokio::time::sleep;

use super::guest::{RealGuest, a_spare_is_ready, run_tool};
use super::measure::{Row, print};
use super::predecessor::Predecessor;
use super::step_times::StepTimes;
use super::used::{Use, tool};
use super::{Outcome, millis, patience};

/// The time that is given to the next VMM to start, because no event reports that. If it takes longer, the step `take`
/// of the reset includes the rest.
const STARTED_AHEAD: Duration = Duration::from_millis(100);

pub(crate) async fn run(
    guest: &RealGuest,
    predecessor: Option<&Predecessor>,
    resets: usize,
) -> Outcome<()> {
    for use_it in [Use::Nothing, Use::Tool] {
        println!("\n{}", use_it.name());
        // One after the other, so that only the measured guest runs.
        for used in [VmmUsed::Reused, VmmUsed::New, VmmUsed::Spare] {
            compare(guest, predecessor, used, use_it, resets).await?;
        }
    }
    Ok(())
}

/// Makes resets with one kind of VMM, and resets of the predecessor, in turns.
async fn compare(
    guest: &RealGuest,
    predecessor: Option<&Predecessor>,
    used: VmmUsed,
    use_it: Use,
    resets: usize,
) -> Outcome<()> {
    let mut theirs = Row::new("ch-remote, cp, sha256sum");
    let mut ours = Side::boot(guest, used).await?;
    for round in 0..=resets {
        // The first reset only warms up.
        let counts = round > 0;
        if let Some(predecessor) = predecessor {
            let took = predecessor.reset(use_it).await?;
            if counts {
                theirs.add(took);
            }
        }
        ours.reset(use_it, counts).await?;
    }
    ours.sandbox.shutdown().await;
    println!("{}: p50 of {}", name(used), ours.steps);
    for DiskProof { role, bytes, .. } in &ours.disks {
        let (kib, took) = (bytes.work.hashed >> 10, millis(bytes.elapsed));
        println!(
            "{role} in the last: {:?}, {kib} KiB hashed, {took:.2} ms",
            bytes.basis
        );
    }
    if predecessor.is_none() {
        print(&[ours.row]);
        return Ok(());
    }
    print(&[theirs.clone(), ours.row.clone()]);
    let ratio = ours.row.median().as_secs_f64() / theirs.median().as_secs_f64();
    let goal = match used {
        VmmUsed::Spare => " (goal: at most 0.06 at 128 MiB, 0.05 at 512)",
        VmmUsed::New => " (goal: at most 0.40 at 128 MiB, 0.28 at 512)",
        VmmUsed::Reused | VmmUsed::Attached => "",
    };
    println!("{} / predecessor: {ratio:.3}{goal}", name(used));
    Ok(())
}

/// A sandbox whose resets all use the same kind of VMM.
struct Side {
    used: VmmUsed,
    sandbox: ChvSandbox,
    events: Receiver<Event>,
    row: Row,
    steps: StepTimes,
    /// The disk proofs of the last reset.
    disks: Vec<DiskProof>,
}

impl Side {
    async fn boot(guest: &RealGuest, used: VmmUsed) -> Outcome<Side> {
        let golden = guest.origin();
        let golden = match used {
            VmmUsed::Spare => golden,
            VmmUsed::New => golden.spares(0),
            VmmUsed::Reused | VmmUsed::Attached => golden.strategy(Strategy::InPlace),
        };
        let sandbox = ChvSandbox::new(guest.config_of(golden)?)?;
        let events = sandbox.subscribe();
        sandbox.boot().await?;
        let mut side = Side {
            used,
            sandbox,
            events,
            row: Row::new(name(used)),
            steps: StepTimes::default(),
            disks: Vec::new(),
        };
        side.next_is_there().await?;
        Ok(side)
    }

    /// Makes one reset. Before it, uses the guest, and after it, waits for the VMM of the next reset; neither is timed.
    async fn reset(&mut self, use_it: Use, counts: bool) -> Outcome<()> {
        if let Use::Tool = use_it {
            run_tool(&self.sandbox, tool()?).await?;
        }
        let Reset::Verified(outcome) = self.sandbox.reset().await? else {
            return Err("a reset was not verified".into());
        };
        let report = outcome.report;
        if report.vmm != Some(self.used) {
            let (wanted, used) = (self.used, report.vmm);
            return Err(format!("a reset with a VMM {wanted:?} used {used:?}").into());
        }
        if counts {
            self.row.add(Duration::from_micros(report.micros));
            self.steps.add(&report.steps);
        }
        self.disks = report.disks;
        self.next_is_there().await
    }

    async fn next_is_there(&mut self) -> Outcome<()> {
        match self.used {
            VmmUsed::Spare => a_spare_is_ready(&mut self.events).await?,
            VmmUsed::New => sleep(STARTED_AHEAD * patience()?).await,
            VmmUsed::Reused | VmmUsed::Attached => {}
        }
        Ok(())
    }
}

fn name(used: VmmUsed) -> &'static str {
    match used {
        VmmUsed::Spare => "fresh, a spare is ready (the default)",
        VmmUsed::New => "fresh, no spare is ready",
        VmmUsed::Reused | VmmUsed::Attached => "in place",
    }
}
