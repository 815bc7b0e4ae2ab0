//! Which layers this host has, each tried.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::thread::{UnshareFlags, unshare_unsafe};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// One layer of the boundary around a VMM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Layer {
    /// The environment holds an allow-list alone.
    Environment,
    /// All descriptors are closed at exec but those that are handed over.
    Descriptors,
    /// The process and its children can gain no privilege.
    NoNewPrivs,
    /// Limits of the process's resources.
    Rlimits,
    /// No capability, and none in the bounding set.
    Capabilities,
    /// One Landlock domain.
    Landlock,
    /// A user, network, IPC and process namespace of its own.
    Namespaces,
    /// A control group of its own.
    Cgroup,
}

impl Layer {
    /// Every layer, in the order of the reports.
    pub const ALL: [Layer; 8] = [
        Layer::Environment,
        Layer::Descriptors,
        Layer::NoNewPrivs,
        Layer::Rlimits,
        Layer::Capabilities,
        Layer::Landlock,
        Layer::Namespaces,
        Layer::Cgroup,
    ];

    /// The name in configurations and reports.
    pub fn name(self) -> &'static str {
        match self {
            Layer::Environment => "environment",
            Layer::Descriptors => "descriptors",
            Layer::NoNewPrivs => "no_new_privs",
            Layer::Rlimits => "rlimits",
            Layer::Capabilities => "capabilities",
            Layer::Landlock => "landlock",
            Layer::Namespaces => "namespaces",
            Layer::Cgroup => "cgroup",
        }
    }
}

/// Whether a layer can be made on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Availability {
    /// It can.
    Here {
        /// What was seen.
        detail: String,
    },
    /// It can't.
    Missing {
        /// Why not.
        reason: String,
    },
}

/// The layers that depend on the host, each tried.
pub(super) fn available() -> Vec<(Layer, Availability)> {
    let told = |tried: Result<String, String>| match tried {
        Ok(detail) => Availability::Here { detail },
        Err(reason) => Availability::Missing { reason },
    };
    vec![
        (Layer::Landlock, told(landlock())),
        (Layer::Namespaces, told(namespaces())),
        (Layer::Cgroup, told(cgroup())),
    ]
}

fn landlock() -> Result<String, String> {
    /// `LANDLOCK_CREATE_RULESET_VERSION` of the kernel's `linux/landlock.h`.
    const VERSION: libc::c_ulong = 1;
    let nothing = std::ptr::null::<libc::c_void>();
    // SAFETY: with this flag the call takes no attributes and returns a number.
    let abi =
        unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, nothing, 0_usize, VERSION) };
    match abi {
        1.. => Ok(format!("ABI {abi}")),
        _ => Err(io::Error::last_os_error().to_string()),
    }
}

/// A child makes the namespaces and maps its user, and ends before it executes anything.
fn namespaces() -> Result<String, String> {
    let made = UnshareFlags::NEWUSER
        .union(UnshareFlags::NEWNET)
        .union(UnshareFlags::NEWIPC)
        .union(UnshareFlags::NEWPID);
    let user = rustix::process::geteuid().as_raw();
    let map = format!("{user} {user} 1");
    let mut command = Command::new("/");
    let trial = move || {
        // SAFETY: the child has one thread, and no table of descriptors is unshared.
        unsafe { unshare_unsafe(made) }?;
        let flags = rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::CLOEXEC;
        let file = rustix::fs::open(c"/proc/self/uid_map", flags, rustix::fs::Mode::empty())?;
        rustix::io::write(&file, map.as_bytes())?;
        Err(io::Error::from_raw_os_error(libc::ECANCELED))
    };
    // SAFETY: the closure makes bare system calls on memory that was allocated before, takes no lock and allocates
    // nothing: an `io::Error` made from a number is just the number.
    unsafe {
        command.pre_exec(trial);
    }
    match command.spawn() {
        Err(error) if error.raw_os_error() == Some(libc::ECANCELED) => {
            Ok("user, network, IPC and process namespaces".to_owned())
        }
        Err(error) => Err(error.to_string()),
        Ok(mut child) => {
            let _ = child.kill().and_then(|()| child.wait());
            Err("the trial did not end where it should".to_owned())
        }
    }
}

/// Makes a group below this process's own, which goes at once. This process stays where it is.
fn cgroup() -> Result<String, String> {
    let own = own_group(Path::new("/proc/self/cgroup"), Path::new("/sys/fs/cgroup"))?;
    let trial = own.join(format!("chv-{:08x}", Uuid::new_v4().as_fields().0));
    let made = DirBuilder::new().mode(0o755).create(&trial);
    made.map_err(|error| format!("{} is not delegated: {error}", own.display()))?;
    let removed = fs::remove_dir(&trial);
    removed.map_err(|error| format!("{}: {error}", trial.display()))?;
    Ok(format!("v2, {} is delegated", own.display()))
}

fn own_group(own: &Path, groups: &Path) -> Result<PathBuf, String> {
    if !groups.join("cgroup.controllers").exists() {
        return Err(format!("no cgroup v2 at {}", groups.display()));
    }
    let text = fs::read_to_string(own).map_err(|error| format!("{}: {error}", own.display()))?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::/"));
    let path = path.ok_or_else(|| format!("{} has no group of version 2", own.display()))?;
    Ok(groups.join(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_trial_comes_to_an_end() {
        let tried = available();
        assert_eq!(tried.len(), 3);
        for (layer, availability) in tried {
            let (Availability::Here { detail: text } | Availability::Missing { reason: text }) =
                availability;
            assert!(!text.is_empty(), "{layer:?}");
        }
    }

    #[test]
    fn the_own_group_is_found_where_version_2_is_mounted() {
        let place = tempfile::tempdir().unwrap();
        let (own, groups) = (place.path().join("own"), place.path().join("groups"));
        fs::write(&own, "1:cpu:/x\n0::/a/b\n").unwrap();
        let error = own_group(&own, &groups).unwrap_err();
        assert!(error.starts_with("no cgroup v2 at "), "{error}");
        fs::create_dir(&groups).unwrap();
        fs::write(groups.join("cgroup.controllers"), "").unwrap();
        assert_eq!(own_group(&own, &groups).unwrap(), groups.join("a/b"));
        fs::write(&own, "1:cpu:/x\n").unwrap();
        own_group(&own, &groups).unwrap_err();
    }
}
