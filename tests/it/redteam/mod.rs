//! `redteam`: every probe passes where nothing leaks, and fails where what it looks for is there.

mod breaches;
mod guest;
mod passing;
mod report;
mod sandbox;

use std::sync::Arc;

use chv_sandbox::redteam::{Plan, Progress, RedteamReport, attack};
use chv_sandbox::sandbox::Sandbox;
use tokio::sync::watch;

use guest::Guest;
use sandbox::{PlayedSandbox, PlayedSubstrate};

/// The number of dispatches that look for markers in these tests.
const DISPATCHES: u64 = 12;

/// A plan for sandboxes with this guest, whose resets are verified and find every lie.
fn plan(guest: Guest) -> Plan {
    plan_of(move || PlayedSandbox::new(guest.clone()))
}

fn plan_of(make: impl Fn() -> PlayedSandbox + Send + Sync + 'static) -> Plan {
    let mut plan = Plan::new(move || {
        let sandbox: Arc<dyn Sandbox> = Arc::new(make());
        async { Ok(sandbox) }
    })
    .with_substrate(PlayedSubstrate { finds: true });
    plan.dispatches = DISPATCHES;
    plan
}

/// Runs all probes of a plan, without a stop.
async fn all(plan: Plan) -> RedteamReport {
    let (_go_on, stop) = watch::channel(false);
    attack(&Arc::new(plan), &Arc::new(Progress::default()), stop).await
}

/// The report of one probe on this guest.
async fn report_on(guest: Guest, probe: &str) -> RedteamReport {
    all(plan(guest).only(&[probe]).unwrap()).await
}
