//! Which kernel modules the guest needs, and in what order it loads them.
//!
//! depmod's lists are read directly (`modules.dep`, `modules.builtin`; formats: modules.dep(5)), so no modprobe is
//! needed here and none in the guest.

use std::{
    collections::{HashMap, HashSet},
    path::{Component, Path, PathBuf},
};

use super::{
    Error,
    compression::Compression,
    elf,
    input::{self, MIB},
};

/// What a guest can't do without, in the order in which it is asked for: the PCI transport, disks, the channel, the
/// file systems.
const NEEDED: [&str; 5] = [
    "virtio_pci",
    "virtio_blk",
    "vmw_vsock_virtio_transport",
    "ext4",
    "overlay",
];
/// What ext4 asks for by itself as it is loaded, in vain where no modprobe answers. Newer kernels have no such module.
const BEFORE_EXT4: &str = "crc32c_generic";

const LIST_LIMIT: u64 = 16 * MIB;
const MODULE_LIMIT: u64 = 64 * MIB;

/// A module as it goes into the initramfs.
pub(super) struct Module {
    /// Its file name, ending in `.ko`.
    pub(super) file_name: String,
    /// Its ELF, decompressed.
    pub(super) elf: Vec<u8>,
}

/// Reads the modules that a guest needs from `dir` (`lib/modules/VERSION`), in load order.
pub(super) fn collect(dir: &Path) -> Result<Vec<Module>, Error> {
    let index = Index::read(dir)?;
    index
        .load_order()?
        .into_iter()
        .map(|file| read_module(&dir.join(file)))
        .collect()
}

/// depmod's lists of one kernel's modules.
struct Index {
    dir: PathBuf,
    /// By module name: the module's file, then all that it depends on, as `modules.dep` has them.
    files: HashMap<String, Vec<PathBuf>>,
    builtin: HashSet<String>,
}

impl Index {
    fn read(dir: &Path) -> Result<Index, Error> {
        let mut index = Index {
            dir: dir.into(),
            files: HashMap::new(),
            builtin: HashSet::new(),
        };
        for line in read_list(&dir.join("modules.builtin"))?.lines() {
            index.builtin.insert(module_name(Path::new(line)));
        }
        let path = dir.join("modules.dep");
        let unusable = |problem: String| Error::ModuleList {
            path: path.clone(),
            problem,
        };
        for line in read_list(&path)?.lines() {
            let (file, dependencies) = line
                .split_once(':')
                .ok_or_else(|| unusable(format!("a line has no colon: {line:.80}")))?;
            let files: Vec<PathBuf> = std::iter::once(file)
                .chain(dependencies.split_whitespace())
                .map(PathBuf::from)
                .collect();
            if let Some(outside) = files
                .iter()
                .find(|f| !f.components().all(|c| matches!(c, Component::Normal(_))))
            {
                return Err(unusable(format!(
                    "it names {} outside the directory",
                    outside.display()
                )));
            }
            index.files.insert(module_name(&files[0]), files);
        }
        Ok(index)
    }

    /// The files of all that is needed, each once, dependencies first.
    fn load_order(&self) -> Result<Vec<&Path>, Error> {
        let mut order: Vec<&Path> = Vec::new();
        for name in NEEDED {
            if name == "ext4" && self.files.contains_key(name) {
                self.add(BEFORE_EXT4, &mut order);
            }
            if !self.add(name, &mut order) {
                return Err(Error::ModuleMissing {
                    name: name.to_owned(),
                    modules: self.dir.clone(),
                });
            }
        }
        Ok(order)
    }

    /// Adds a module with its dependencies, unless it's built in; false if nobody knows it.
    fn add<'a>(&'a self, name: &str, order: &mut Vec<&'a Path>) -> bool {
        let Some(files) = self.files.get(name) else {
            return self.builtin.contains(name);
        };
        // A line lists all dependencies, indirect ones too, and what must be loaded first comes last.
        for file in files.iter().rev() {
            if !order.contains(&file.as_path()) {
                order.push(file);
            }
        }
        true
    }
}

fn read_list(path: &Path) -> Result<String, Error> {
    let unusable = |problem: &str| Error::ModuleList {
        path: path.into(),
        problem: problem.to_owned(),
    };
    if !path.exists() {
        return Err(unusable(
            "there is none; `depmod -b ROOT VERSION` makes it from ROOT/lib/modules/VERSION",
        ));
    }
    String::from_utf8(input::read(path, LIST_LIMIT)?).map_err(|_| unusable("it is not UTF-8"))
}

/// The name by which the kernel knows a module's file: without directory and suffixes, with underscores.
fn module_name(file: &Path) -> String {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let stem = name.find(".ko").map_or(&*name, |at| &name[..at]);
    stem.replace('-', "_")
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

    fn order(dep: &str, builtin: &str) -> Result<Vec<String>, Error> {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join("modules.dep"), dep).expect("written");
        std::fs::write(dir.path().join("modules.builtin"), builtin).expect("written");
        let index = Index::read(dir.path())?;
        Ok(index.load_order()?.into_iter().map(module_name).collect())
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
            order(DEP, "kernel/fs/ext4/ext4.ko\n").expect("complete"),
            expected
        );
    }

    #[test]
    fn ext4_as_a_module_has_its_checksum_loaded_before() {
        let dep = format!(
            "{DEP}kernel/ext4.ko: kernel/jbd2.ko\nkernel/jbd2.ko:\nkernel/crc32c_generic.ko:\n"
        );
        let order = order(&dep, "").expect("complete");
        assert_eq!(order[6..], ["crc32c_generic", "jbd2", "ext4", "overlay"]);
    }

    #[test]
    fn everything_built_in_needs_no_module() {
        let builtin: String = NEEDED
            .iter()
            .map(|name| format!("kernel/{name}.ko\n"))
            .collect();
        assert!(order("", &builtin).expect("complete").is_empty());
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let check = |dep: &str, builtin: &str, expected: &str| {
            let error = order(dep, builtin).expect_err("must fail").to_string();
            assert!(error.contains(expected), "{error}");
        };
        check(DEP, "", "module ext4 is neither");
        check("", "", "module virtio_pci is neither");
        check("kernel/a.ko", "", "no colon");
        check("../a.ko:", "", "outside");
        check("/a.ko:", "", "outside");
        check("a.ko: b/../../c.ko", "", "outside");
        check("", "\u{0}", "virtio_pci");
    }

    #[test]
    fn a_missing_list_says_how_it_is_made() {
        let dir = tempfile::tempdir().expect("a directory");
        let error = collect(dir.path()).err().expect("must fail").to_string();
        assert!(error.contains("depmod"), "{error}");
    }
}
