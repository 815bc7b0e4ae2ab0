//! [`Cgroup`]: the control group of a VMM.
//!
//! A library should not change the control groups of the program that uses it. So a VMM gets a group only below a
//! configured parent, or below this process's own group if a service manager has delegated that group to this process
//! (the extended attribute `user.delegate` or `trusted.delegate`, as systemd sets it). This process itself is never
//! moved.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use serde::Deserialize;

use crate::causes::Causes;

/// The parent of the VMMs' control groups, and the limits of each group. A limit that is `None` isn't set, so only the
/// limits of the parent apply. If a group can't be made or one of its limits can't be set, the VMM gets no group, and
/// the layer [`Cgroup`](super::Layer::Cgroup) is reported as missing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct CgroupConfig {
    /// An existing cgroup v2 directory in which this user may make groups. With `None`, the default, it is this
    /// process's own group if a service manager has delegated that group to this process (the extended attribute
    /// `user.delegate` or `trusted.delegate` is `1`, as systemd sets it with `Delegate=yes`). Otherwise the VMMs get no
    /// control group.
    pub parent: Option<PathBuf>,
    /// The limit of memory for one VMM with its guest, in MiB (`memory.max`). Memory of a golden snapshot that guests
    /// share is charged to the VMM that touched it first.
    pub memory_max_mib: Option<u64>,
    /// The limit on the number of processes and threads of one VMM (`pids.max`).
    pub pids_max: Option<u32>,
    /// The limit of CPU time for one VMM, in percent of one CPU (`cpu.max`): 150 is one CPU and a half.
    pub cpu_max_percent: Option<u32>,
}

/// The period in which CPU time is counted, in microseconds. It is the kernel's default.
const CPU_PERIOD: u64 = 100_000;

impl CgroupConfig {
    fn limits(&self) -> impl Iterator<Item = (&'static str, &'static str, String)> {
        let memory = self.memory_max_mib.map(|mib| mib.saturating_mul(1 << 20));
        let cpu = self.cpu_max_percent.map(|percent| {
            let quota = u64::from(percent) * CPU_PERIOD / 100;
            format!("{quota} {CPU_PERIOD}")
        });
        [
            (
                "memory",
                "memory.max",
                memory.map(|bytes| bytes.to_string()),
            ),
            (
                "pids",
                "pids.max",
                self.pids_max.map(|pids| pids.to_string()),
            ),
            ("cpu", "cpu.max", cpu),
        ]
        .into_iter()
        .filter_map(|(controller, file, value)| Some((controller, file, value?)))
    }

    /// Returns the directory below which groups are made, or the reason why there is none.
    fn parent(&self) -> Result<PathBuf, String> {
        match &self.parent {
            Some(parent) => Ok(parent.clone()),
            None => delegated(),
        }
    }
}

/// A control group that was made for one VMM. Dropping it removes the group, which must be empty by then.
#[derive(Debug)]
pub(in crate::vmm) struct Cgroup {
    path: PathBuf,
    /// The file `cgroup.procs`. The child enters the group by writing to it.
    pub(in crate::vmm) procs: File,
    /// The limits as text, for the report of the layer.
    pub(in crate::vmm) detail: String,
}

impl Cgroup {
    /// Makes the group `name` with its limits, or returns the reason why it can't.
    pub(in crate::vmm) fn create(config: &CgroupConfig, name: &str) -> Result<Cgroup, String> {
        let parent = config.parent()?;
        if open_group(&parent).is_err() {
            return Err(format!("{} is no cgroup v2 directory", parent.display()));
        }
        for (controller, ..) in config.limits() {
            // This fails if the parent itself contains processes. Writing the limit below fails then too, and is
            // reported.
            let enabled = fs::write(
                parent.join("cgroup.subtree_control"),
                format!("+{controller}"),
            );
            if let Err(error) = enabled {
                tracing::debug!(
                    parent = %parent.display(), controller, error = %Causes(&error),
                    "a controller of a control group could not be enabled"
                );
            }
        }
        let path = parent.join(name);
        let refused =
            |action: &str, error: io::Error| format!("{action} {} failed: {error}", path.display());
        fs::create_dir(&path).map_err(|error| refused("making", error))?;
        let made = Made(&path);
        let mut details = Vec::new();
        for (_, file, value) in config.limits() {
            fs::write(path.join(file), &value)
                .map_err(|error| refused(&format!("setting {file} of"), error))?;
            details.push(format!("{file} {value}"));
        }
        let procs = File::options().write(true).open(path.join("cgroup.procs"));
        let procs = procs.map_err(|error| refused("opening cgroup.procs of", error))?;
        std::mem::forget(made);
        if details.is_empty() {
            details.push("no limits".to_owned());
        }
        Ok(Cgroup {
            path,
            procs,
            detail: details.join(", "),
        })
    }

    /// The group's directory.
    pub(in crate::vmm) fn path(&self) -> &Path {
        &self.path
    }

    /// Kills every process in the group.
    pub(in crate::vmm) fn kill(&self) {
        kill(&self.path);
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        remove(&self.path);
    }
}

