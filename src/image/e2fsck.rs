//! [`E2fsck`]: checks a filesystem with `e2fsck`.

use std::path::{Path, PathBuf};

use super::{Error, program::Program, stop::Stop};

/// An installed `e2fsck`.
pub(super) struct E2fsck {
    program: Program,
}

impl E2fsck {
    /// Searches `directories` in their order.
    pub(super) fn find(directories: &[PathBuf]) -> Option<E2fsck> {
        Program::find("e2fsck", directories).map(|program| E2fsck { program })
    }

    /// Checks the whole filesystem in `image` without changing it. `scratch` is a directory for its messages.
    pub(super) fn run(&self, image: &Path, scratch: &Path, stop: Stop<'_>) -> Result<(), Error> {
        let mut command = self.program.command();
        command
            .args(["-f", "-n"])
            .arg(image)
            .env("E2FSCK_CONFIG", "/dev/null");
        let ended = self.program.run(command, image, scratch, stop)?;
        if ended.status.success() {
            return Ok(());
        }
        Err(Error::FilesystemErrors {
            path: image.into(),
            status: ended.status,
            messages: ended.messages,
        })
    }
}
