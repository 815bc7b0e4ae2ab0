//! Resets whose memory the VMM reads page by page, when the guest touches it. That proves nothing of the memory, so the
//! sandbox is told to trust it; everything else is verified as ever.

use chv_sandbox::golden::{Basis, MemoryPolicy};
use chv_sandbox::machine::RestoreMode;
use chv_sandbox::sandbox::{Sandbox, SandboxConfig, Standby, Strategy};

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
        let mut figures = Figures::default();
        let mut first = None;
        for _ in 0..RESETS {
            let report = clean.assert_comes_back(&sandbox).await.report;
            let restored = report.restore.as_ref().unwrap();
            let memory = report.memory.as_ref().unwrap();
            assert_eq!(restored.asked, RestoreMode::OnDemand);
            match restored.mode {
                RestoreMode::OnDemand => assert_eq!(restored.refusal, None),
                _ => assert!(restored.refusal.is_some(), "{restored:?}"),
            }
            // What a VMM can do doesn't change under way.
            assert_eq!(restored, first.get_or_insert_with(|| restored.clone()));
            assert_eq!((memory.basis, memory.confirmed), (Basis::Trusted, false));
            figures.add(&report);
        }
        sandbox.shutdown().await;
        assert_nothing_left(stage.folder());
        watch.say(format!(
            "{name}: {RESETS} resets with memory on demand, {first:?}"
        ));
        println!("{figures}");
    }
}
