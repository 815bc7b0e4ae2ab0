//! Checks that memory files can be sealed, and that there is enough memory for a golden snapshot.

use std::env;
use std::path::Path;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_get_seals, memfd_create};

use super::scratch::Scratch;
use super::{CheckId, Host, HostCheck, Remedy, nearest};
use crate::causes::Causes;
use crate::golden::{Golden, MemoryLimit, available_memory};
use crate::overlay::ImmutableFile;

const MIB: u64 = 1 << 20;

/// The default memory of a VM, in bytes.
const USUAL_MEMORY: u64 = 1024 * MIB;

/// Seals a copy of a small file, as it is done for the memory of a golden snapshot.
pub(super) fn check_memfd(host: &Host, run_root: &Path) -> HostCheck {
    let places = [nearest(run_root), env::temp_dir(), "/dev/shm".into()];
    let scratch = places.iter().find_map(|place| Scratch::create(place).ok());
    let file = scratch.as_ref().map(|scratch| scratch.file("memory"));
    let Some(Ok(file)) = file else {
        return HostCheck::not_found_out(
            CheckId::Memfd,
            "no directory accepts a file for the trial",
        );
    };
    let policy = host.sysctl("vm/memfd_noexec");
    match ImmutableFile::seal(&file) {
        Ok(sealed) => {
            let seals = fcntl_get_seals(&sealed).unwrap_or(SealFlags::empty());
            let never_executed = match seals.contains(SealFlags::EXEC) {
                true => "and never executed (MFD_NOEXEC_SEAL)",
                false => "without MFD_NOEXEC_SEAL (Linux 6.3)",
            };
            let policy = match executable_memfd() {
                true => String::new(),
                false => format!("; vm.memfd_noexec = {}", policy.as_deref().unwrap_or("2")),
            };
            HostCheck::good(CheckId::Memfd, format!("sealed {never_executed}{policy}"))
        }
        Err(error) => HostCheck::lacking(
            CheckId::Memfd,
            Causes(&error).to_string(),
            "a golden snapshot's memory can't be kept from changing",
            remedy(host, policy.as_deref()),
        ),
    }
}

/// Whether an executable memory file can be created. This crate needs none, but the result shows the policy.
fn executable_memfd() -> bool {
    memfd_create(c"doctor", MemfdFlags::CLOEXEC | MemfdFlags::EXEC).is_ok()
}

fn remedy(host: &Host, policy: Option<&str>) -> Option<Remedy> {
    if host.proc.join("self/fd").read_dir().is_err() {
        let command = host.caller.as_root("mount -t proc proc /proc");
        return Some(Remedy::new(command));
    }
    match policy {
        Some("2") => {
            let command = host.caller.as_root("sysctl -w vm.memfd_noexec=1");
            Some(Remedy::new(command))
        }
        _ if host.caller.container => {
            let command = "docker run --security-opt seccomp=unconfined ...";
            Some(
                Remedy::new(command)
                    .note("on the host, or use a seccomp profile that allows memfd_create"),
            )
        }
        _ => None,
    }
}

/// The memory that a golden snapshot needs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Memory {
    bytes: u64,
    /// Whether it was read from a golden snapshot that the caller named.
    known: bool,
    /// Whether fs-verity protects the snapshot's memory, so that no copy is made.
    protected: bool,
}

impl Memory {
    pub(super) fn of(golden: Option<&Golden>) -> Memory {
        let need = golden.and_then(|golden| golden.memory_need().ok());
        Memory {
            bytes: need.map_or(USUAL_MEMORY, |need| need.at_most),
            known: need.is_some(),
            protected: need.is_some_and(|need| need.none_with_fs_verity),
        }
    }
}

pub(super) fn check_memory(host: &Host, need: Memory) -> HostCheck {
    judge(host, need, available_memory())
}

