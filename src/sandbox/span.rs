//! The tracing span `reset`. Its fields are the strategy, the VMM, the verdict and the number of the last attempt. Each
//! step of the reset is an event inside the span, with the step's name and duration.

use tracing::Span;
use tracing::field::{Empty, display};

use super::{Error, Reset};

/// The span of a reset that begins now. Its fields are empty until [`record`].
pub(super) fn reset() -> Span {
    tracing::info_span!(
        "reset",
        strategy = Empty,
        vmm = Empty,
        verdict = Empty,
        attempt = Empty
    )
}

/// Fills the fields of the span from the result of the reset.
pub(super) fn record(span: &Span, result: &Result<Reset, Error>) {
    span.record("verdict", verdict(result));
    let outcome = match result {
        Ok(reset) => Some(reset.outcome()),
        Err(error) => error.failed_reset().map(|failed| &failed.outcome),
    };
    if let Some(outcome) = outcome {
        span.record("strategy", display(outcome.report.strategy));
        span.record("vmm", outcome.report.vmm.map(display));
        span.record("attempt", outcome.report.attempt);
    }
}

fn verdict(result: &Result<Reset, Error>) -> &'static str {
    match result {
        Ok(Reset::Verified(_)) => "verified",
        Ok(Reset::Scaffold(_)) => "scaffold",
        Err(Error::ResetDivergence(_)) => "diverged",
        Err(Error::ResetTimeout(_)) => "silent",
        Err(Error::ShutDown) => "shut_down",
        Err(_) => "failed",
    }
}
