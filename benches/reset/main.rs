//! What a reset costs, in three places, each against something.
//!
//! - On recordings: everything that a reset does on the host besides the VMM's work and the digests of disks.
//! - With `CLOUD_HYPERVISOR`: delete, overlay back, restore, resume and state of a VM that only idles, against the
//!   same calls and the same copy written by hand; the same by the size of the memory, mapped and copied; and what
//!   memory 1, 8 and 32 VMs of one snapshot take; and what the boundary around a VMM adds to its start and to a reset.
//! - With `CHV_SANDBOX_IMAGE` as well: whole resets of a real guest by each strategy, up to its last answer, against what
//!   the predecessor of this crate did, with `ch-remote`, `cp` and `sha256sum`. `CH_REMOTE` names `ch-remote`. And a
//!   reset with a tool that writes much memory, mapped against copied.
//!
//! `CHV_SANDBOX_RESETS` says how many resets of each kind (50 unless set), `CHV_SANDBOX_PATIENCE` multiplies the time that
//! a guest is given, `CHV_SANDBOX_MEMORY_MIB` is a real guest's memory (128 unless set). `RESET_BENCH` names one place alone:
//! `recordings`, `idle`, `confinement`, `sizes`, `density`, `guest` or `writing`.

#![expect(clippy::print_stdout, reason = "a bench prints what it found")]

mod confinement;
mod density;
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
mod recordings;
mod sizes;
mod used;

use std::env;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use chv_sandbox::machine::{Disk, DiskFormat, DiskRole, Limits};

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
        None => say("a real VMM: skipped, CLOUD_HYPERVISOR names none"),
        Some(vmm) => {
            if wanted("idle") {
                idle::run(&vmm, resets()?).await?;
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
                None => say("a real guest: skipped, CHV_SANDBOX_IMAGE names none"),
                Some(image) => {
                    for (place, part) in [
                        ("guest", guest::Part::Strategies),
                        ("writing", guest::Part::Writing),
                    ] {
                        if wanted(place) {
                            guest::run(&vmm, &image, part, resets()?).await?;
                        }
                    }
                }
            }
        }
    }
    Ok(())
}

fn resets() -> Outcome<usize> {
    Ok(match env::var("CHV_SANDBOX_RESETS") {
        Ok(count) => count.parse()?,
        Err(_) => 50,
    })
}

/// The memory of a real guest.
fn memory_mib() -> Outcome<u64> {
    Ok(match env::var("CHV_SANDBOX_MEMORY_MIB") {
        Ok(mib) => mib.parse()?,
        Err(_) => 128,
    })
}

/// By how much more time a guest is given than usual.
fn patience() -> Outcome<u32> {
    Ok(match env::var("CHV_SANDBOX_PATIENCE") {
        Ok(factor) => factor.parse()?,
        Err(_) => 1,
    })
}

fn limits() -> Outcome<Limits> {
    let (usual, factor) = (Limits::default(), patience()?);
    Ok(Limits {
        boot: usual.boot * factor,
        handshake: usual.handshake * factor,
        settle: usual.settle * factor,
        query: usual.query * factor,
        ..usual
    })
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
