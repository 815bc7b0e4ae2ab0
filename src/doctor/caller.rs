//! [`Caller`]: whether this process is root or in a container, which decides the commands that remedies name.

use std::env;
use std::path::Path;

/// The user and the surroundings of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Caller {
    /// Whether the process runs as root, so that no `sudo` is needed.
    pub(super) root: bool,
    /// Whether the process is in a container, where devices and settings come from outside.
    pub(super) container: bool,
}

impl Caller {
    pub(super) fn this() -> Caller {
        const MARKS: [&str; 3] = [
            "/.dockerenv",
            "/run/.containerenv",
            "/run/systemd/container",
        ];
        let marked = MARKS.iter().any(|mark| Path::new(mark).exists());
        Caller {
            root: rustix::process::geteuid().is_root(),
            container: marked || env::var_os("container").is_some(),
        }
    }

    /// `command`, with `sudo` before it unless the process is root.
    pub(super) fn as_root(self, command: &str) -> String {
        match self.root {
            true => command.to_owned(),
            false => format!("sudo {command}"),
        }
    }
}
