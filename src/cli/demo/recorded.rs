//! Runs the demo on the recorded answers of a real VMM, with a simulated guest.

use std::time::Duration;

use chv_sandbox::guest::protocol::DEFAULT_PORT;
use chv_sandbox::limits::TimeLimits;
use chv_sandbox::replay::{RecordedSession, RecordedVmm, ResetFailure};

use super::directory::Place;
use super::program::Program;
use super::steps::{Stage, play as perform};
use crate::cli::Failure;
use crate::cli::interrupt::Interrupt;

/// The disks' sizes, in bytes.
const ROOT_BYTES: u64 = 8 << 20;
const OVERLAY_BYTES: u64 = 64 << 20;

pub(super) async fn play(
    interrupt: &Interrupt,
    place: &Place,
    program: &mut Program,
) -> Result<(), Failure> {
    let session = RecordedSession::new()
        .resets(1)
        .then_a_failure(ResetFailure::ByCaller)
        .disks(ROOT_BYTES, OVERLAY_BYTES);
    let vmm = RecordedVmm::start(place.path(), &session).await?;
    program.begin(
        &format!("the recording of a real VMM, {}", vmm.release()),
        &[
            "the disks are real files, really hashed and put back",
            "the guest is a stand-in: its dispatcher is the real one, in this process, behind a real hybrid-vsock \
             socket; its descriptors, clock and random pool are made up",
            "checks that need a VMM process do not apply",
        ],
    );
    let stage = Stage {
        vmm: vmm.vmm_source(),
        shape: vmm.shape().clone(),
        disks: vmm.disks(),
        port: DEFAULT_PORT,
        limits: TimeLimits::default(),
        settle: Duration::from_secs(10),
    };
    perform(interrupt, place, stage, program).await?;
    Ok(vmm.finish().await?)
}
