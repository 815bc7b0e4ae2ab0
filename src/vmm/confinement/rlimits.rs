//! The limits of a VMM's resources.

use rustix::process::{Resource, Rlimit};

/// Descriptors that a VMM may have open. One with many devices and queues has some hundreds.
const DESCRIPTORS: u64 = 4096;

/// The limits: no core dump, which would hold the guest's memory; a number of descriptors that can be looked through;
/// and no file longer than `largest_file` bytes.
///
/// A limit of the length also applies to a memfd. The signal that goes with it is ignored, so that a write beyond it fails
/// instead of killing the VMM.
pub(in crate::vmm) fn rlimits(largest_file: Option<u64>) -> Vec<(Resource, Rlimit)> {
    let both = |limit| Rlimit {
        current: Some(limit),
        maximum: Some(limit),
    };
    // A limit that this process has already can't be raised.
    let at_most = |resource, limit: u64| {
        let present = rustix::process::getrlimit(resource);
        both(present.maximum.map_or(limit, |present| present.min(limit)))
    };
    let mut limits = vec![
        (Resource::Core, both(0)),
        (Resource::Nofile, at_most(Resource::Nofile, DESCRIPTORS)),
    ];
    if let Some(length) = largest_file {
        limits.push((Resource::Fsize, at_most(Resource::Fsize, length)));
    }
    limits
}
