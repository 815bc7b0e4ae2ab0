//! The words of the client's methods: one row for each operation, with what no contract says.
//!
//! The states and the errors are those of the cassettes in `fixtures/` (v51.2, v52.0 and v53.0), unless a row says that
//! the fact was read in upstream's source.

/// The words of one operation.
pub(super) struct Words {
    /// `vm.boot`
    pub(super) operation: &'static str,
    /// The file below `src/client/generated/` that has the method.
    pub(super) file: &'static str,
    /// The first sentence.
    pub(super) does: &'static str,
    /// The states in which it is legal, and the state that it leaves.
    pub(super) states: &'static str,
    /// What else a caller must know, a paragraph each.
    pub(super) more: &'static [&'static str],
    /// The errors that are of the operation's own: a variant of `ErrorKind`, and when it comes.
    pub(super) errors: &'static [(&'static str, &'static str)],
}

/// The files with what each holds, in the order of the documentation.
pub(super) const FILES: &[(&str, &str)] = &[
    ("life_cycle", "The VMM and the life of its VM."),
    (
        "devices",
        "The devices and the size of a VM that is there already.",
    ),
    (
        "transfer",
        "Operations that move a VM or its memory: snapshots, dumps and migration.",
    ),
];

const NO_VM: (&str, &str) = ("NotCreated", "there is no VM.");
const NOT_BOOTED: (&str, &str) = ("WrongState", "the VM isn't booted, or there is none.");
const ADDED: &str = "Legal in `Created`, `Running` and `Paused`; the state stays as it is.";
const ANSWERS: &str = "A VM that is booted has the device at once, and the answer says where. A VM that is `Created` \
    has it from its next boot on, and the answer is `None`.";
const REJECTED: (&str, &str) = (
    "Rejected",
    "the device can't be made, or its identifier is taken.",
);
const VHOST_USER: &str = "A socket on which no back end listens holds the VMM for up to 60 s: it answers nothing else \
    meanwhile.";

