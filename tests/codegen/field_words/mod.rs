//! The words of the fields of the generated types: what each field means and its unit, which no contract says.
//!
//! The facts are those of upstream's source at v53.0 (`vmm/src/vm_config.rs`, `vmm/src/config.rs`, `docs/`), and of the
//! v51.2 and v52.0 sources where a text names these releases. Whether a field is required, its default and its release
//! come from the contracts: the generator adds them.

mod config;
mod devices;
mod messages;

/// The words of one type's fields: the name of the type, and of each field its name in JSON and one or two sentences.
type Fields = (&'static str, &'static [(&'static str, &'static str)]);

/// Returns what a field means. The name of the field is the one in JSON.
pub(super) fn words(type_name: &str, field: &str) -> Option<&'static str> {
    let (_, fields) = types().find(|(name, _)| *name == type_name)?;
    let (_, words) = fields.iter().find(|(name, _)| *name == field)?;
    Some(*words)
}

/// Returns every type and field that has words.
pub(super) fn all() -> impl Iterator<Item = (&'static str, &'static str)> {
    types().flat_map(|(name, fields)| fields.iter().map(move |(field, _)| (*name, *field)))
}

fn types() -> impl Iterator<Item = &'static Fields> {
    [config::FIELDS, devices::FIELDS, messages::FIELDS]
        .into_iter()
        .flatten()
}

const BACK_END_SOCKET: &str = "The path of the Unix socket on which the vhost-user back end listens; the VMM connects \
    to it and retries for up to 60 s. Needs memory that is `shared` or in `hugepages`.";
const BOOT_IOMMU: &str = "Puts the device behind the VM's virtio-iommu, which the VMM adds for it.";
const CONSOLE_FILE: &str = "The file of the mode `File`, created or truncated by each `vm.create` and `vm.restore`; \
    without it that mode ends the VMM. With `Pty` the VMM writes the terminal's path here.";
const HOST_CPUS: &str = "The numbers of the host's CPUs on which the thread may run.";
const HUGEPAGE_SIZE: &str = "The size of the huge pages in bytes, a power of two; counts only with `hugepages`. The \
    host's default size if absent.";
const ID: &str = "Names the device in `vm.remove-device` and in the device tree; unique in the VM and without leading \
    `__`. The VMM makes one up if absent, such as `_disk0`.";
const IOMMU: &str = "Puts the device behind the VM's virtio-iommu, which the VMM adds for it. On a running VM only a \
    device on a segment of `iommu_segments` may be there.";
const NO_IOMMU: &str = "Not supported: the VMM refuses `true`.";
const PCI_BDF: &str = "The PCI address in the guest, `segment:bus:device.function` in hexadecimal, such as \
    `0000:00:05.0`.";
const PCI_DEVICE_ID: &str = "The device's slot on the bus of its PCI segment, 1 to 31. The VMM takes a free one if \
    absent.";
const PCI_SEGMENT: &str = "The number of the PCI segment that the device is on, less than `num_pci_segments`. A \
    segment of `iommu_segments` takes only devices with `iommu`.";
const PREFAULT: &str = "Allocates all of the memory on the host before the VM starts. `vm.restore` goes by its own \
    `prefault` instead.";
const QUEUE_SIZE: &str =
    "The number of entries of each queue, a power of two (checked from v53.0 on).";
const RESERVE: &str = "Reserves the memory on the host when it is mapped (no `MAP_NORESERVE`), so that a lack of it \
    fails the boot and not a later access.";
const UNLESS_VHOST_USER: &str = "Puts the device behind the VM's virtio-iommu, which the VMM adds for it. Refused with \
    `vhost_user` and, on a running VM, outside `iommu_segments`.";
const VFIO_USER_SOCKET: &str = "The path of the Unix socket on which the vfio-user server listens; one device a \
    socket. Needs memory that is `shared` or in `hugepages`.";
