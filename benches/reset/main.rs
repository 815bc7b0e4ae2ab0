//! Measures the costs of a reset, each compared with a baseline.
//!
//! `RESET_BENCH` selects one of these parts; without it all are run:
//!
//! | part | measured and compared with | needs |
//! |---|---|---|
//! | `recordings` | all that a reset does on the host besides the VMM's work and the digests of disks | nothing |
//! | `idle` | an idle VM: delete, overlay back, restore, resume and state in place, against the same calls and copy by hand | a VMM |
//! | `fresh` | an idle VM: the same in a new VMM that was started ahead, against raw calls on one VMM, which copy no disk | a VMM |
//! | `confinement` | what confinement adds to a VMM's start and to a reset in place | a VMM |
//! | `sizes` | a reset in place by the size of the memory, mapped and copied | a VMM |
//! | `density` | the memory of 1, 8 and 32 VMs of one snapshot | a VMM |
//! | `guest` | whole resets with a spare, without one, and in place, up to the last answer, against the predecessor's | a guest |
//! | `loop` | dispatches and resets in a tight loop, against the same number of the predecessor's resets | a guest |
//! | `warm` | the first tool after a reset: its reads of the root disk and its time, with a golden snapshot that it warmed, against one that it did not warm | a guest |
//! | `writing` | a reset in place and a tool that writes much memory, mapped against copied | a guest |
//!
//! `CLOUD_HYPERVISOR` is the path of the VMM, `CHV_SANDBOX_IMAGE` the path of the image of a real guest. The
//! predecessor of this crate used `ch-remote`, `cp` and `sha256sum`; `CH_REMOTE` is the path of `ch-remote`.
//!
//! `CHV_SANDBOX_RESETS` is the number of resets of each kind (default: 50), `CHV_SANDBOX_LOOP` the number of dispatches
//! of `loop` (default: 100). `CHV_SANDBOX_PATIENCE` multiplies the time limits of a guest. `CHV_SANDBOX_MEMORY_MIB` is
//! a real guest's memory (default: 128). `CHV_SANDBOX_WARM` is the script of `warm` (default: an import of three Python
//! modules), whose guest needs the tool `sh`.

#![expect(clippy::print_stdout, reason = "a bench prints what it found")]

mod back_to_back;
mod confinement;
mod density;
mod fresh;
mod guest;
mod idle;
mod idle_snapshot;
#[expect(dead_code, reason = "a part of it is for the tests alone")]
#[path = "../../tests/it/real/idle_vm.rs"]
mod idle_vm;
#[expect(dead_code, reason = "a part of it is for the other benches")]
#[path = "../measure/mod.rs"]
mod measure;
#[path = "../../tests/it/real/nested_state.rs"]
mod nested_state;
mod predecessor;
mod raw;
mod recordings;
mod sizes;
mod step_times;
mod strategies;
mod used;
mod warm;
mod writing;

use std::env;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use chv_sandbox::limits::TimeLimits;
use chv_sandbox::machine::{Disk, DiskFormat, DiskRole};

use guest::RealGuest;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

#[tokio::main]
async fn main() -> Outcome<()> {
    let only = env::var("RESET_BENCH").ok();
    let wanted = |place: &str| only.as_deref().is_none_or(|only| only == place);
    measure::print_load();
    if wanted("recordings") {
        recordings::run(resets()?).await?;
    }
    let vmm = env::var_os("CLOUD_HYPERVISOR").map(PathBuf::from);
    let image = env::var_os("CHV_SANDBOX_IMAGE").map(PathBuf::from);
    match vmm {
        None => say("a real VMM: skipped, because CLOUD_HYPERVISOR is not set"),
        Some(vmm) => {
            if wanted("idle") {
                idle::run(&vmm, resets()?).await?;
            }
            if wanted("fresh") {
                fresh::run(&vmm, resets()?).await?;
            }
            if wanted("confinement") {
                confinement::run(&vmm, resets()?).await?;
            }
            if wanted("sizes") {
                sizes::run(&vmm).await?;
            }
            if wanted("density") {
                density::run(&vmm).await?;
            }
            match image {
                None => say("a real guest: skipped, because CHV_SANDBOX_IMAGE is not set"),
                Some(image) if ["guest", "loop", "writing", "warm"].into_iter().any(wanted) => {
                    real_guest(&vmm, &image, wanted).await?;
                }
                Some(_) => {}
            }
        }
    }
    Ok(())
}

async fn real_guest(vmm: &Path, image: &Path, wanted: impl Fn(&str) -> bool) -> Outcome<()> {
    if wanted("warm") {
        warm::run(vmm, image, resets()?).await?;
    }
    if !["guest", "loop", "writing"].into_iter().any(&wanted) {
        return Ok(());
    }
    let guest = RealGuest::mint(vmm, image).await?;
    if wanted("guest") || wanted("loop") {
        let predecessor = guest.predecessor().await?;
        if wanted("guest") {
            strategies::run(&guest, predecessor.as_ref(), resets()?).await?;
        }
        if wanted("loop") {
            back_to_back::run(&guest, predecessor.as_ref(), resets()?).await?;
        }
        if let Some(predecessor) = predecessor {
            predecessor.stop().await;
        }
    }
    if wanted("writing") {
        writing::run(&guest, resets()?).await?;
    }
    Ok(())
}

fn resets() -> Outcome<usize> {
    Ok(match env::var("CHV_SANDBOX_RESETS") {
        Ok(count) => count.parse()?,
        Err(_) => 50,
    })
}

/// The memory of a real guest, in MiB.
fn memory_mib() -> Outcome<u64> {
    Ok(match env::var("CHV_SANDBOX_MEMORY_MIB") {
        Ok(mib) => mib.parse()?,
        Err(_) => 128,
    })
}

/// The factor for a guest's time limits.
fn patience() -> Outcome<u32> {
    Ok(match env::var("CHV_SANDBOX_PATIENCE") {
        Ok(factor) => factor.parse()?,
        Err(_) => 1,
    })
}

fn limits() -> Outcome<TimeLimits> {
    Ok(TimeLimits::default().scaled(patience()?))
}

fn disk(role: DiskRole, origin: PathBuf, readonly: bool) -> Disk {
    Disk {
        role,
        origin,
        readonly,
        format: DiskFormat::Raw,
    }
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn say(what: impl fmt::Display) {
    println!("{what}");
}
