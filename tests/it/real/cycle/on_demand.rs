//! Resets whose memory the VMM reads page by page, when the guest touches it. That proves nothing of the memory, so the
//! sandbox is told to trust it; everything else is verified as ever.

use chv_sandbox::golden::{Basis, MemoryPolicy};
use chv_sandbox::machine::RestoreMode;
use chv_sandbox::sandbox::{Reset, Sandbox, SandboxConfig, Standby, Strategy};

use super::figures::Figures;
use super::traces::Traces;
use super::{Stage, Stopwatch};
use crate::real::assert_nothing_left;

const RESETS: u32 = 10;

pub(super) async fn memory_comes_back_or_is_copied_instead(stage: &Stage) {
    for (name, strategy) in [
        ("in_place", Strategy::InPlace),
        ("standby", Strategy::Standby(Standby::default())),
    ] {
        let sandbox = stage.sandbox_of(SandboxConfig {
            strategy,
            restore_mode: RestoreMode::OnDemand,
            memory_policy: MemoryPolicy::Trust,
            ..SandboxConfig::with_golden(stage.golden.directory())
        });
        let watch = Stopwatch::start();
        sandbox.boot().await.unwrap();
        let clean = Traces::look(&sandbox).await;
        let mut modes = Vec::new();
        let mut figures = Figures::default();
        for n in 0..RESETS {
            Traces::leave(&sandbox).await;
            let reset = sandbox.reset().await;
            let reset = reset.unwrap_or_else(|error| panic!("reset {n}: {error:?}"));
            let Reset::Verified(outcome) = reset else {
                panic!("reset {n} verified nothing");
            };
            let restored = outcome.report.restore.as_ref().unwrap();
            let memory = outcome.report.memory.as_ref().unwrap();
            assert_eq!(restored.asked, RestoreMode::OnDemand);
            match restored.mode {
                RestoreMode::OnDemand => assert_eq!(restored.refusal, None),
                _ => assert!(restored.refusal.is_some(), "{restored:?}"),
            }
            assert_eq!((memory.basis, memory.confirmed), (Basis::Trusted, false));
            figures.add(&outcome.report);
            modes.push(restored.clone());
            Traces::look(&sandbox).await.assert_gone(&clean);
        }
        // What a VMM can do doesn't change under way.
        assert!(modes.iter().all(|restored| *restored == modes[0]));
        sandbox.shutdown().await;
        assert_nothing_left(stage.folder());
        watch.say(format!(
            "{name}: {RESETS} resets with memory on demand, {:?}",
            modes[0]
        ));
        println!("{figures}");
    }
}
