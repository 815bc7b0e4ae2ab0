//! Who asks, which decides what there is to type.

use std::env;
use std::path::Path;

/// The user and the place of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Caller {
    /// Whether it is root, so that no `sudo` is needed.
    pub(super) root: bool,
    /// Whether it is in a container, where devices and settings come from outside.
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

    /// `command`, which needs root.
    pub(super) fn as_root(self, command: &str) -> String {
        match self.root {
            true => command.to_owned(),
            false => format!("sudo {command}"),
        }
    }
}
