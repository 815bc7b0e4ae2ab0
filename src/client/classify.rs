//! Turns an error of the server into its [`ErrorKind`], from its status and its message chain together.
//!
//! The status alone isn't enough: v53.0 answers 404 where earlier releases answer 500. Every row was seen on a running
//! VMM of each release that its comment names. The tests below and the cassettes have the exact answers.

use super::ErrorKind;
use crate::api::Operation;

/// A row of the table. A condition that is `None` matches anything.
struct Rule {
    operation: Option<Operation>,
    status: Option<u16>,
    /// A part of any message in the chain.
    says: Option<&'static str>,
    kind: ErrorKind,
}

const fn says(words: &'static str, kind: ErrorKind) -> Rule {
    Rule {
        operation: None,
        status: None,
        says: Some(words),
        kind,
    }
}

const fn says_on(operation: Operation, words: &'static str, kind: ErrorKind) -> Rule {
    Rule {
        operation: Some(operation),
        status: None,
        says: Some(words),
        kind,
    }
}

const fn status(status: u16, kind: ErrorKind) -> Rule {
    Rule {
        operation: None,
        status: Some(status),
        says: None,
        kind,
    }
}

/// The first row that matches decides; an error that no row matches is [`ErrorKind::Rejected`].
const RULES: &[Rule] = &[
    // Too many connections (503), or a resize before the earlier one is done (429).
    status(429, ErrorKind::Busy),
    status(503, ErrorKind::Busy),
    // The HTTP thread still answers, the thread that does the work is gone: "sending on …" or "receiving on …".
    says("on a closed channel", ErrorKind::VmmGone),
    // v53.0, on boot of a running or paused VM; up to v52.0 a state transition, as below.
    says_on(
        Operation::VmBoot,
        "VM is already created",
        ErrorKind::WrongState,
    ),
    says("VM is already created", ErrorKind::AlreadyCreated),
    // 404 on v53.0, 500 before.
    says("VM is not created", ErrorKind::NotCreated),
    says("VM config is missing", ErrorKind::NotCreated),
    says("VM is not running", ErrorKind::WrongState),
    says("InvalidStateTransition", ErrorKind::WrongState),
    says("invalid VM state transition", ErrorKind::WrongState),
    says("snapshot while VM is running", ErrorKind::WrongState),
    // Read in v53.0's source (`vmm/src/vm.rs`); not provoked.
    says("VM is currently migrating", ErrorKind::Busy),
    says("The file is already locked", ErrorKind::LockConflict),
    // v46.0, on boot and on vm.add-disk, whose errors are one text each. (v44.0 locks no disks at all.)
    says(": Error locking disk images", ErrorKind::LockConflict),
    says("error: AlreadyLocked", ErrorKind::LockConflict),
];

/// The kind of an answer that isn't a success.
pub(super) fn classify(operation: Operation, status: u16, messages: &[String]) -> ErrorKind {
    if is_unknown_route(status, messages) {
        return ErrorKind::NotSupported {
            what: operation.name().to_owned(),
            since: operation.since(),
            until: operation.until(),
            server: None,
        };
    }
    RULES
        .iter()
        .find(|rule| rule.matches(operation, status, messages))
        .map_or(ErrorKind::Rejected, |rule| rule.kind.clone())
}

/// Whether the server doesn't have the path: it answers 404 with `["Not Found"]`, or without a body in older releases.
fn is_unknown_route(status: u16, messages: &[String]) -> bool {
    status == 404
        && match messages {
            [] => true,
            [only] => only == "Not Found",
            _ => false,
        }
}

