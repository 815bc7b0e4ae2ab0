//! Which kernel modules the guest needs, and in what order it loads them.
//!
//! depmod's lists are read directly, so no modprobe is needed here and none in the guest.

use std::path::{Path, PathBuf};

use super::{
    Error,
    compression::Compression,
    depmod::{Lists, module_name},
    elf,
    input::{self, MIB},
    kernel::Kernel,
};

/// Where the modules come from that a guest needs and its kernel hasn't built in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ModuleSource {
    /// Nowhere: the kernel has all that a guest needs built in. It's looked for in a Linux kernel's image.
    #[default]
    BuiltIn,
    /// Nowhere, without looking: for a kernel that has all built in and doesn't show it, say one without messages. The
    /// guest of a kernel that lacks something doesn't boot.
    AssumeBuiltIn,
    /// The kernel's `lib/modules/VERSION`, with depmod's `modules.dep`. A `modules.builtin` in it, from the kernel's
    /// build, lists what is built in; what is in neither list is looked for in the kernel's image.
    Directory(PathBuf),
}

/// A driver or file system that a guest can't do without.
struct Needed {
    /// The module's name.
    name: &'static str,
    /// What a kernel's image holds if, and only if, it's built in: the driver's name with its NUL, or the beginning of
    /// its messages.
    trace: &'static [u8],
}

/// In the order in which they're asked for: the PCI transport, disks, the channel, the file systems.
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
/// What ext4 asks for by itself as it is loaded, in vain where no modprobe answers. Newer kernels have no such module.
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
                return Ok(Vec::new()); // What isn't Linux has no modules of Linux.
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

/// Modules of another release than the kernel's don't load. The directory's name tells theirs.
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

/// The files of all that is needed, each module once, dependencies first.
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
                    "give a kernel and modules that have it, or run depmod again if its file is there"
                } else {
                    "if it is built in, copy modules.builtin there from the kernel's package or build \
                     (depmod makes none)"
                },
            });
        }
    }
    Ok(order)
}

/// Adds a module's files. All dependencies are listed, indirect ones too, and what must be loaded first comes last.
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
            problem: "it is no kernel module",
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

    /// All that is needed, with `ext4` built in.
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
        // A list that doesn't know is no worse than none.
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
