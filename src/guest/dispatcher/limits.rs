//! [`Limits`]: how much memory, how many processes and how many files a tool may use.

use rustix::process::Resource;

pub(super) const MIB: u64 = 1024 * 1024;

/// The limits of a tool. A limit that is `None` is that of the dispatcher's own process; for `output_mib`, `None` means
/// no limit. Core files are never written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Memory in MiB. With a control group: the used memory of all processes of a run together. Without one: the
    /// private writable memory of each process (`RLIMIT_DATA`).
    pub memory_mib: Option<u64>,
    /// The number of processes and threads. With a control group: those of one run. Without one: those of the tools'
    /// user, of all tools together.
    pub processes: Option<u64>,
    /// The number of open descriptors of each process.
    pub open_files: Option<u64>,
    /// The size of a file that a tool writes, in MiB.
    pub file_size_mib: Option<u64>,
    /// How much output of a run with streams is sent, of both streams together, in MiB. The rest is read, counted and
    /// dropped.
    pub output_mib: Option<u64>,
}

impl Default for Limits {
    /// 512 MiB, 64 processes, 256 open files, files up to 256 MiB, output without a limit.
    fn default() -> Limits {
        Limits {
            memory_mib: Some(512),
            processes: Some(64),
            open_files: Some(256),
            file_size_mib: Some(256),
            output_mib: None,
        }
    }
}

impl Limits {
    /// No limit at all.
    pub(super) const NONE: Limits = Limits {
        memory_mib: None,
        processes: None,
        open_files: None,
        file_size_mib: None,
        output_mib: None,
    };

    /// These limits, each replaced by that of the tool's `own` limits if there is one.
    pub(super) fn with(&self, own: &Limits) -> Limits {
        let either = |here: Option<u64>, own: Option<u64>| here.map(|here| own.unwrap_or(here));
        Limits {
            memory_mib: either(self.memory_mib, own.memory_mib),
            processes: either(self.processes, own.processes),
            open_files: either(self.open_files, own.open_files),
            file_size_mib: either(self.file_size_mib, own.file_size_mib),
            output_mib: own.output_mib.or(self.output_mib),
        }
    }

    /// The limits that `setrlimit` sets. If there is a control group, it enforces memory and processes, which are left
    /// out here.
    pub(super) fn resources(&self, has_cgroup: bool) -> impl Iterator<Item = (Resource, u64)> {
        let mib = |size: u64| size.saturating_mul(MIB);
        let without_group = |limit: Option<u64>| limit.filter(|_| !has_cgroup);
        [
            (Resource::Data, without_group(self.memory_mib).map(mib)),
            (Resource::Nproc, without_group(self.processes)),
            (Resource::Nofile, self.open_files),
            (Resource::Fsize, self.file_size_mib.map(mib)),
            (Resource::Core, Some(0)),
        ]
        .into_iter()
        .filter_map(|(resource, limit)| Some((resource, limit?)))
    }
}
