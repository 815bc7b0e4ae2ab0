//! Finds the kernel modules that the guest needs, and their load order ([`collect`]).
//!
//! depmod's lists are read directly, so neither the host nor the guest needs modprobe.

use std::path::{Path, PathBuf};

use super::{
    Error,
    compression::Compression,
    depmod::{Lists, module_name},
    elf,
    input::{self, MIB},
    kernel::Kernel,
};

/// The source of the modules that the guest needs and the kernel doesn't have built in.
///
/// Every guest needs the drivers `virtio_pci`, `virtio_blk`, `vmw_vsock_virtio_transport`, `ext4` and `overlay`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ModuleSource {
    /// No modules: the kernel has all these drivers built in. Packing checks that by searching a Linux kernel's image
    /// for each driver, and fails with [`Error::ModulesNeeded`] if one isn't found. A kernel that isn't Linux isn't
    /// checked.
    #[default]
    BuiltIn,
    /// No modules, and no check: for a kernel whose image doesn't show its built-in drivers, for example one without
    /// messages. If the kernel lacks a driver, the guest doesn't boot.
    AssumeBuiltIn,
    /// The path of the kernel's directory `lib/modules/VERSION`, with depmod's `modules.dep` (otherwise
    /// [`Error::ModuleList`]). `VERSION` must be the kernel's release (otherwise [`Error::ModulesOfAnotherKernel`]). A
    /// `modules.builtin` in it, from the kernel's build, lists the built-in modules.
    ///
    /// For a driver that is in neither list packing searches the kernel's image, and fails with
    /// [`Error::ModuleMissing`] if it isn't found there. Each module may have 64 MiB, before and after decompression.
    Directory(PathBuf),
}

/// A driver or filesystem that every guest needs.
struct Needed {
    /// The module's name.
    name: &'static str,
    /// The bytes that a kernel's image contains if, and only if, the module is built in: the driver's name with its
    /// NUL, or the beginning of its messages.
    trace: &'static [u8],
}

/// The needed modules in load order: the PCI transport, disks, the channel, the filesystems.
///
/// Upstream: `virtio_pci_driver` (drivers/virtio/virtio_pci_common.c), `KBUILD_MODNAME` as the driver's name
/// (drivers/block/virtio_blk.c, net/vmw_vsock/virtio_transport.c), `ext4_msg` (fs/ext4/super.c), `pr_fmt`
/// (fs/overlayfs/overlayfs.h).
const NEEDED: [Needed; 5] = [
    Needed {
        name: "virtio_pci",
        trace: b"virtio-pci\0",
    },
    Needed {
        name: "virtio_blk",
        trace: b"virtio_blk\0",
    },
    Needed {
        name: "vmw_vsock_virtio_transport",
        trace: b"vmw_vsock_virtio_transport\0",
    },
    Needed {
        name: "ext4",
        trace: b"EXT4-fs",
    },
    Needed {
        name: "overlay",
        trace: b"overlayfs: ",
    },
];
/// The module that ext4 requests through modprobe while it is loaded. The guest has no modprobe, so this module must be
/// loaded first. Newer kernels don't have it.
const BEFORE_EXT4: &str = "crc32c_generic";

const MODULE_LIMIT: u64 = 64 * MIB;

/// A module as it goes into the initramfs.
pub(super) struct Module {
    /// Its file name, ending in `.ko`.
    pub(super) file_name: String,
    /// Its ELF, decompressed.
    pub(super) elf: Vec<u8>,
}

/// Reads the modules that a guest of `kernel` needs, in load order. `kernel_file` is where the kernel was.
pub(super) fn collect(
    source: &ModuleSource,
    kernel: &Kernel,
    kernel_file: &Path,
) -> Result<Vec<Module>, Error> {
    match source {
        ModuleSource::Directory(dir) => {
            check_release(dir, kernel)?;
            let lists = Lists::read(dir)?;
            load_order(dir, &lists, kernel)?
                .into_iter()
                .map(|file| read_module(&dir.join(file)))
                .collect()
        }
        ModuleSource::AssumeBuiltIn => Ok(Vec::new()),
        ModuleSource::BuiltIn => {
            let Some(release) = &kernel.release else {
                return Ok(Vec::new()); // A kernel that isn't Linux has no Linux modules.
            };
            let missing: Vec<_> = NEEDED
                .iter()
                .filter(|needed| !kernel.contains(needed.trace))
                .map(|needed| needed.name)
                .collect();
            if missing.is_empty() {
                return Ok(Vec::new());
            }
            Err(Error::ModulesNeeded {
                kernel: kernel_file.into(),
                release: release.clone(),
                missing,
            })
        }
    }
}

