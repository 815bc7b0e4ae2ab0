//! What sandboxes of one golden snapshot share: what they are reset to, and the VMMs that wait for their resets. A sandbox
//! that is on its own has one for itself.

use std::sync::Arc;

use super::calls::Calls;
use super::events::Events;
use super::reset_target::ResetTarget;
use super::spares::Spares;
use super::{BootFailure, Error, GoldenOrigin, Strategy};
use crate::golden::{self, Golden, LoadedGolden, PublicKey, Trust};
use crate::limits::TimeLimits;
use crate::machine::VmmSource;
use crate::offload::blocking;

/// A reset target with its spares.
pub(super) struct Supply {
    pub(super) target: Arc<ResetTarget>,
    /// Where other VMMs serve after a reset.
    pub(super) spares: Option<Spares>,
    /// The calls of its sandboxes.
    pub(super) calls: Calls,
}

impl Supply {
    /// Machines from `source` are reverted to `golden` as `origin` says, within `limits`. The spares are begun at once, and tell `events`.
    pub(super) fn start(
        golden: Arc<LoadedGolden>,
        origin: &GoldenOrigin,
        source: &VmmSource,
        limits: TimeLimits,
        events: &Arc<Events>,
        calls: Calls,
    ) -> Supply {
        let target = Arc::new(ResetTarget::new(golden, origin, source, limits));
        let spares = (origin.strategy_on(source) == Strategy::Fresh).then(|| {
            let capacity = origin.spares_of(target.memory()) as usize;
            let (events, calls) = (Arc::clone(events), calls.clone());
            Spares::start(Arc::clone(&target), capacity, events, calls)
        });
        Supply {
            target,
            spares,
            calls,
        }
    }

    /// Kills the VMMs that wait; resets go on in VMMs that are empty.
    pub(super) fn retire(&self) {
        if let Some(spares) = &self.spares {
            spares.retire();
        }
    }

    /// Kills the VMMs that wait. May be called again where an earlier call was dropped.
    pub(super) async fn stop(&self) {
        if let Some(spares) = &self.spares {
            spares.stop().await;
        }
    }
}

/// Opens the golden snapshot as configured, verifies it, and makes its memory immutable.
pub(super) async fn load(
    origin: &GoldenOrigin,
    source: &VmmSource,
) -> Result<Arc<LoadedGolden>, Error> {
    let directory = origin.directory.clone();
    let key = origin.public_key.clone();
    let digest = origin.digest;
    let mut options = origin.load_options();
    options.attached_vmm = matches!(source, VmmSource::Attach { .. });
    let loaded = blocking(move || {
        let key = key.map(|key| PublicKey::load(&key)).transpose();
        let trust = Trust {
            signed_by: key.map_err(golden::Error::Key)?,
            digest,
        };
        Golden::open_trusted(&directory, &trust)?.load(&options)
    });
    let loaded = loaded
        .await
        .map_err(|error| Error::BootFailed(Arc::new(BootFailure::Golden(error))))?;
    tracing::info!(memory = ?loaded.memory(), "the golden snapshot is loaded");
    Ok(Arc::new(loaded))
}
