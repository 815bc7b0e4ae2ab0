//! [`Initramfs`]: the content of the initramfs, under the names where `chv-guest` expects it.

use std::{fs::File, io::BufWriter, io::Write, path::Path};

use super::{Error, cpio::Archive, modules::Module};

/// The directory of the modules and of [`LOAD_LIST`].
const MODULES: &str = "lib/modules";
/// The file names of the modules, one a line, in load order.
const LOAD_LIST: &str = "lib/modules/load";
/// The declaration of the image's own tools.
const TOOLS: &str = "tools.json";
/// The first mount points of the guest, and directories that programs expect. The mount points of the disks are not
/// among them, because the guest chooses those itself.
const DIRECTORIES: [&str; 7] = ["dev", "etc", "proc", "root", "run", "sys", "tmp"];

/// The content of an initramfs.
pub(super) struct Initramfs {
    /// The program that the kernel starts.
    pub(super) init: Vec<u8>,
    /// In load order.
    pub(super) modules: Vec<Module>,
    /// The tools file, if the image has one.
    pub(super) tools: Option<Vec<u8>>,
}

impl Initramfs {
    /// Writes the archive to `file`, which lies at `path`.
    pub(super) fn write(self, file: &File, path: &Path) -> Result<(), Error> {
        let mut out = BufWriter::new(file);
        self.archive()
            .write(&mut out)
            .and_then(|()| out.flush())
            .map_err(Error::io("write", path))
    }

    fn archive(self) -> Archive {
        let mut archive = Archive::default();
        DIRECTORIES.iter().for_each(|name| archive.directory(name));
        // The kernel opens this device for init's standard streams before init can mount a filesystem on /dev.
        archive.character_device("dev/console", 5, 1);
        archive.program("init", self.init);
        if !self.modules.is_empty() {
            let list: String = self
                .modules
                .iter()
                .map(|m| format!("{}\n", m.file_name))
                .collect();
            archive.file(LOAD_LIST, list.into_bytes());
        }
        for module in self.modules {
            archive.file(&format!("{MODULES}/{}", module.file_name), module.elf);
        }
        if let Some(tools) = self.tools {
            archive.file(TOOLS, tools);
        }
        archive
    }
}
