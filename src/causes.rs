//! Errors in log lines, events and files: one line with the whole chain of causes.

use std::error::Error;
use std::fmt;

/// Shows an error and its causes in one line, from the outermost to the first: `the VMM did not resume the VM: ...`.
///
/// ```ignore
/// tracing::warn!(error = %Causes(&error), "the run directory stays");
/// ```
#[derive(Clone, Copy)]
pub(crate) struct Causes<'a>(pub(crate) &'a (dyn Error + 'static));

impl fmt::Display for Causes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::Causes;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot read the file")]
    struct Outer(#[source] io::Error);

    #[test]
    fn every_cause_is_shown() {
        let error = Outer(io::Error::other("no space"));
        assert_eq!(Causes(&error).to_string(), "cannot read the file: no space");
    }
}
