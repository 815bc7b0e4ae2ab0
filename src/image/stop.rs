//! Stopping a pack that is under way, from another thread.

use std::sync::atomic::{AtomicBool, Ordering};

use super::Error;

/// Looked at between the steps of what takes long.
#[derive(Clone, Copy)]
pub(super) struct Stop<'a>(&'a AtomicBool);

impl<'a> Stop<'a> {
    /// Stops once `flag` is set.
    pub(super) fn at(flag: &'a AtomicBool) -> Stop<'a> {
        Stop(flag)
    }

    /// Never stops.
    pub(super) fn never() -> Stop<'static> {
        static NEVER: AtomicBool = AtomicBool::new(false);
        Stop(&NEVER)
    }

    pub(super) fn is_requested(self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// [`Error::Stopped`] if it is to stop.
    pub(super) fn check(self) -> Result<(), Error> {
        match self.is_requested() {
            true => Err(Error::Stopped),
            false => Ok(()),
        }
    }
}
