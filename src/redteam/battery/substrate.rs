//! Probes with a false reading (a lie), one for each source of a reset's verification. The reset must detect each.

use std::io;

use tokio::task::spawn_blocking;

use crate::causes::Causes;
use crate::redteam::attacker::Attacker;
use crate::redteam::probe::Probe;
use crate::redteam::substrate::{Moment, StagedLie};
use crate::redteam::{Family, Verdict};
use crate::sandbox::{BootFailure, CheckSource, Error, Sandbox, ToolInvocation};

/// A probe for the lie about one source.
macro_rules! lie {
    ($name:literal, $source:ident, $tries:literal) => {
        Probe {
            name: $name,
            family: Family::Substrate,
            tries: $tries,
            breach: "the reset is verified, or the sandbox boots, or it takes a tool after that",
            attempt: |attacker| Box::pin(lie(attacker, CheckSource::$source)),
        }
    };
}

pub(super) const PROBES: &[Probe] = &[
    lie!("lie_fs_hash", FsHash, "changes a byte of a disk"),
    lie!(
        "lie_open_fd_count",
        OpenFdCount,
        "has the guest count another number of open descriptors"
    ),
    lie!(
        "lie_vmm_api_state",
        VmmApiState,
        "has the VM in another state"
    ),
    lie!(
        "lie_disk_identity",
        DiskIdentity,
        "has the VMM serve another disk than the one that is digested"
    ),
    lie!("lie_guest_nonce", GuestNonce, "has another guest answer"),
    lie!(
        "lie_guest_randomness",
        GuestRandomness,
        "has the guest not reseed its random pool"
    ),
    lie!("lie_guest_clock", GuestClock, "has the guest's clock wrong"),
    lie!(
        "lie_vmm_identity",
        VmmIdentity,
        "has another process answer in the VMM's place"
    ),
    lie!(
        "lie_guest_memory",
        GuestMemory,
        "changes a byte of the snapshot's memory"
    ),
];

async fn lie(attacker: &mut Attacker, source: CheckSource) -> Verdict {
    let Some(substrate) = &attacker.plan.substrate else {
        return Verdict::skipped("this plan has no substrate that can cause this false reading");
    };
    let staged = match substrate.stage(source).await {
        Ok(staged) => staged,
        Err(reason) => return Verdict::skipped(reason),
    };
    let sandbox = staged.sandbox.clone();
    let verdict = carry_out(staged).await;
    sandbox.shutdown().await;
    verdict
}

/// Carries out the lie, and checks that the boot or reset detects it.
async fn carry_out(lie: StagedLie) -> Verdict {
    let StagedLie {
        sandbox,
        moment,
        what,
        tell,
    } = lie;
    let found = match moment {
        Moment::BeforeBoot => {
            if let Err(reason) = run_blocking(tell).await {
                return Verdict::skipped(format!("{what}: {reason}"));
            }
            sandbox.boot().await
        }
        Moment::BeforeReset => {
            if let Err(error) = sandbox.boot().await {
                return Verdict::skipped(format!("no sandbox could be made: {}", Causes(&error)));
            }
            if let Err(reason) = run_blocking(tell).await {
                return Verdict::skipped(format!("{what}: {reason}"));
            }
            sandbox.reset().await.map(drop)
        }
    };
    let error = match found {
        Ok(()) => return Verdict::failed([format!("{what}: nothing was found")]),
        Err(error) => error,
    };
    let text = Causes(&error).to_string();
    if !is_detected(&error) {
        return Verdict::skipped(format!("{what}: it ended otherwise: {text}"));
    }
    match accepts_a_tool(&*sandbox).await {
        true => Verdict::failed([
            format!("{what}: {text}"),
            "a tool was taken after that".to_owned(),
        ]),
        false => Verdict::passed(format!("{what}: {} ({text})", error.code())),
    }
}

/// Runs on a blocking thread, because opening a file under a lease for writing waits until the lease is given back.
async fn run_blocking(
    tell: impl FnOnce() -> io::Result<()> + Send + 'static,
) -> Result<(), String> {
    match spawn_blocking(tell).await {
        Ok(told) => told.map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    }
}

/// Whether an error means that the lie was detected, and not that something else failed.
fn is_detected(error: &Error) -> bool {
    match error {
        Error::ResetDivergence(_) | Error::ResetTimeout(_) | Error::ResetRefused(_) => true,
        Error::BootFailed(failure) => matches!(
            **failure,
            BootFailure::Golden(_) | BootFailure::Unverified(_)
        ),
        _ => false,
    }
}

async fn accepts_a_tool(sandbox: &dyn Sandbox) -> bool {
    let echo = ToolInvocation::new("echo", serde_json::json!({ "message": "still there" }));
    sandbox.execute_tool(echo).await.is_ok()
}
