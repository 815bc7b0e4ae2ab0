//! The resource limits of a VMM's process ([`rlimits`]).

use rustix::process::{Resource, Rlimit};

/// The limit on the number of descriptors. A VMM with many devices and queues has some hundreds.
const DESCRIPTORS: u64 = 4096;

/// Returns the limits: no core dump, since it would contain the guest's memory; few enough descriptors for `/proc` to
/// be searched quickly; and no file longer than `largest_file` bytes.
///
/// The limit on a file's length also applies to a memfd. The child ignores the signal that goes with this limit, so
/// that a write beyond the limit fails instead of killing the VMM.
pub(in crate::vmm) fn rlimits(largest_file: Option<u64>) -> Vec<(Resource, Rlimit)> {
    let both = |limit| Rlimit {
        current: Some(limit),
        maximum: Some(limit),
    };
    // A process can't raise its limits above those of this process.
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