fn judge(host: &Host, need: Memory, available: Option<(u64, MemoryLimit)>) -> HostCheck {
    let of = match need.known {
        true => "this golden snapshot's",
        false => "a usual golden snapshot's",
    };
    let needed = need.bytes.div_ceil(MIB);
    if need.protected {
        let found = format!("fs-verity protects {of} {needed} MiB: no copy is made");
        return HostCheck::good(CheckId::Memory, found);
    }
    let Some((available, limit)) = available else {
        let why = "neither /proc/meminfo nor the control groups can be read";
        return HostCheck::not_found_out(CheckId::Memory, why);
    };
    let by = match &limit {
        MemoryLimit::ControlGroup(path) => format!(", by memory.max of {}", path.display()),
        MemoryLimit::Machine | MemoryLimit::Configured => String::new(),
    };
    let available_mib = available / MIB;
    let found = format!("{available_mib} MiB for {of} {needed} MiB{by}");
    if available >= need.bytes {
        return HostCheck::good(CheckId::Memory, found);
    }
    let remedy = match &limit {
        _ if host.caller.container => {
            Remedy::new("docker run --memory 4g ...").note("on the host, to start this container")
        }
        MemoryLimit::ControlGroup(path) => {
            let write = format!("tee {}/memory.max", path.display());
            Remedy::new(format!("echo max | {}", host.caller.as_root(&write)))
        }
        MemoryLimit::Machine | MemoryLimit::Configured => {
            let fits = (available_mib / 2).max(64);
            let mint = format!("chv-sandbox golden mint --memory {fits} --image DIR --out DIR");
            Remedy::new(mint).note("or free memory")
        }
    };
    let lost = "each restore copies the guest's memory instead of mapping it";
    HostCheck::lacking(CheckId::Memory, found, lost, Some(remedy))
}

#[cfg(test)]
mod tests {
    use super::super::CheckStatus;
    use super::super::tests::{Place, text};
    use super::*;

    #[test]
    fn a_memory_file_is_sealed_here_and_nothing_stays() {
        let place = Place::new();
        let check = check_memfd(&place.host(), &place.path("run"));
        assert_eq!(check.status, CheckStatus::Good, "{check:?}");
        assert!(check.found.starts_with("sealed "), "{check:?}");
        assert!(place.names().is_empty());
    }

    #[test]
    fn what_keeps_memory_files_from_being_sealed_has_a_remedy() {
        let place = Place::new();
        place.write("proc/self/fd/0", "");
        let mut host = place.host();
        assert_eq!(remedy(&host, Some("0")), None);
        let command = remedy(&host, Some("2")).unwrap().command;
        assert_eq!(command, "sudo sysctl -w vm.memfd_noexec=1");
        host.caller.container = true;
        let found = remedy(&host, Some("0")).unwrap();
        assert!(found.command.contains("seccomp"), "{found}");
        host.proc = place.path("none");
        let found = remedy(&host, None).unwrap();
        assert_eq!(found.command, "sudo mount -t proc proc /proc");
    }

    #[test]
    fn too_little_memory_is_a_warning_with_what_limits_it() {
        let place = Place::new();
        let host = place.host();
        let mut need = Memory::of(None);
        let group = MemoryLimit::ControlGroup("/sys/fs/cgroup/a".into());
        let judged = |need, available, limit: &MemoryLimit| {
            judge(&host, need, Some((available * MIB, limit.clone())))
        };
        assert_eq!(
            judged(need, 1024, &MemoryLimit::Machine).status,
            CheckStatus::Good
        );
        let check = judged(need, 1023, &MemoryLimit::Machine);
        assert_eq!(check.status, CheckStatus::Warning);
        assert!(text(&check).contains("golden mint --memory 511"));
        let check = judged(need, 100, &group);
        assert!(text(&check).contains("echo max | sudo tee /sys/fs/cgroup/a/memory.max"));
        let shown = "/sys/fs/cgroup/a";
        assert_eq!(
            check.found,
            format!("100 MiB for a usual golden snapshot's 1024 MiB, by memory.max of {shown}")
        );
        need.protected = true;
        assert_eq!(judged(need, 1, &group).status, CheckStatus::Good);
        need.protected = false;
        let check = judge(&host, need, None);
        assert_eq!(check.status, CheckStatus::Warning);
        assert!(check.found.starts_with("not known: "), "{check:?}");
    }
}