/// Checks that the directory's name, which is the release of the modules, is the kernel's release. The kernel wouldn't
/// load modules of another release.
fn check_release(dir: &Path, kernel: &Kernel) -> Result<(), Error> {
    if let (Some(release), Ok(resolved)) = (&kernel.release, dir.canonicalize())
        && resolved
            .file_name()
            .is_some_and(|name| name != release.as_str())
    {
        return Err(Error::ModulesOfAnotherKernel {
            modules: dir.into(),
            kernel: release.clone(),
        });
    }
    Ok(())
}

/// The files of all needed modules, each module once, dependencies first.
fn load_order<'a>(dir: &Path, lists: &'a Lists, kernel: &Kernel) -> Result<Vec<&'a Path>, Error> {
    let mut order: Vec<&Path> = Vec::new();
    for needed in &NEEDED {
        let name = needed.name;
        if let Some(files) = lists.files(name) {
            let before = match name {
                "ext4" => lists.files(BEFORE_EXT4).unwrap_or_default(),
                _ => &[],
            };
            add(before, &mut order);
            add(files, &mut order);
        } else if !lists.is_builtin(name) && !kernel.contains(needed.trace) {
            return Err(Error::ModuleMissing {
                name: name.to_owned(),
                modules: dir.into(),
                remedy: if lists.knows_builtin() {
                    "use a kernel and modules that have it, or run depmod again if its file is there"
                } else {
                    "if it is built in, copy modules.builtin there from the kernel's package or build \
                     (depmod does not make it)"
                },
            });
        }
    }
    Ok(order)
}

/// Adds a module's files. The list has direct and indirect dependencies, and the one that must be loaded first comes
/// last.
fn add<'a>(files: &'a [PathBuf], order: &mut Vec<&'a Path>) {
    for file in files.iter().rev() {
        if !order
            .iter()
            .any(|before| module_name(before) == module_name(file))
        {
            order.push(file);
        }
    }
}

