//! `print!`, `println!`, `eprint!` and `eprintln!` for the commands. The macros of the standard library panic if the
//! text can't be written.
//!
//! When the reader has closed the pipe, as `| head -1` does, a command continues silently: its remaining work (such as
//! shutting a VM down) and its exit status don't depend on the reader. Any other failure, such as a full disk, is kept
//! for [`failure`], and the command ends with [`Status::Undecided`](super::status::Status::Undecided).

use std::fmt;
use std::io::{self, ErrorKind, Write};
use std::sync::{Mutex, PoisonError};

/// The first failure to write to standard output. A pipe that the reader closed is not a failure.
static FAILURE: Mutex<Option<Unwritten>> = Mutex::new(None);

/// Standard output could not be written to.
#[derive(Debug, thiserror::Error)]
#[error("cannot write to standard output")]
pub(super) struct Unwritten(#[source] io::Error);

/// Writes to standard output. Strips colours if it isn't a terminal that shows them.
pub(super) fn output(text: fmt::Arguments<'_>) {
    match write(anstream::stdout().lock(), text) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            let mut failure = FAILURE.lock().unwrap_or_else(PoisonError::into_inner);
            failure.get_or_insert(Unwritten(error));
        }
        Ok(()) | Err(_) => {}
    }
}

/// Writes to standard error. A failure is ignored, because there is no other place to report it.
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
        $crate::cli::stdout::output(format_args!($($text)*))
    };
}

macro_rules! println {
    ($($text:tt)*) => {
        $crate::cli::stdout::output(format_args!("{}\n", format_args!($($text)*)))
    };
}

macro_rules! eprint {
    ($($text:tt)*) => {
        $crate::cli::stdout::error(format_args!($($text)*))
    };
}

macro_rules! eprintln {
    ($($text:tt)*) => {
        $crate::cli::stdout::error(format_args!("{}\n", format_args!($($text)*)))
    };
}
