//! What one VMM is given beyond its own run directory.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

/// What a VMM is given beyond its own run directory: descriptors that it inherits, and files that it may open by their
/// paths.
#[derive(Debug, Default)]
pub struct Grants {
    /// Inherited, each under the number that it has here, which has to be beyond 2. Closed in this process once the VMM has
    /// started. A file among them may be opened again through `/proc/self/fd`, for as much as the descriptor is open for.
    pub descriptors: Vec<OwnedFd>,
    /// Files and folders that the VMM may read.
    pub reads: Vec<PathBuf>,
    /// Files that the VMM may write, and folders in which it may also create and remove files.
    pub writes: Vec<PathBuf>,
    /// The length of the largest file that it may write, in bytes; `None` sets no limit.
    pub largest_file: Option<u64>,
}