fn read_module(path: &Path) -> Result<Module, Error> {
    let bytes = input::read(path, MODULE_LIMIT)?;
    let elf = match Compression::detect(&bytes) {
        None => bytes,
        Some(compression) => compression
            .decompress(&bytes, MODULE_LIMIT)
            .map_err(|source| Error::Decompress {
                what: "the module",
                path: path.into(),
                source,
            })?,
    };
    if !elf.starts_with(elf::MAGIC) {
        return Err(Error::NotElf {
            path: path.into(),
            problem: "it is not a kernel module",
        });
    }
    Ok(Module {
        file_name: format!("{}.ko", module_name(path)),
        elf,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A `modules.dep` with all needed modules except `ext4`, which is built in.
    const DEP: &str = "\
        kernel/virtio_pci.ko.xz: kernel/virtio.ko.xz kernel/virtio_ring.ko.xz\n\
        kernel/virtio_blk.ko.xz: kernel/virtio.ko.xz kernel/virtio_ring.ko.xz\n\
        kernel/virtio.ko.xz:\n\
        kernel/virtio_ring.ko.xz:\n\
        kernel/vmw-vsock-virtio-transport.ko.xz: kernel/vsock.ko.xz kernel/virtio.ko.xz\n\
        kernel/vsock.ko.xz:\n\
        kernel/overlay.ko.xz:\n";
    const EXT4: &str = "kernel/fs/ext4/ext4.ko\n";

    /// A kernel whose image shows that these modules are built in.
    fn kernel_with(modules: &[&str]) -> Kernel {
        let traces = NEEDED
            .iter()
            .filter(|needed| modules.contains(&needed.name))
            .map(|needed| needed.trace);
        Kernel {
            elf: traces.flat_map(|trace| [b"..", trace].concat()).collect(),
            release: Some("6.1.0".to_owned()),
        }
    }

    fn order(dep: &str, builtin: Option<&str>, kernel: &Kernel) -> Result<Vec<String>, Error> {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join("modules.dep"), dep).expect("written");
        if let Some(builtin) = builtin {
            std::fs::write(dir.path().join("modules.builtin"), builtin).expect("written");
        }
        let lists = Lists::read(dir.path())?;
        let order = load_order(dir.path(), &lists, kernel)?;
        Ok(order.into_iter().map(module_name).collect())
    }

    #[test]
    fn dependencies_come_first_and_once() {
        let expected = [
            "virtio_ring",
            "virtio",
            "virtio_pci",
            "virtio_blk",
            "vsock",
            "vmw_vsock_virtio_transport",
            "overlay",
        ];
        assert_eq!(
            order(DEP, Some(EXT4), &kernel_with(&[])).expect("complete"),
            expected
        );
        // One module in two files is loaded once.
        let twice = DEP.replace(
            "kernel/virtio_blk.ko.xz: kernel/virtio.ko.xz",
            "kernel/virtio_blk.ko.xz: ./updates/virtio.ko",
        );
        assert_eq!(
            order(&twice, Some(EXT4), &kernel_with(&[])).expect("complete"),
            expected
        );
    }

    #[test]
    fn ext4_as_a_module_has_its_checksum_loaded_before() {
        let dep = format!(
            "{DEP}kernel/ext4.ko: kernel/jbd2.ko\nkernel/jbd2.ko:\nkernel/crc32c_generic.ko:\n"
        );
        for builtin in [Some(""), None] {
            let order = order(&dep, builtin, &kernel_with(&[])).expect("complete");
            assert_eq!(order[6..], ["crc32c_generic", "jbd2", "ext4", "overlay"]);
        }
    }

    #[test]
    fn everything_built_in_needs_no_module() {
        let names = NEEDED.map(|needed| needed.name);
        let builtin: String = names.map(|name| format!("kernel/{name}.ko\n")).concat();
        let none = order("", Some(&builtin), &kernel_with(&[])).expect("complete");
        assert!(none.is_empty());
        let none = order("", None, &kernel_with(&names)).expect("complete");
        assert!(none.is_empty());
        let kernel = kernel_with(&names);
        let none = collect(&ModuleSource::BuiltIn, &kernel, Path::new("k")).expect("complete");
        assert!(none.is_empty());
    }

    #[test]
    fn without_a_list_the_kernel_shows_what_is_built_in() {
        let found = order(DEP, None, &kernel_with(&["ext4"])).expect("complete");
        assert_eq!(found.len(), 7);
        // A list without the module has the same result as no list.
        let found = order(DEP, Some(""), &kernel_with(&["ext4"])).expect("complete");
        assert_eq!(found.len(), 7);
    }

    #[test]
    fn what_is_missing_is_named_with_a_remedy() {
        let check = |dep: &str, builtin, expected: [&str; 2]| {
            let error = order(dep, builtin, &kernel_with(&[])).expect_err("must fail");
            for part in expected {
                assert!(error.to_string().contains(part), "{error}");
            }
        };
        check(DEP, Some(""), ["module ext4", "run depmod again"]);
        check(DEP, None, ["module ext4", "copy modules.builtin"]);
        check("", Some("\u{0}"), ["module virtio_pci", "modules.dep"]);
    }

    #[test]
    fn a_kernel_that_needs_modules_is_refused_without() {
        let kernel = kernel_with(&["ext4", "virtio_pci"]);
        let error = collect(&ModuleSource::BuiltIn, &kernel, Path::new("/boot/k"))
            .err()
            .expect("must fail")
            .to_string();
        for part in [
            "/boot/k",
            "virtio_blk, vmw_vsock_virtio_transport, overlay",
            "lib/modules/6.1.0",
        ] {
            assert!(error.contains(part), "{part} is not in: {error}");
        }
        let assumed = collect(&ModuleSource::AssumeBuiltIn, &kernel, Path::new("/boot/k"));
        assert!(assumed.expect("taken").is_empty());
        let other = Kernel {
            release: None,
            ..kernel
        };
        let other = collect(&ModuleSource::BuiltIn, &other, Path::new("k"));
        assert!(other.expect("taken").is_empty());
    }
}
