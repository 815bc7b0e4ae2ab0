//! [`Stop`]: lets another thread stop a pack.

use std::sync::atomic::{AtomicBool, Ordering};

use super::Error;

/// A flag that long operations check between their steps.
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

    /// Fails with [`Error::Stopped`] if a stop was requested.
    pub(super) fn check(self) -> Result<(), Error> {
        match self.is_requested() {
            true => Err(Error::Stopped),
            false => Ok(()),
        }
    }
}
