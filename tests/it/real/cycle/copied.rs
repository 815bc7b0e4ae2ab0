//! Resets whose memory the VMM copies: on request, and where the host lacks the memory for a sealed copy.

use chv_sandbox::golden::{CopyReason, MemoryBasis};
use chv_sandbox::sandbox::{MemoryMode, Sandbox, Strategy};

use super::figures::Figures;
use super::traces::Traces;
use super::{Stage, Stopwatch};
use crate::real::assert_nothing_left;

const RESETS: u32 = 5;

pub(super) async fn memory_is_copied_from_what_cannot_change_or_is_leased(stage: &Stage) {
    for (limit, basis) in [(None, MemoryBasis::Sealed), (Some(1), MemoryBasis::Leased)] {
        for (name, strategy) in [("in place", Strategy::InPlace), ("fresh", Strategy::Fresh)] {
            let golden = stage.origin().strategy(strategy);
            let sandbox = stage.sandbox_of(match limit {
                None => golden.memory(MemoryMode::Copied),
                Some(limit) => golden.memory_limit_mib(limit),
            });
            let watch = Stopwatch::start();
            sandbox.boot().await.unwrap();
            let clean = Traces::look(&sandbox).await;
            let mut figures = Figures::default();
            for _ in 0..RESETS {
                let report = clean.assert_comes_back(&sandbox).await.report;
                let memory = report.memory.as_ref().unwrap();
                assert_eq!((memory.mode, memory.basis), (MemoryMode::Copied, basis));
                let is_expected = match &memory.copied_because {
                    Some(CopyReason::ShortOfMemory(_)) => limit.is_some(),
                    Some(CopyReason::Configured) => limit.is_none(),
                    // On a release where mapping was not tried, memory is always copied.
                    Some(CopyReason::Release(_)) => true,
                    _ => false,
                };
                assert!(is_expected, "{:?}", memory.copied_because);
                figures.add(&report);
            }
            sandbox.shutdown().await;
            assert_nothing_left(stage.folder());
            watch.say(format!(
                "{name}: {RESETS} resets with memory copied, {basis:?}"
            ));
            println!("{figures}");
        }
    }
}
