//! Checks that KVM exists, and that this user may use it.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

use super::{CheckId, Host, HostCheck, Remedy};
use crate::vmm::{NoKvm, open_kvm};

const LOST: &str = "no VM can run";

/// `KVM_GET_API_VERSION` and `KVM_CREATE_VM` of the kernel's `linux/kvm.h`.
const GET_API_VERSION: libc::c_ulong = 0xae00;
const CREATE_VM: libc::c_ulong = 0xae01;

/// The version of the API since Linux 2.6.22. The kernel's documentation says that it will not change.
const API_VERSION: i32 = 12;

pub(super) fn check(host: &Host) -> HostCheck {
    let device = match open_kvm(&host.kvm) {
        Ok(device) => device,
        Err(NoKvm { device, source }) => {
            let found = format!("{}: {source}", device.display());
            return lacking(found, remedy(host, &source));
        }
    };
    let shown = host.kvm.display();
    match call(&device, GET_API_VERSION) {
        Ok(API_VERSION) => {}
        Ok(other) => {
            let found = format!("{shown} has version {other} of the KVM API, not {API_VERSION}");
            return lacking(found, None);
        }
        Err(_) => {
            let found = format!("{shown} is no device of KVM");
            return lacking(found, load_module(host));
        }
    }
    match create_vm(&device) {
        Ok(()) => HostCheck::good(CheckId::Kvm, format!("{shown} can create VMs")),
        Err(error) => {
            let found = format!("{shown} can be opened, but creates no VM: {error}");
            let command = host.caller.as_root("dmesg | grep -i kvm");
            let note = "another hypervisor may hold the CPU's virtualization";
            lacking(found, Some(Remedy::new(command).note(note)))
        }
    }
}

fn lacking(found: String, remedy: Option<Remedy>) -> HostCheck {
    HostCheck::lacking(CheckId::Kvm, found, LOST, remedy)
}

fn call(device: &File, number: libc::c_ulong) -> io::Result<i32> {
    // SAFETY: both calls take an integer, here 0, and the kernel accesses no memory of this process.
    match unsafe { libc::ioctl(device.as_raw_fd(), number as _, 0) } {
        -1 => Err(io::Error::last_os_error()),
        answer => Ok(answer),
    }
}

/// Creates a VM without memory or vCPUs, and closes it at once.
fn create_vm(device: &File) -> io::Result<()> {
    let vm = call(device, CREATE_VM)?;
    // SAFETY: the kernel has just created this descriptor, and no other value owns it.
    drop(unsafe { OwnedFd::from_raw_fd(vm) });
    Ok(())
}

/// The command to type if the device can't be opened.
pub(super) fn remedy(host: &Host, error: &io::Error) -> Option<Remedy> {
    let denied = error.kind() == io::ErrorKind::PermissionDenied;
    // Only a container's list of allowed devices denies root a device.
    if host.caller.container && (host.caller.root || !denied) {
        let command = "docker run --device /dev/kvm ...";
        return Some(Remedy::new(command).note("on the host, to start this container"));
    }
    match denied {
        true => Some(get_right(host)),
        false => load_module(host),
    }
}

/// The remedy if the device exists, but this user may not use it.
fn get_right(host: &Host) -> Remedy {
    const GROUP_MAY: u32 = 0o060;
    let metadata = fs::metadata(&host.kvm).ok();
    let group = metadata
        .filter(|metadata| metadata.mode() & GROUP_MAY == GROUP_MAY && metadata.gid() != 0)
        .and_then(|metadata| group_name(host, metadata.gid()));
    match group {
        Some(group) => {
            Remedy::new(format!("sudo usermod -aG {group} $USER")).note("then log in again")
        }
        None => {
            let command = format!("setfacl -m u:$USER:rw {}", host.kvm.display());
            Remedy::new(host.caller.as_root(&command)).note("until the next boot")
        }
    }
}

fn group_name(host: &Host, gid: u32) -> Option<String> {
    let text = fs::read_to_string(&host.groups).ok()?;
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let has_gid = fields.nth(1)?.parse() == Ok(gid);
        has_gid.then(|| name.to_owned())
    })
}

