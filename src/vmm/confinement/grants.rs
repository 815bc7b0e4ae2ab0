//! [`Grants`]: the files that a VMM may use in addition to its run directory.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

/// The files that a VMM may use in addition to its run directory: descriptors that it inherits, and files that it may
/// open by path.
#[derive(Debug, Default)]
pub struct Grants {
    /// Descriptors that the VMM inherits under the same numbers, which must be 3 or greater. This process closes its
    /// copies once the VMM has started. The VMM may open the files again through `/proc/self/fd`, with the access
    /// (reading, or reading and writing) that the descriptor has.
    pub descriptors: Vec<OwnedFd>,
    /// Files and folders that the VMM may read.
    pub reads: Vec<PathBuf>,
    /// Files that the VMM may write, and folders in which it may also create and remove files.
    pub writes: Vec<PathBuf>,
    /// The length in bytes of the largest file that the VMM may write; `None` for no limit.
    pub largest_file: Option<u64>,
}
