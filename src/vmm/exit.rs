//! [`Ended`]: how a VMM process ended, with the end of its log.

use std::fmt;

use super::EndedReceiver;
use super::output::without_backtraces;
use crate::sanitize::Quoted;

/// The end of a VMM process.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Ended {
    /// The process id that the VMM had.
    pub pid: u32,
    /// How the process ended.
    pub exit: Exit,
    /// The last 16 KiB of the VMM's log, as text that is [safe to show](crate::sanitize::lines).
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
    /// The process exited with this status: 0 is a clean end, 1 an error or a panic, 2 arguments that the VMM refused.
    Code(i32),
    /// This signal killed the process. 31 (SIGSYS) comes from the VMM's own seccomp filter.
    Signal(i32),
    /// The process has ended, but other code in this process took its exit status.
    Unknown,
}

impl Exit {
    /// Whether the process exited by itself with status 0.
    pub fn is_clean(self) -> bool {
        self == Exit::Code(0)
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let meaning = match self {
            Exit::Code(0) => " (clean)",
            Exit::Code(1) => " (an error or a panic)",
            Exit::Code(2) => " (bad arguments)",
            Exit::Signal(libc::SIGKILL) => {
                " (SIGKILL: sent by this process or, out of memory, by the kernel)"
            }
            Exit::Signal(libc::SIGTERM) => " (SIGTERM)",
            Exit::Signal(libc::SIGSYS) => " (SIGSYS: its seccomp filter)",
            Exit::Signal(libc::SIGSEGV | libc::SIGBUS | libc::SIGABRT) => " (a crash)",
            _ => "",
        };
        match self {
            Exit::Code(code) => write!(f, "exited with status {code}{meaning}"),
            Exit::Signal(signal) => write!(f, "was killed by signal {signal}{meaning}"),
            Exit::Unknown => f.write_str("ended; other code in this process took its exit status"),
        }
    }
}

/// Shows the end of a log after an error text, without backtraces. Shows nothing if the log is empty.
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
        // The spawner thread drops the sender only after it has reaped the child. If that thread is gone, the end can't
        // be known.
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::{Ended, Exit};

    #[test]
    fn an_end_is_shown_with_the_meaning_of_its_status() {
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
            "pid 7 exited with status 2 (bad arguments)",
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
            "pid 7 ended; other code in this process took its exit status",
        );
    }
}