/// The remedy if the kernel has no KVM: the module isn't loaded, or the CPU reports no virtualization.
fn load_module(host: &Host) -> Option<Remedy> {
    let cpu = fs::read_to_string(host.proc.join("cpuinfo")).unwrap_or_default();
    let flags = cpu.lines().find(|line| line.starts_with("flags"));
    let has = |flag: &str| flags.is_some_and(|flags| flags.split(' ').any(|has| has == flag));
    let module = match (has("vmx"), has("svm"), flags) {
        (true, _, _) => "kvm_intel",
        (_, true, _) => "kvm_amd",
        // Other architectures have KVM built in, or as this module.
        (_, _, None) => "kvm",
        // Only the firmware, or the hypervisor of this VM, can enable it.
        _ => {
            let note = "if it prints nothing: enable virtualization in the firmware, or nested virtualization on the host of this VM";
            return Some(Remedy::new("grep -E 'vmx|svm' /proc/cpuinfo").note(note));
        }
    };
    let command = host.caller.as_root(&format!("modprobe {module}"));
    Some(Remedy::new(command))
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use super::super::CheckStatus;
    use super::super::tests::{Place, text};
    use super::*;

    #[test]
    fn without_a_device_the_module_of_the_cpu_is_named() {
        let place = Place::new();
        let check = |cpuinfo: &str, expected: &str| {
            place.write("proc/cpuinfo", cpuinfo);
            let check = check(&place.host());
            assert_eq!(check.status, CheckStatus::Missing);
            assert_eq!(check.lost.as_deref(), Some(LOST));
            assert!(check.found.contains("No such file"), "{check:?}");
            let remedy = text(&check);
            assert!(remedy.contains(expected), "{remedy}");
        };
        check("flags\t\t: fpu vmx sse\n", "sudo modprobe kvm_intel");
        check("flags\t\t: fpu svm sse\n", "sudo modprobe kvm_amd");
        check(
            "flags\t\t: fpu svmx sse\n",
            "enable virtualization in the firmware",
        );
        check("Features\t: fp\n", "sudo modprobe kvm`");
    }

    #[test]
    fn without_the_right_the_group_of_the_device_is_named() {
        let place = Place::new();
        let device = place.write("kvm", "");
        let gid = fs::metadata(&device).unwrap().gid();
        place.write("group", &format!("root:x:0:\nvirt:x:{gid}:you\n"));
        let denied = io::Error::from(io::ErrorKind::PermissionDenied);
        fs::set_permissions(&device, Permissions::from_mode(0o660)).unwrap();
        let expected = if gid == 0 {
            format!("sudo setfacl -m u:$USER:rw {}", device.display())
        } else {
            "sudo usermod -aG virt $USER".to_owned()
        };
        let found = remedy(&place.host(), &denied).unwrap();
        assert_eq!(found.command, expected);
        fs::set_permissions(&device, Permissions::from_mode(0o600)).unwrap();
        let found = remedy(&place.host(), &denied).unwrap();
        assert!(found.command.starts_with("sudo setfacl"), "{found}");
        assert_eq!(group_name(&place.host(), gid + 1), None);
    }

    #[test]
    fn in_a_container_the_device_comes_from_outside() {
        let place = Place::new();
        let mut host = place.host();
        host.caller.container = true;
        let remedy = text(&check(&host));
        assert!(remedy.contains("docker run --device /dev/kvm"), "{remedy}");
        let denied = io::Error::from(io::ErrorKind::PermissionDenied);
        let told = super::remedy(&host, &denied).unwrap().command;
        assert!(told.starts_with("sudo "), "{told}");
        host.caller.root = true;
        let told = super::remedy(&host, &denied).unwrap().command;
        assert!(told.starts_with("docker run "), "{told}");
    }

    #[test]
    fn another_file_is_no_kvm() {
        let place = Place::new();
        place.write("kvm", "");
        let check = check(&place.host());
        assert_eq!(check.status, CheckStatus::Missing);
        assert!(check.found.contains("is no device of KVM"), "{check:?}");
    }
}