impl Rule {
    fn matches(&self, operation: Operation, status: u16, messages: &[String]) -> bool {
        self.operation.is_none_or(|wanted| wanted == operation)
            && self.status.is_none_or(|wanted| wanted == status)
            && self
                .says
                .is_none_or(|words| messages.iter().any(|message| message.contains(words)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ErrorKind::{
        AlreadyCreated, Busy, LockConflict, NotCreated, Rejected, VmmGone, WrongState,
    };

    /// The releases that an answer was seen on.
    const ALL: &str = "v51.2 v52.0 v53.0";
    const OLDER: &str = "v51.2 v52.0";
    const V53: &str = "v53.0";
    const V51: &str = "v51.2";

    fn check(releases: &str, operation: &str, status: u16, chain: &[&str], kind: ErrorKind) {
        let operation = *Operation::ALL
            .iter()
            .find(|o| o.name() == operation)
            .expect("an operation of the API");
        let messages: Vec<String> = chain.iter().map(|&message| message.to_owned()).collect();
        assert_eq!(
            classify(operation, status, &messages),
            kind,
            "{operation} on {releases}: {status} {chain:?}"
        );
    }

    /// An error of the VMM's core: the HTTP thread puts one line on top.
    fn api(releases: &str, operation: &str, status: u16, chain: &[&str], kind: ErrorKind) {
        let chain = [&["Error from API"], chain].concat();
        check(releases, operation, status, &chain, kind);
    }

    #[test]
    fn without_a_vm() {
        let needing_one = [
            ("vm.info", "The VM info is not available"),
            ("vm.reboot", "The VM could not reboot"),
            ("vm.resize", "The VM could not be resized"),
            ("vm.resize-disk", "The disk could not be resized"),
            ("vm.resize-zone", "The memory zone could not be resized"),
            ("vm.add-device", "The device could not be added to the VM"),
            (
                "vm.remove-device",
                "The device could not be removed from the VM",
            ),
            ("vm.add-disk", "The disk could not be added to the VM"),
            ("vm.add-fs", "The fs could not be added to the VM"),
            (
                "vm.add-pmem",
                "The pmem device could not be added to the VM",
            ),
            (
                "vm.add-net",
                "The network device could not be added to the VM",
            ),
            (
                "vm.add-vsock",
                "The vsock device could not be added to the VM",
            ),
            (
                "vm.add-vdpa",
                "The vDPA device could not be added to the VM",
            ),
            (
                "vm.add-user-device",
                "The user device could not be added to the VM",
            ),
        ];
        for (operation, failed) in needing_one {
            api(
                V53,
                operation,
                404,
                &[failed, "VM is not created"],
                NotCreated,
            );
            api(
                OLDER,
                operation,
                500,
                &[failed, "VM is not created"],
                NotCreated,
            );
        }
        let boot = ["The VM could not boot", "VM config is missing"];
        api(V53, "vm.boot", 404, &boot, NotCreated);
        api(OLDER, "vm.boot", 500, &boot, NotCreated);
    }

    #[test]
    fn without_a_running_vm() {
        let needing_it = [
            ("vm.counters", "The VM info is not available"),
            ("vm.pause", "The VM could not be paused"),
            ("vm.resume", "The VM could not resume"),
            ("vm.shutdown", "The VM could not shutdown"),
            ("vm.power-button", "Error triggering power button"),
            ("vm.nmi", "Error triggering NMI"),
            ("vm.snapshot", "The VM could not be snapshotted"),
        ];
        for (operation, failed) in needing_it {
            api(
                ALL,
                operation,
                500,
                &[failed, "VM is not running"],
                WrongState,
            );
        }
        api(
            V53,
            "vm.send-migration",
            500,
            &[
                "Error dispatching the migration worker",
                "Failed to send migratable component snapshot",
                "VM is not running",
            ],
            WrongState,
        );
        // Up to v52.0 the same call ends the VMM.
        let gone = [
            "API response receive error",
            "receiving on a closed channel",
        ];
        api(OLDER, "vm.send-migration", 500, &gone, VmmGone);
    }

    #[test]
    fn with_a_vm_already() {
        let created = "VM is already created";
        api(
            ALL,
            "vm.create",
            500,
            &["The VM could not be created", created],
            AlreadyCreated,
        );
        api(
            ALL,
            "vm.restore",
            500,
            &["The VM could not be restored", created],
            AlreadyCreated,
        );
        api(
            V53,
            "vm.boot",
            500,
            &["The VM could not boot", created],
            WrongState,
        );
        let transition = "invalid VM state transition: Running to Running";
        api(
            OLDER,
            "vm.boot",
            500,
            &["The VM could not boot", transition],
            WrongState,
        );
        api(
            ALL,
            "vm.resume",
            500,
            &[
                "The VM could not resume",
                "Cannot resume VM",
                "Failed to resume migratable component",
                "Invalid transition: InvalidStateTransition(Running, Running)",
            ],
            WrongState,
        );
        api(
            ALL,
            "vm.pause",
            500,
            &[
                "The VM could not be paused",
                "Cannot pause VM",
                "Failed to pause migratable component",
                "Invalid transition: InvalidStateTransition(Paused, Paused)",
            ],
            WrongState,
        );
        api(
            ALL,
            "vm.snapshot",
            500,
            &[
                "The VM could not be snapshotted",
                "Cannot snapshot VM",
                "Failed to snapshot migratable component",
                "Trying to snapshot while VM is running",
            ],
            WrongState,
        );
    }

    #[test]
    fn a_locked_disk() {
        let locked = [
            "Cannot lock images of all block devices",
            "Failed to get Write lock for disk image: /disk.img",
            "The file is already locked",
        ];
        let boot = [
            "The VM could not boot",
            "Error locking disk images: Another instance likely holds a lock",
        ];
        api(
            ALL,
            "vm.boot",
            500,
            &[&boot[..], &locked].concat(),
            LockConflict,
        );
        let add = [
            "The disk could not be added to the VM",
            "Error from device manager",
        ];
        api(
            ALL,
            "vm.add-disk",
            500,
            &[&add[..], &locked].concat(),
            LockConflict,
        );
    }

    /// Up to v46.0 an error is one text. The cassettes of v44.0 and v46.0 hold the others.
    #[test]
    fn errors_that_are_one_text() {
        let boot = "Error from API: The VM could not boot: Error locking disk images: Another instance likely holds a \
            lock";
        check("v46.0", "vm.boot", 500, &[boot], LockConflict);
        let add = "Error from API: The disk could not be added to the VM: Error from device manager: \
            DiskLockError(LockDiskImage { error: AlreadyLocked, lock_type: Write, path: \"/disk.img\" })";
        check("v46.0", "vm.add-disk", 500, &[add], LockConflict);
        let pause = "Cannot pause VM: Failed to pause migratable component: Invalid transition: \
            InvalidStateTransition(Paused, Paused)";
        check("v44.0", "vm.pause", 500, &[pause], WrongState);
        check("v44.0", "vm.info", 500, &["VM is not created"], NotCreated);
    }

    #[test]
    fn what_the_vmm_refuses() {
        check(ALL, "vm.create", 400, &[], Rejected);
        let json = "EOF while parsing an object at line 1 column 1";
        check(
            ALL,
            "vm.create",
            400,
            &["Failed to deserialize JSON", json],
            Rejected,
        );
        check(ALL, "vm.pause", 400, &["Bad Request"], Rejected);
        check(ALL, "vm.restore", 400, &["Bad Request"], Rejected);
        let boot = "The VM could not boot";
        let missing = "No such file or directory (os error 2)";
        api(
            ALL,
            "vm.boot",
            500,
            &[boot, "Cannot open kernel file", missing],
            Rejected,
        );
        api(
            ALL,
            "vm.boot",
            500,
            &[
                boot,
                "Error from device manager",
                "Cannot create virtio-vsock backend",
                "Error binding to the host-side Unix socket",
                "Address already in use (os error 98)",
            ],
            Rejected,
        );
        let id = "No device with id \"nope\" to remove";
        let remove = "The device could not be removed from the VM";
        api(ALL, "vm.remove-device", 500, &[remove, id], Rejected);
        api(
            ALL,
            "vm.resize-disk",
            500,
            &[
                "The disk could not be resized",
                "Failed resizing a disk image",
            ],
            Rejected,
        );
    }

    #[test]
    fn what_the_vmm_lacks() {
        let lacks = |what: &str, since| ErrorKind::NotSupported {
            what: what.to_owned(),
            since,
            until: None,
            server: None,
        };
        check(
            ALL,
            "vm.coredump",
            404,
            &["Not Found"],
            lacks("vm.coredump", None),
        );
        let generic = "vm.add-generic-vhost-user";
        check(
            V51,
            generic,
            404,
            &["Not Found"],
            lacks(generic, Some(crate::api::Release::new(52, 0))),
        );
        check(
            "older",
            generic,
            404,
            &[],
            lacks(generic, Some(crate::api::Release::new(52, 0))),
        );
    }

    #[test]
    fn a_busy_or_a_dying_vmm() {
        check(ALL, "vm.resize", 429, &["Too Many Requests"], Busy);
        check(ALL, "vmm.ping", 503, &["Too many open connections."], Busy);
        let receiving = [
            "API response receive error",
            "receiving on a closed channel",
        ];
        api(ALL, "vm.boot", 500, &receiving, VmmGone);
        let sending = ["API request send error", "sending on a closed channel"];
        api("v52.0", "vm.restore", 500, &sending, VmmGone);
    }
}
