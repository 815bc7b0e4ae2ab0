//! [`Causes`] shows an error together with its causes.
//!
//! The text of an error of this library does not contain the text of its [source](Error::source). So a log line or a
//! message that shows the error alone lacks the cause. [`Causes`] shows all of them, in one line or one by one.

use std::error::Error;
use std::fmt::{self, Write};
use std::iter;

/// Shows an error and its causes in one line, from the outermost error to the first cause, with `: ` between them. Line
/// breaks within their texts become `; `.
///
/// ```
/// # use std::io;
/// # use chv_sandbox::causes::Causes;
/// #[derive(Debug, thiserror::Error)]
/// #[error("the disk can't be copied")]
/// struct CopyError(#[source] io::Error);
///
/// let error = CopyError(io::ErrorKind::StorageFull.into());
/// assert_eq!(Causes(&error).to_string(), "the disk can't be copied: no storage space");
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Causes<'a>(pub &'a (dyn Error + 'static));

impl<'a> Causes<'a> {
    /// Iterates over the error itself, then its cause, then the cause of that one, and so on to the first cause.
    pub fn iter(self) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
        iter::successors(Some(self.0), |&error| error.source())
    }
}

impl fmt::Display for Causes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.iter().enumerate() {
            if index > 0 {
                f.write_str(": ")?;
            }
            write!(OneLine::new(f), "{error}")?;
        }
        Ok(())
    }
}

/// Writes a text on one line, with `; ` between what were its lines. Empty lines are left out.
struct OneLine<'a, W> {
    to: &'a mut W,
    has_text: bool,
    /// Whether a line break came after some text. The separator is written before the next text only, so that the
    /// result does not end with one.
    line_ended: bool,
}

impl<'a, W: Write> OneLine<'a, W> {
    fn new(to: &'a mut W) -> Self {
        OneLine {
            to,
            has_text: false,
            line_ended: false,
        }
    }
}

impl<W: Write> Write for OneLine<'_, W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for part in text.split_inclusive(['\n', '\r']) {
            let line = part.trim_end_matches(['\n', '\r']);
            if !line.is_empty() {
                if self.line_ended {
                    self.to.write_str("; ")?;
                    self.line_ended = false;
                }
                self.to.write_str(line)?;
                self.has_text = true;
            }
            self.line_ended |= self.has_text && line.len() < part.len();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Caused {
        text: &'static str,
        source: Option<Box<dyn Error + Send + Sync>>,
    }

    fn caused(text: &'static str, source: Option<Box<dyn Error + Send + Sync>>) -> Caused {
        Caused { text, source }
    }

    #[test]
    fn every_cause_is_shown() {
        let check = |error: &(dyn Error + 'static), expected: &str| {
            assert_eq!(Causes(error).to_string(), expected);
        };
        check(&caused("alone", None), "alone");
        let first = caused("no space", None);
        let second = caused("cannot write", Some(first.into()));
        let error = caused("cannot mint", Some(second.into()));
        check(&error, "cannot mint: cannot write: no space");
        let texts: Vec<_> = Causes(&error).iter().map(ToString::to_string).collect();
        assert_eq!(texts, ["cannot mint", "cannot write", "no space"]);
        // `io::Error` shows the wrapped error's text as its own, and its source is the source of the wrapped error.
        check(
            &io::Error::other(error),
            "cannot mint: cannot write: no space",
        );
    }

    #[test]
    fn the_result_is_one_line() {
        let check = |text: &'static str, expected: &str| {
            assert_eq!(
                Causes(&caused(text, None)).to_string(),
                expected,
                "{text:?}"
            );
            let inner = caused("first", None);
            let outer = caused(text, Some(inner.into()));
            assert_eq!(Causes(&outer).to_string(), format!("{expected}: first"));
        };
        check("", "");
        check("a\nb", "a; b");
        check("a\r\nb\rc\n", "a; b; c");
        check("\n\na\n\n\nb\n\n", "a; b");
        check("\n", "");
        check("a\n  b", "a;   b");
    }

    #[test]
    fn a_line_may_end_where_a_piece_of_the_text_ends() {
        let mut text = String::new();
        let mut line = OneLine::new(&mut text);
        for piece in ["a", "\r", "\n", "b", "", "c\n", "\n"] {
            line.write_str(piece).unwrap();
        }
        assert_eq!(text, "a; bc");
    }
}