/// Every operation, in the order of its file.
pub(super) const WORDS: &[Words] = &[
    Words {
        operation: "vmm.ping",
        file: "life_cycle",
        does: "Asks the VMM for its version, its process id and the features that it was built with.",
        states: "Legal at any time; changes nothing.",
        more: &[
            "The VMM serves its API on one thread, so a ping waits for the call of another client that is before it. \
             For a VMM that is still starting, use [`wait_until_ready`](Client::wait_until_ready). The process id is \
             that of the VMM's own pid namespace.",
        ],
        errors: &[],
    },
    Words {
        operation: "vmm.shutdown",
        file: "life_cycle",
        does: "Ends the VMM's process, and its VM with it.",
        states: "Legal at any time; leaves no process, which exits with status 0.",
        more: &[],
        errors: &[(
            "VmmGone",
            "the connection ended first. The VMM may exit before its answer is out, so this may be a success.",
        )],
    },
    Words {
        operation: "vm.create",
        file: "life_cycle",
        does: "Stores the configuration of a VM, and doesn't boot it.",
        states: "Legal without a VM; leaves it `Created`.",
        more: &[
            "The VMM checks nothing here: a kernel that is missing or more vCPUs than `max_vcpus` fail in \
             [`vm_boot`](Client::vm_boot). [`create_checked`](Client::create_checked) also reads back what the VMM \
             stored.",
            "A memory of 4,096 bytes, or a console of mode `File` without a file, ends the VMM (seen on v53.0).",
        ],
        errors: &[
            (
                "AlreadyCreated",
                "there is a VM. A call that failed may have stored one too: [`vm_delete`](Client::vm_delete) it first.",
            ),
            (
                "NotSupported",
                "the VMM's release would ignore a field, or [`NetConfig::fds`] is set, which `vm.create` discards.",
            ),
        ],
    },
    Words {
        operation: "vm.delete",
        file: "life_cycle",
        does: "Shuts the VM down if it is booted, and forgets its configuration.",
        states: "Legal in every state, and without a VM; leaves no VM.",
        more: &[
            "The VMM lets go of the locks of its disks and removes the socket of its vsock device.",
        ],
        errors: &[],
    },
    Words {
        operation: "vm.boot",
        file: "life_cycle",
        does: "Boots the VM.",
        states: "Legal in `Created`; leaves the VM `Running`. A `Paused` VM is resumed up to v52.0 and refused from \
            v53.0 on.",
        more: &[
            "After a boot that failed, delete the VM and create it again: the device that failed is gone from the \
             stored configuration, and a second boot succeeds without it.",
        ],
        errors: &[
            NO_VM,
            ("WrongState", "the VM is booted already."),
            ("LockConflict", "another process has a disk locked."),
            ("Rejected", "the VM can't be built; the messages say why."),
        ],
    },
    Words {
        operation: "vm.pause",
        file: "life_cycle",
        does: "Stops the VM's vCPUs.",
        states: "Legal in `Running`; leaves the VM `Paused`.",
        more: &["A paused VM keeps its memory and the locks of its disks."],
        errors: &[(
            "WrongState",
            "the VM is paused already, isn't booted, or there is none.",
        )],
    },
    Words {
        operation: "vm.resume",
        file: "life_cycle",
        does: "Lets the vCPUs of a paused or restored VM go on.",
        states: "Legal in `Paused`; leaves the VM `Running`.",
        more: &[],
        errors: &[(
            "WrongState",
            "the VM runs already, isn't booted, or there is none.",
        )],
    },
    Words {
        operation: "vm.shutdown",
        file: "life_cycle",
        does: "Shuts the VM down and keeps its configuration.",
        states: "Legal in `Running` and, by upstream's source, in `Paused`; leaves the VM `Created`.",
        more: &[
            "[`vm_boot`](Client::vm_boot) boots it anew. Before [`vm_restore`](Client::vm_restore) it has to be \
             [deleted](Client::vm_delete). The guest isn't asked: [`vm_power_button`](Client::vm_power_button) does \
             that.",
        ],
        errors: &[NOT_BOOTED],
    },
    Words {
        operation: "vm.reboot",
        file: "life_cycle",
        does: "Shuts the VM down and boots it again.",
        states: "Legal in `Running` and, by upstream's source, in `Paused`; leaves the VM `Running`.",
        more: &[],
        errors: &[("NotCreated", "the VM isn't booted, or there is none.")],
    },
    Words {
        operation: "vm.info",
        file: "life_cycle",
        does: "Reads the VM's state, its configuration and its devices.",
        states: "Legal in every state of a VM; changes nothing.",
        more: &[
            "The state after [`vm_shutdown`](Client::vm_shutdown) is `Created`: `Shutdown` was never seen.",
        ],
        errors: &[NO_VM],
    },
    Words {
        operation: "vm.counters",
        file: "life_cycle",
        does: "Reads the counters of the VM's devices, by device and by counter.",
        states: "Legal in `Running` and `Paused`; changes nothing.",
        more: &["A latency that was never measured is [`u64::MAX`]."],
        errors: &[NOT_BOOTED],
    },
    Words {
        operation: "vm.power-button",
        file: "life_cycle",
        does: "Presses the VM's ACPI power button.",
        states: "Legal in `Running` and `Paused`; the state stays as it is until the guest acts.",
        more: &["A guest that doesn't handle the button ignores it."],
        errors: &[NOT_BOOTED],
    },
    Words {
        operation: "vm.nmi",
        file: "life_cycle",
        does: "Sends a non-maskable interrupt to the guest.",
        states: "Legal in `Running` and `Paused`; the state stays as it is.",
        more: &[
            "The upstream documents up to v52.0 call the path `/vmm.nmi`; the server of every supported release has \
             `/vm.nmi`.",
        ],
        errors: &[NOT_BOOTED],
    },
    Words {
        operation: "vm.resize",
        file: "devices",
        does: "Changes the number of vCPUs, the memory or the balloon; memory and balloon are in bytes.",
        states: "Legal in `Created`, where it edits the configuration, in `Running` and in `Paused`; the state stays \
            as it is.",
        more: &[],
        errors: &[
            NO_VM,
            ("Busy", "an earlier removal of vCPUs is still pending."),
            ("Rejected", "the VM can't have that size."),
        ],
    },
    Words {
        operation: "vm.resize-disk",
        file: "devices",
        does: "Changes the size of a disk, in bytes.",
        states: "Legal in `Running` and `Paused`; the state stays as it is.",
        more: &[],
        errors: &[
            NO_VM,
            (
                "Rejected",
                "the VM isn't booted, it has no such disk, or the disk can't be resized.",
            ),
        ],
    },
    Words {
        operation: "vm.resize-zone",
        file: "devices",
        does: "Changes the memory of a zone, in bytes.",
        states: "Legal in `Running`; the state stays as it is.",
        more: &[],
        errors: &[
            NO_VM,
            (
                "Rejected",
                "the VM isn't booted, it has no such zone, or the zone can't be resized.",
            ),
        ],
    },
    Words {
        operation: "vm.add-disk",
        file: "devices",
        does: "Adds a disk.",
        states: ADDED,
        more: &[ANSWERS],
        errors: &[
            NO_VM,
            ("LockConflict", "another process has the disk locked."),
            REJECTED,
        ],
    },
    Words {
        operation: "vm.add-net",
        file: "devices",
        does: "Adds a network device.",
        states: ADDED,
        more: &[
            ANSWERS,
            "To give it taps that are open already, send [`api::vm_add_net`] with \
             [`send_with_fds`](Client::send_with_fds): the VMM ignores numbers in [`NetConfig::fds`].",
        ],
        errors: &[NO_VM, REJECTED],
    },
    Words {
        operation: "vm.add-fs",
        file: "devices",
        does: "Adds a virtio-fs device, whose back end is another process.",
        states: ADDED,
        more: &[ANSWERS, VHOST_USER],
        errors: &[NO_VM, REJECTED],
    },
    Words {
        operation: "vm.add-pmem",
        file: "devices",
        does: "Adds a persistent-memory device.",
        states: ADDED,
        more: &[ANSWERS],
        errors: &[NO_VM, REJECTED],
    },
    Words {
        operation: "vm.add-vsock",
        file: "devices",
        does: "Adds the vsock device, of which a VM has one at most.",
        states: ADDED,
        more: &[
            ANSWERS,
            "The VMM makes the socket when the VM is booted, and fails where a file has that name already.",
        ],
        errors: &[
            NO_VM,
            (
                "Rejected",
                "the VM has a vsock device, or the socket can't be made.",
            ),
        ],
    },
    Words {
        operation: "vm.add-vdpa",
        file: "devices",
        does: "Adds a vDPA device of the host.",
        states: ADDED,
        more: &[ANSWERS],
        errors: &[NO_VM, REJECTED],
    },
    Words {
        operation: "vm.add-device",
        file: "devices",
        does: "Adds a PCI device of the host by VFIO.",
        states: ADDED,
        more: &[
            ANSWERS,
            "From v53.0 on the device can be given as an open file: send \
             [`api::vm_add_device`] with [`send_with_fds`](Client::send_with_fds).",
        ],
        errors: &[NO_VM, REJECTED],
    },
    Words {
        operation: "vm.add-user-device",
        file: "devices",
        does: "Adds a PCI device that another process emulates, by vfio-user.",
        states: ADDED,
        more: &[ANSWERS],
        errors: &[NO_VM, REJECTED],
    },
    Words {
        operation: "vm.add-generic-vhost-user",
        file: "devices",
        does: "Adds a virtio device of any kind whose back end is another process.",
        states: ADDED,
        more: &[ANSWERS, VHOST_USER],
        errors: &[NO_VM, REJECTED],
    },
    Words {
        operation: "vm.remove-device",
        file: "devices",
        does: "Removes a device by its identifier.",
        states: "Legal in `Created`, `Running` and `Paused`; the state stays as it is.",
        more: &[
            "From a VM that is booted the device goes when the guest lets go of it, after this call. A second call \
             for the same device succeeds up to v52.0 and is refused by v53.0.",
        ],
        errors: &[NO_VM, ("Rejected", "no device has that identifier.")],
    },
    Words {
        operation: "vm.snapshot",
        file: "transfer",
        does: "Writes the VM's state and memory to the folder of a `file://` URL.",
        states: "Legal in `Paused`; leaves the VM `Paused`.",
        more: &[
            "The folder must exist and must not hold a snapshot. The content of the disks is no part of it. The files \
             are complete when this returns; the event `snapshotted` comes before that.",
        ],
        errors: &[
            ("WrongState", "the VM runs, isn't booted, or there is none."),
            (
                "Rejected",
                "the folder is missing, or it has such files already.",
            ),
        ],
    },
    Words {
        operation: "vm.restore",
        file: "transfer",
        does: "Makes a VM from the snapshot in the folder of a `file://` URL.",
        states: "Legal without a VM; leaves the VM `Paused`, or `Running` where [`RestoreConfig::resume`] asks for it.",
        more: &[
            "The VMM opens disks and sockets by the paths that the snapshot's `config.json` has, and takes its files \
             as they are: it notices neither memory that was changed nor memory that is cut short. A failure leaves \
             no VM, so the call can be made again.",
            "`resume` and `memory_restore_mode` came with v52.0. Network devices that had descriptors need new ones: \
             [`send_with_fds`](Client::send_with_fds) with [`RestoreConfig::net_fds`].",
        ],
        errors: &[
            (
                "AlreadyCreated",
                "there is a VM, even one that is shut down: [`vm_delete`](Client::vm_delete) it first.",
            ),
            (
                "Rejected",
                "a file of the snapshot or a disk is missing or can't be read.",
            ),
        ],
    },
    Words {
        operation: "vm.coredump",
        file: "transfer",
        does: "Writes the guest's memory and registers to the file of a `file://` URL.",
        states: "For a VM that is booted.",
        more: &["Upstream's own builds leave this out: it needs the feature `guest_debug`."],
        errors: &[("NotSupported", "the VMM was built without it.")],
    },
    Words {
        operation: "vm.receive-migration",
        file: "transfer",
        does: "Receives a VM that another VMM sends.",
        states: "Legal without a VM; leaves the VM that was received.",
        more: &[
            "While v53.0 waits on a `unix:` URL for the sender, it answers nothing else, and SIGTERM doesn't end it.",
        ],
        errors: &[(
            "Rejected",
            "there is a VM, or the URL or the migration is no good; the messages say which.",
        )],
    },
    Words {
        operation: "vm.send-migration",
        file: "transfer",
        does: "Sends the VM to a VMM that waits for it.",
        states: "Legal in `Running`.",
        more: &[
            "A success of v53.0 doesn't say that a receiver is there: it answers before it has connected.",
        ],
        errors: &[
            ("WrongState", "the VM isn't booted, or there is none."),
            (
                "VmmGone",
                "up to v52.0 also where there is no VM, which ends the VMM.",
            ),
            ("Rejected", "the URL is no good."),
        ],
    },
];
