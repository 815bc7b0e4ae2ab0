//! [`MemoryAvailability`] tells how much memory this process may still take. A golden snapshot checks it before it
//! makes a sealed copy of its memory, because the kernel kills a process that exceeds a limit, without an error before.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

/// Less memory is available than a sealed copy may take.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Shortage {
    /// The memory that the copy may take, in bytes. This is its full size, since a hole takes memory once a VMM reads
    /// it through a mapping.
    pub needed: u64,
    /// The available memory, in bytes.
    pub available: u64,
    /// The limit that leaves so little.
    pub limit: MemoryLimit,
}

/// A limit on the memory that this process may take.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MemoryLimit {
    /// The limit in the configuration.
    Configured,
    /// The host's available memory: `MemAvailable` of `/proc/meminfo`.
    Machine,
    /// `memory.max` of this process's control group (version 2), or of one above it. The path is the group's directory.
    ControlGroup(PathBuf),
}

impl std::error::Error for Shortage {}

impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MIB: u64 = 1 << 20;
        let (needed, available) = (self.needed.div_ceil(MIB), self.available / MIB);
        write!(f, "{needed} MiB of memory are needed and ")?;
        match &self.limit {
            MemoryLimit::Configured => write!(f, "{available} MiB are configured"),
            MemoryLimit::Machine => write!(f, "this machine has {available} MiB available"),
            MemoryLimit::ControlGroup(path) => write!(
                f,
                "the control group {} leaves {available} MiB",
                path.display()
            ),
        }
    }
}

/// The files of the host that tell how much memory is available. A file that can't be read sets no limit.
#[derive(Clone, Debug)]
pub(super) struct MemoryAvailability {
    meminfo: PathBuf,
    own_groups: PathBuf,
    groups: PathBuf,
}

/// Returns how many bytes of memory this process may still take, and the limit that says so; `None` if no limit can be
/// read.
pub(crate) fn available_memory() -> Option<(u64, MemoryLimit)> {
    MemoryAvailability::default().least()
}

impl Default for MemoryAvailability {
    fn default() -> Self {
        MemoryAvailability {
            meminfo: "/proc/meminfo".into(),
            own_groups: "/proc/self/cgroup".into(),
            groups: "/sys/fs/cgroup".into(),
        }
    }
}

impl MemoryAvailability {
    /// Checks that `needed` bytes are available within the `configured` limit, on the host and in each control group.
    ///
    /// # Errors
    ///
    /// [`Shortage`] with the first limit that leaves less.
    pub(super) fn check(&self, needed: u64, configured: Option<u64>) -> Result<(), Shortage> {
        let configured = configured.map(|limit| (limit, MemoryLimit::Configured));
        let limits = configured.into_iter().chain(self.limits());
        for (available, limit) in limits {
            if available < needed {
                return Err(Shortage {
                    needed,
                    available,
                    limit,
                });
            }
        }
        Ok(())
    }

    /// Returns the tightest limit with the bytes that it leaves; `None` if no limit can be read.
    pub(super) fn least(&self) -> Option<(u64, MemoryLimit)> {
        self.limits().min_by_key(|(available, _)| *available)
    }

    fn limits(&self) -> impl Iterator<Item = (u64, MemoryLimit)> {
        let machine = self.available_on_machine();
        let machine = machine.map(|available| (available, MemoryLimit::Machine));
        machine.into_iter().chain(self.in_groups())
    }

    fn available_on_machine(&self) -> Option<u64> {
        let text = fs::read_to_string(&self.meminfo).ok()?;
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("MemAvailable:"))?;
        let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        kib.checked_mul(1024)
    }

    /// Returns the bytes that each control group with a limit leaves, from this process's own group upwards.
    fn in_groups(&self) -> Vec<(u64, MemoryLimit)> {
        let Ok(own) = fs::read_to_string(&self.own_groups) else {
            return Vec::new();
        };
        // `0::` marks the line of version 2. Groups of version 1 have other files, which are not read.
        let Some(own) = own.lines().find_map(|line| line.strip_prefix("0::/")) else {
            return Vec::new();
        };
        let nearest = self.groups.join(own);
        let groups = nearest.ancestors();
        let groups = groups.take_while(|group| group.starts_with(&self.groups));
        groups
            .filter_map(|group| {
                Some((left_in(group)?, MemoryLimit::ControlGroup(group.to_owned())))
            })
            .collect()
    }
}

