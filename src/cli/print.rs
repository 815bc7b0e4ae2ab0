//! `print!` and its like for the commands: those of the standard library panic where what they say can't be written.
//!
//! When the reader has closed the pipe, as `| head -1` does, a command goes on without a word: what it still has to do (to
//! shut a VM down, say) and its exit status don't depend on the reader. Another failure, as of a full disk, is kept, and
//! the command ends with [`Status::Undecided`](super::status::Status::Undecided) ([`failure`]).

use std::fmt;
use std::io::{self, ErrorKind, Write};
use std::sync::{Mutex, PoisonError};

/// The first failure to write to standard output, but for those of a pipe whose reader has closed it.
static FAILURE: Mutex<Option<Unwritten>> = Mutex::new(None);

/// Standard output could not be written to.
#[derive(Debug, thiserror::Error)]
#[error("cannot write to standard output")]
pub(super) struct Unwritten(#[source] io::Error);

/// Writes to standard output, without colours where it can't show them.
pub(super) fn output(text: fmt::Arguments<'_>) {
    match write(anstream::stdout().lock(), text) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            let mut failure = FAILURE.lock().unwrap_or_else(PoisonError::into_inner);
            failure.get_or_insert(Unwritten(error));
        }
        Ok(()) | Err(_) => {}
    }
}

/// Writes to standard error. If that fails there is nowhere left to say so.
pub(super) fn error(text: fmt::Arguments<'_>) {
    let _ = write(anstream::stderr().lock(), text);
}

/// The first failure to write, if there was one. It is returned once.
pub(super) fn failure() -> Option<Unwritten> {
    let mut failure = FAILURE.lock().unwrap_or_else(PoisonError::into_inner);
    failure.take()
}

fn write(mut to: impl Write, text: fmt::Arguments<'_>) -> io::Result<()> {
    to.write_fmt(text)?;
    to.flush()
}

macro_rules! print {
    ($($text:tt)*) => {
        $crate::cli::print::output(format_args!($($text)*))
    };
}

macro_rules! println {
    ($($text:tt)*) => {
        $crate::cli::print::output(format_args!("{}\n", format_args!($($text)*)))
    };
}

macro_rules! eprint {
    ($($text:tt)*) => {
        $crate::cli::print::error(format_args!($($text)*))
    };
}

macro_rules! eprintln {
    ($($text:tt)*) => {
        $crate::cli::print::error(format_args!("{}\n", format_args!($($text)*)))
    };
}
