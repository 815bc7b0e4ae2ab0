//! [`SharedTarget`]: the reset target and the spares that all sandboxes of one golden snapshot share. In a pool,
//! several sandboxes share one; a sandbox outside of a pool has its own.

use std::sync::Arc;

use super::call_activity::CallActivity;
use super::event_sender::Events;
use super::reset_target::ResetTarget;
use super::spares::Spares;
use super::{BootFailure, Error, GoldenOrigin, Strategy};
use crate::golden::{self, Golden, LoadedGolden, PublicKey, Trust};
use crate::limits::TimeLimits;
use crate::machine::VmmSource;
use crate::offload::blocking;

/// A reset target with its spare VMMs.
pub(super) struct SharedTarget {
    pub(super) target: Arc<ResetTarget>,
    /// `None` with [`Strategy::InPlace`], which needs no other VMM.
    pub(super) spares: Option<Spares>,
    /// The calls of all sandboxes that share this.
    pub(super) calls: CallActivity,
}

impl SharedTarget {
    /// A target that reverts machines from `source` to `golden`, with the settings of `origin` and within `limits`.
    /// Starts to prepare the spares at once. The spares report to `events`.
    pub(super) fn start(
        golden: Arc<LoadedGolden>,
        origin: &GoldenOrigin,
        source: &VmmSource,
        limits: TimeLimits,
        events: &Arc<Events>,
        calls: CallActivity,
    ) -> SharedTarget {
        let target = Arc::new(ResetTarget::new(golden, origin, source, limits));
        let spares = (origin.strategy_on(source) == Strategy::Fresh).then(|| {
            let capacity = origin.spares_of(target.memory()) as usize;
            let (events, calls) = (Arc::clone(events), calls.clone());
            Spares::start(Arc::clone(&target), capacity, events, calls)
        });
        SharedTarget {
            target,
            spares,
            calls,
        }
    }

    /// Kills the spares and makes no further ones. Later resets to this target use empty VMMs.
    pub(super) fn retire(&self) {
        if let Some(spares) = &self.spares {
            spares.retire();
        }
    }

    /// Kills the spares and ends the task that makes them. May be called again if the future of an earlier call was
    /// dropped.
    pub(super) async fn stop(&self) {
        if let Some(spares) = &self.spares {
            spares.stop().await;
        }
    }
}

/// Opens the golden snapshot of `origin`, verifies it against the configured key and digest, and makes its memory
/// immutable.
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