/// Returns the bytes that a control group leaves below its `memory.max`; `None` if it has no limit. Cached file pages
/// count as free, since the kernel reclaims them.
fn left_in(group: &Path) -> Option<u64> {
    let read = |name: &str| fs::read_to_string(group.join(name)).ok();
    let max: u64 = read("memory.max")?.trim().parse().ok()?;
    let current: u64 = read("memory.current")?.trim().parse().ok()?;
    let stat = read("memory.stat").unwrap_or_default();
    let field = |name: &str| -> u64 {
        let mut lines = stat.lines().filter_map(|line| line.split_once(' '));
        let value = lines.find(|(field, _)| *field == name);
        value.and_then(|(_, value)| value.parse().ok()).unwrap_or(0)
    };
    let reclaimable = field("file").saturating_sub(field("shmem"));
    Some(max.saturating_sub(current.saturating_sub(reclaimable)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// A host with 100 MiB available whose control groups are `a` and `a/b`. Each limit is the group's name,
    /// `memory.max`, `memory.current` and the bytes of cached files.
    fn machine(limits: &[(&str, &str, u64, u64)]) -> (tempfile::TempDir, MemoryAvailability) {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(
            path("meminfo"),
            "MemTotal: 1 kB\nMemAvailable:   102400 kB\n",
        )
        .unwrap();
        fs::write(path("own"), "1:cpu:/x\n0::/a/b\n").unwrap();
        fs::create_dir_all(path("groups/a/b")).unwrap();
        for (group, max, current, file) in limits {
            let group = path("groups").join(group);
            fs::write(group.join("memory.max"), format!("{max}\n")).unwrap();
            fs::write(group.join("memory.current"), format!("{current}\n")).unwrap();
            let stat = format!("anon 5\nfile {file}\nshmem 0\n");
            fs::write(group.join("memory.stat"), stat).unwrap();
        }
        let headroom = MemoryAvailability {
            meminfo: path("meminfo"),
            own_groups: path("own"),
            groups: path("groups"),
        };
        (folder, headroom)
    }

    #[track_caller]
    fn check(
        headroom: &MemoryAvailability,
        needed: u64,
        configured: Option<u64>,
        expected: Option<&str>,
    ) {
        let found = headroom.check(needed * MIB, configured.map(|mib| mib * MIB));
        let found = found.err().map(|shortage| shortage.to_string());
        match (&found, expected) {
            (None, None) => {}
            (Some(found), Some(expected)) => assert!(found.contains(expected), "{found}"),
            _ => panic!("{found:?}, not {expected:?}"),
        }
    }

    #[test]
    fn the_machine_and_the_configuration_limit() {
        let (_folder, headroom) = machine(&[]);
        check(&headroom, 100, None, None);
        check(&headroom, 101, None, Some("this machine has 100 MiB"));
        check(&headroom, 50, Some(50), None);
        check(&headroom, 51, Some(50), Some("50 MiB are configured"));
    }

    #[test]
    fn the_own_control_group_and_each_one_above_it_limit() {
        let limits = [("a/b", "max", 0, 0), ("a", "83886080", 31457280, 10485760)];
        let (_folder, headroom) = machine(&limits);
        check(&headroom, 60, None, None);
        check(&headroom, 61, None, Some("groups/a leaves 60 MiB"));
        let (left, limit) = headroom.least().unwrap();
        assert_eq!(left, 60 * MIB);
        assert!(matches!(limit, MemoryLimit::ControlGroup(path) if path.ends_with("groups/a")));
        let (_folder, headroom) = machine(&[("a/b", "1048576", 2097152, 0)]);
        check(&headroom, 1, None, Some("groups/a/b leaves 0 MiB"));
    }

    #[test]
    fn files_that_cannot_be_read_set_no_limit() {
        let none = PathBuf::from("/nonexistent");
        let headroom = MemoryAvailability {
            meminfo: none.clone(),
            own_groups: none.clone(),
            groups: none,
        };
        check(&headroom, 1 << 30, None, None);
        assert_eq!(headroom.least(), None);
        check(&MemoryAvailability::default(), 1, None, None);
    }
}
