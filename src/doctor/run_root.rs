//! Checks the run root, and the Unix sockets in it.

use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, StatVfsMountFlags, openat, statvfs};

use super::scratch::Scratch;
use super::{CheckId, Host, HostCheck, Remedy, mount, nearest};
use crate::causes::Causes;
use crate::vmm::examine_run_root;

const MIB: u64 = 1 << 20;

/// The free space that the logs of a few VMMs need, in bytes. Their disks are not included.
const LEAST_SPACE: u64 = 16 * MIB;

/// Examines the run root as a start of a VMM does, and creates a directory in it, or in the directory where it would be
/// created.
pub(super) fn check(host: &Host, run_root: &Path) -> HostCheck {
    let lacking = |found: String, remedy| {
        let lost = "a VMM has no place for its sockets and disks";
        HostCheck::lacking(CheckId::RunRoot, found, lost, Some(remedy))
    };
    let there = match examine_run_root(run_root) {
        Ok(there) => there.is_some(),
        Err(error) => return lacking(Causes(&error).to_string(), remedy(run_root)),
    };
    let place = nearest(run_root);
    if let Err(error) = Scratch::create(&place).and_then(|scratch| scratch.file("file").map(drop)) {
        let place = mount::name(host, &place);
        let found = format!("{}: can't write to {place}: {error}", run_root.display());
        return lacking(found, another());
    }
    let Ok(space) = statvfs(&place) else {
        let why = format!("{} doesn't report its free space", place.display());
        return HostCheck::not_found_out(CheckId::RunRoot, why);
    };
    let free = space.f_bavail.saturating_mul(space.f_frsize);
    let shown = format!("{}, {} MiB free", mount::name(host, run_root), free / MIB);
    if free < LEAST_SPACE {
        return lacking(shown, another());
    }
    let created = if there { "" } else { ", not there yet" };
    let noexec = match space.f_flag.contains(StatVfsMountFlags::NOEXEC) {
        true => ", noexec is fine",
        false => "",
    };
    HostCheck::good(CheckId::RunRoot, format!("{shown}{created}{noexec}"))
}

/// The command to type for a run root that a start refuses.
pub(super) fn remedy(run_root: &Path) -> Remedy {
    let ours = |metadata: &fs::Metadata| {
        metadata.is_dir() && metadata.uid() == rustix::process::geteuid().as_raw()
    };
    let open_to_others = |metadata: &fs::Metadata| metadata.mode() & 0o022 != 0;
    match fs::symlink_metadata(run_root) {
        Ok(metadata) if ours(&metadata) && open_to_others(&metadata) => {
            Remedy::new(format!("chmod 700 {}", run_root.display()))
        }
        _ => another(),
    }
}

/// Another run root, with a short path that every user may create.
fn another() -> Remedy {
    Remedy::new("chv-sandbox doctor --run-root /tmp/chv-$(id -u)")
        .note("then give --run-root to every command, and run_root to every sandbox")
}

/// Connects to a socket without a name through `/proc/self/fd`, as it is done for the sockets of a VMM.
pub(super) fn check_vsock(host: &Host, run_root: &Path) -> HostCheck {
    let scratch = match Scratch::create(&nearest(run_root)) {
        Ok(scratch) => scratch,
        Err(error) => {
            let why = format!("no directory for a socket: {error}");
            return HostCheck::not_found_out(CheckId::Vsock, why);
        }
    };
    match reach_socket(host, &scratch.path().join("s")) {
        Ok(()) => {
            let found = "hybrid, by Unix sockets; no vhost_vsock is needed";
            HostCheck::good(CheckId::Vsock, found)
        }
        Err((step, error)) => {
            let found = format!("can't {step} a Unix socket: {error}");
            let remedy = match host.proc.join("self/fd").read_dir() {
                Ok(_) => None,
                Err(_) => Some(Remedy::new(host.caller.as_root("mount -t proc proc /proc"))),
            };
            let lost = "neither the VMM nor the guest can be reached";
            HostCheck::lacking(CheckId::Vsock, found, lost, remedy)
        }
    }
}

fn reach_socket(host: &Host, path: &Path) -> Result<(), (&'static str, io::Error)> {
    let failed = |step| move |error: io::Error| (step, error);
    let listener = UnixListener::bind(path).map_err(failed("bind"))?;
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let socket = openat(CWD, path, flags, Mode::empty());
    let socket = socket.map_err(|error| ("open", error.into()))?;
    fs::remove_file(path).map_err(failed("remove the name of"))?;
    let name = host.proc.join(format!("self/fd/{}", socket.as_raw_fd()));
    UnixStream::connect(name).map_err(failed("connect through /proc/self/fd to"))?;
    drop(listener);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use super::super::CheckStatus;
    use super::super::tests::{Place, text};
    use super::*;

    #[test]
    fn a_root_that_is_there_or_can_be_made_is_good_and_stays_as_it_is() {
        let place = Place::new();
        let root = place.path("run");
        let check = check(&place.host(), &root);
        assert_eq!(check.status, CheckStatus::Good, "{check:?}");
        assert!(check.found.contains("not there yet"), "{check:?}");
        assert!(place.names().is_empty());
        fs::create_dir(&root).unwrap();
        let check = super::check(&place.host(), &root);
        assert_eq!(check.status, CheckStatus::Good, "{check:?}");
        assert!(!check.found.contains("not there yet"), "{check:?}");
        assert_eq!(root.read_dir().unwrap().count(), 0);
    }

    #[test]
    fn what_is_wrong_with_a_root_is_said_with_what_to_do() {
        let place = Place::new();
        let refused = |root: &Path, found: &str, command: &str| {
            let check = check(&place.host(), root);
            assert_eq!(check.status, CheckStatus::Missing, "{check:?}");
            assert!(check.found.contains(found), "{check:?}");
            assert!(text(&check).contains(command), "{check:?}");
        };
        let open = place.path("open");
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, Permissions::from_mode(0o777)).unwrap();
        refused(
            &open,
            "other users can write",
            &format!("chmod 700 {}", open.display()),
        );
        let another = "--run-root /tmp/chv-$(id -u)";
        refused(&place.write("file", ""), "isn't a directory", another);
        refused(&place.path("file/below"), "can't be examined", another);
        refused(
            &place.path(&"x".repeat(100)),
            "must have less than 108",
            another,
        );
        // Even root can't create a directory there.
        refused(Path::new("/proc/chv"), "can't write to", another);
    }

    #[test]
    fn a_socket_is_reached_without_its_name() {
        let place = Place::new();
        let mut host = place.host();
        host.proc = "/proc".into();
        let good = check_vsock(&host, &place.path("run"));
        assert_eq!(good.status, CheckStatus::Good, "{good:?}");
        host.proc = place.path("none");
        let masked = check_vsock(&host, &place.path("run"));
        assert_eq!(masked.status, CheckStatus::Missing);
        assert!(text(&masked).contains("mount -t proc"), "{masked:?}");
        let nowhere = check_vsock(&host, Path::new("/proc/chv"));
        assert_eq!(nowhere.status, CheckStatus::Undecided);
        assert!(place.names().is_empty());
    }
}