/// Removes the group of a start that failed.
struct Made<'a>(&'a Path);

impl Drop for Made<'_> {
    fn drop(&mut self) {
        remove(self.0);
    }
}

/// Opens a control group's directory, and refuses any other directory. The record that names the path may be forged,
/// and files below another directory must not be written to.
fn open_group(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let directory = rustix::fs::open(path, flags, Mode::empty())?;
    match rustix::fs::fstatfs(&directory)?.f_type == libc::CGROUP2_SUPER_MAGIC {
        true => Ok(directory.into()),
        false => Err(io::Error::other("it is no cgroup v2 directory")),
    }
}

/// Kills every process in the group at `path` (`cgroup.kill`, Linux 5.14).
pub(in crate::vmm) fn kill(path: &Path) {
    let kill = || -> io::Result<()> {
        let group = open_group(path)?;
        let flags = OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = rustix::fs::openat(&group, "cgroup.kill", flags, Mode::empty())?;
        rustix::io::write(&file, b"1")?;
        Ok(())
    };
    if let Err(error) = kill()
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(
            path = %path.display(), error = %Causes(&error),
            "cannot kill the processes of a control group"
        );
    }
}

/// How long the removal of a group waits for the end of killed processes.
const REMOVAL_LIMIT: Duration = Duration::from_secs(1);

/// Removes the group at `path` once it is empty. Its processes must have ended or been killed before.
pub(in crate::vmm) fn remove(path: &Path) {
    let deadline = Instant::now() + REMOVAL_LIMIT;
    loop {
        match fs::remove_dir(path) {
            Ok(()) => return,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                if wait_for_change(path, deadline).is_ok_and(|changed| changed) {
                    continue;
                }
                tracing::warn!(path = %path.display(), error = %Causes(&error), "cannot remove a control group");
                return;
            }
            Err(error) => {
                tracing::warn!(path = %path.display(), error = %Causes(&error), "cannot remove a control group");
                return;
            }
        }
    }
}

/// Waits until `cgroup.events` of the group changes, as it does when the group becomes empty. Returns `false` if it has
/// not changed by `deadline`.
fn wait_for_change(path: &Path, deadline: Instant) -> io::Result<bool> {
    let events = File::open(path.join("cgroup.events"))?;
    // `poll` reports only changes after this read.
    if io::read_to_string(&events)?.contains("populated 0") {
        return Ok(Instant::now() < deadline);
    }
    let left = deadline.saturating_duration_since(Instant::now());
    let left = Timespec::try_from(left).unwrap_or_default();
    let mut changed = [PollFd::new(&events, PollFlags::PRI)];
    Ok(poll(&mut changed, Some(&left))? > 0)
}

/// Returns this process's own group if it was delegated, else the reason why there is none.
fn delegated() -> Result<PathBuf, String> {
    let own = fs::read_to_string("/proc/self/cgroup")
        .map_err(|error| format!("/proc/self/cgroup can't be read: {error}"))?;
    let path = own.lines().find_map(|line| line.strip_prefix("0::/"));
    let path = path.ok_or("this process is in no cgroup v2")?;
    let mounts = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].map(Path::new);
    let mount = mounts.into_iter().find(|mount| open_group(mount).is_ok());
    let directory = mount.ok_or("no cgroup v2 is mounted")?.join(path);
    let is_delegated = ["user.delegate", "trusted.delegate"]
        .into_iter()
        .any(|name| {
            let mut value = [0; 8];
            let read = rustix::fs::getxattr(&directory, name, &mut value);
            read.is_ok_and(|length| value.get(..length) == Some(b"1"))
        });
    match is_delegated {
        true => Ok(directory),
        false => {
            Err("no parent is configured, and this process's own group isn't delegated".into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_written_as_the_kernel_reads_it() {
        let config = CgroupConfig {
            memory_max_mib: Some(512),
            pids_max: Some(64),
            cpu_max_percent: Some(150),
            ..CgroupConfig::default()
        };
        let limits: Vec<_> = config
            .limits()
            .map(|(_, file, value)| (file, value))
            .collect();
        let expected = [
            ("memory.max", "536870912"),
            ("pids.max", "64"),
            ("cpu.max", "150000 100000"),
        ];
        assert_eq!(
            limits,
            expected.map(|(file, value)| (file, value.to_owned()))
        );
    }

    #[test]
    fn a_folder_that_is_no_cgroup_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let config = CgroupConfig {
            parent: Some(folder.path().to_owned()),
            ..CgroupConfig::default()
        };
        let reason = Cgroup::create(&config, "vmm").unwrap_err();
        assert!(reason.contains("no cgroup v2 directory"), "{reason}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_directory_that_is_no_control_group_is_not_written_to() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("cgroup.kill");
        fs::write(&file, "precious").unwrap();
        kill(folder.path());
        assert_eq!(fs::read(&file).unwrap(), b"precious");
        remove(folder.path());
        assert!(file.exists());
    }
}
