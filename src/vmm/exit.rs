//! How a VMM process ended.

use std::fmt;

use super::EndedReceiver;
use super::output::without_backtraces;
use crate::sanitize::Quoted;

/// The end of a VMM process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// The process id that it had.
    pub pid: u32,
    /// How it ended.
    pub exit: Exit,
    /// The last 16 KiB of its log, as text that is [safe to show](crate::sanitize::lines).
    pub log_tail: String,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "pid {} {}{}",
            self.pid,
            self.exit,
            LogTail(&self.log_tail)
        )
    }
}

/// How a process ended. The meanings of codes and signals are those of Cloud Hypervisor v51.2 to v53.0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Exit {
    /// It exited with this status: 0 clean, 1 an error or a panic, 2 arguments that it doesn't take.
    Code(i32),
    /// This signal killed it. 31 (SIGSYS) is its own seccomp filter.
    Signal(i32),
    /// It is gone, and somebody else in this process took its status.
    Unknown,
}

impl Exit {
    /// Whether it ended of its own will and without an error.
    pub fn is_clean(self) -> bool {
        self == Exit::Code(0)
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let meaning = match self {
            Exit::Code(0) => " (clean)",
            Exit::Code(1) => " (an error or a panic)",
            Exit::Code(2) => " (its arguments)",
            Exit::Signal(libc::SIGKILL) => " (SIGKILL: by us, or out of memory)",
            Exit::Signal(libc::SIGTERM) => " (SIGTERM)",
            Exit::Signal(libc::SIGSYS) => " (SIGSYS: its seccomp filter)",
            Exit::Signal(libc::SIGSEGV | libc::SIGBUS | libc::SIGABRT) => " (a crash)",
            _ => "",
        };
        match self {
            Exit::Code(code) => write!(f, "exited with status {code}{meaning}"),
            Exit::Signal(signal) => write!(f, "was killed by signal {signal}{meaning}"),
            Exit::Unknown => f.write_str("ended; its status was taken by somebody else"),
        }
    }
}

/// Shows the end of a log after a message, without backtraces, or nothing if there is none.
pub(super) struct LogTail<'a>(pub(super) &'a str);

impl fmt::Display for LogTail<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match without_backtraces(self.0).trim_end() {
            "" => Ok(()),
            tail => write!(f, "; its log ends:\n{}", Quoted(tail)),
        }
    }
}

/// Waits for the end of the process.
pub(super) async fn wait(mut ended: EndedReceiver) -> Ended {
    let last = match ended.wait_for(Option::is_some).await {
        Ok(ended) => ended.clone(),
        Err(_) => None,
    };
    match last {
        Some(ended) => ended,
        // The spawner thread never drops a child that it hasn't reaped: without that thread nothing is known.
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::{Ended, Exit};

    #[test]
    fn an_end_says_what_it_means() {
        fn check(exit: Exit, log_tail: &str, expected: &str) {
            let ended = Ended {
                pid: 7,
                exit,
                log_tail: log_tail.to_owned(),
            };
            assert_eq!(ended.to_string(), expected);
        }

        check(Exit::Code(0), "", "pid 7 exited with status 0 (clean)");
        check(
            Exit::Code(1),
            "Error: no\n",
            "pid 7 exited with status 1 (an error or a panic); its log ends:\n  | Error: no",
        );
        check(
            Exit::Code(2),
            "\n",
            "pid 7 exited with status 2 (its arguments)",
        );
        check(
            Exit::Code(1),
            "Error: no\n\nStack backtrace:\n   0: main\n",
            "pid 7 exited with status 1 (an error or a panic); its log ends:\n  | Error: no",
        );
        check(Exit::Code(3), "", "pid 7 exited with status 3");
        check(
            Exit::Signal(31),
            "",
            "pid 7 was killed by signal 31 (SIGSYS: its seccomp filter)",
        );
        check(
            Exit::Unknown,
            "",
            "pid 7 ended; its status was taken by somebody else",
        );
    }
}
