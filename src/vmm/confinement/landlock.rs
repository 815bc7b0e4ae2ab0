//! [`Domain`]: the Landlock domain of a VMM, which limits the files that the VMM may open.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd,
    Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetError, Scope,
};
use rustix::fs::OFlags;

use super::Grants;
use crate::causes::Causes;
use crate::vmm::run_dir::Folders;

/// The version of Landlock's ABI whose restrictions are requested. On an older kernel, the restrictions that it has are
/// used.
const NEWEST: ABI = ABI::V6;

/// The paths of the dynamic linker, its cache and the system's libraries.
const LIBRARIES: [&str; 9] = [
    "/lib",
    "/lib32",
    "/lib64",
    "/usr/lib",
    "/usr/lib32",
    "/usr/lib64",
    "/usr/local/lib",
    "/etc/ld.so.cache",
    "/nix/store",
];

/// The folders of the system's programs, which a wrapper script may run.
const PROGRAMS: [&str; 5] = ["/bin", "/sbin", "/usr/bin", "/usr/sbin", "/usr/local/bin"];

/// The number of bytes that the kernel reads of a script's first line.
const SHEBANG: u64 = 256;

/// The rules of a Landlock domain, before the child enters it.
pub(in crate::vmm) struct Domain {
    /// The ruleset's descriptor. The child restricts itself with it.
    pub(in crate::vmm) ruleset: OwnedFd,
    /// The version of Landlock that this kernel has, for the report of the layer.
    pub(in crate::vmm) detail: String,
    /// The files that the rules name. A rule applies to an inode, and some file systems (9p, NFS) make a new inode for
    /// the same file if no process has it open.
    pub(in crate::vmm) held: Held,
}

/// Files that are kept open for as long as a VMM may open them.
#[derive(Debug, Default)]
pub(in crate::vmm) struct Held(Vec<PathFd>);

impl Domain {
    /// Makes the rules for a VMM that runs `binary`, may execute `programs`, and may use its run directory's `folders`
    /// and the files of `grants`. Returns `None` if this kernel has no Landlock.
    pub(in crate::vmm) fn new(
        binary: Option<&Path>,
        folders: Option<&Folders>,
        programs: &[PathBuf],
        grants: &Grants,
    ) -> io::Result<Option<Domain>> {
        let Some(abi) = landlock_version() else {
            return Ok(None);
        };
        let ruleset = Ruleset::default()
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(AccessFs::from_all(NEWEST))
            .and_then(|ruleset| ruleset.handle_access(AccessNet::from_all(NEWEST)))
            .and_then(|ruleset| ruleset.scope(Scope::from_all(NEWEST)))
            .and_then(Ruleset::create)
            .map_err(io::Error::other)?;
        let mut rules = Rules {
            ruleset,
            held: Held::default(),
        };
        rules.file("/dev/kvm", read_write() | AccessFs::IoctlDev)?;
        // A VM's random device reads it by default.
        rules.file("/dev/urandom", AccessFs::ReadFile.into())?;
        if let Some(binary) = binary {
            rules.path(binary, run())?;
            if let Some(interpreter) = interpreter(binary)? {
                rules.path(&interpreter, run())?;
                for programs in PROGRAMS {
                    rules.file(programs, run())?;
                }
            }
        }
        for library in LIBRARIES {
            rules.file(library, run())?;
        }
        if let Some(folders) = folders {
            rules.path(&folders.writable, write_within())?;
            rules.path(&folders.readable, read())?;
        }
        for path in programs {
            rules.path(path, run())?;
        }
        for path in &grants.reads {
            rules.path(path, read())?;
        }
        for path in &grants.writes {
            rules.path(path, write_within())?;
        }
        for descriptor in &grants.descriptors {
            rules.descriptor(descriptor)?;
        }
        let Rules { ruleset, held } = rules;
        let ruleset: Option<OwnedFd> = ruleset.into();
        Ok(ruleset.map(|ruleset| Domain {
            ruleset,
            held,
            detail: format!("ABI {abi}"),
        }))
    }
}

/// Returns the version of this kernel's Landlock, or `None` if it has no Landlock.
fn landlock_version() -> Option<i64> {
    const VERSION: libc::c_uint = 1;
    // SAFETY: with this flag the call takes no pointer and only returns a number.
    let version = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            std::ptr::null::<libc::c_void>(),
            0_usize,
            VERSION,
        )
    };
    (version > 0).then_some(version)
}

fn read() -> BitFlags<AccessFs> {
    AccessFs::ReadFile | AccessFs::ReadDir
}

fn run() -> BitFlags<AccessFs> {
    read() | AccessFs::Execute
}

fn read_write() -> BitFlags<AccessFs> {
    AccessFs::ReadFile | AccessFs::WriteFile
}

/// The right to read, write, create and remove files and sockets in a folder, but not to make folders.
fn write_within() -> BitFlags<AccessFs> {
    read_write()
        | AccessFs::ReadDir
        | AccessFs::Truncate
        | AccessFs::MakeReg
        | AccessFs::MakeSock
        | AccessFs::RemoveFile
}

struct Rules {
    ruleset: RulesetCreated,
    held: Held,
}

impl Rules {
    /// Allows `access` to `path` and everything below it. The path must exist.
    fn path(&mut self, path: &Path, access: BitFlags<AccessFs>) -> io::Result<()> {
        let file = PathFd::new(path).map_err(|error| {
            let reason = format!("cannot grant {} to the VMM: {error}", path.display());
            io::Error::other(reason)
        })?;
        self.add(&file, access).map_err(io::Error::other)?;
        self.held.0.push(file);
        Ok(())
    }

    /// Allows `access` to `path` and everything below it, if the path exists.
    fn file(&mut self, path: &str, access: BitFlags<AccessFs>) -> io::Result<()> {
        match PathFd::new(path) {
            // These are the system's paths, on local file systems, so they needn't be held open.
            Ok(file) => self.add(file, access).map_err(io::Error::other),
            Err(_) => Ok(()),
        }
    }

    /// Allows the VMM to open an inherited file again through `/proc/self/fd`. A memfd, a pipe and a socket lie on no
    /// mounted file system; they need no rule, and the kernel accepts none for them.
    fn descriptor(&mut self, descriptor: &OwnedFd) -> io::Result<()> {
        let flags = rustix::fs::fcntl_getfl(descriptor)?;
        let access = match flags.intersection(OFlags::RWMODE) {
            OFlags::RDONLY => AccessFs::ReadFile.into(),
            _ => read_write() | AccessFs::Truncate,
        };
        match self.add(descriptor, access) {
            Err(error) if no_path(&error) => Ok(()),
            added => added.map_err(io::Error::other),
        }
    }

    fn add(&mut self, file: impl AsFd, access: BitFlags<AccessFs>) -> Result<(), RulesetError> {
        let metadata = rustix::fs::fstat(&file);
        let is_folder = metadata.is_ok_and(|file| file.st_mode & libc::S_IFMT == libc::S_IFDIR);
        // The kernel refuses a rule that gives rights of folders to a file.
        let access = match is_folder {
            true => access,
            false => access & AccessFs::from_file(NEWEST),
        };
        (&mut self.ruleset).add_rule(PathBeneath::new(file, access))?;
        Ok(())
    }
}

/// Whether the kernel refused a rule because the descriptor is not of a file on a mounted file system (EBADFD).
fn no_path(error: &RulesetError) -> bool {
    let mut causes = Causes(error).iter();
    let io_error = causes.find_map(|error| error.downcast_ref::<io::Error>());
    io_error.is_some_and(|error| error.raw_os_error() == Some(libc::EBADFD))
}

/// Returns the interpreter of `binary` if that is a script.
fn interpreter(binary: &Path) -> io::Result<Option<PathBuf>> {
    let mut line = Vec::new();
    let file = BufReader::new(File::open(binary)?.take(SHEBANG));
    file.take(SHEBANG).read_until(b'\n', &mut line)?;
    let Some(rest) = line.strip_prefix(b"#!") else {
        return Ok(None);
    };
    let words = rest.split(|byte| byte.is_ascii_whitespace());
    let program = words.into_iter().find(|word| !word.is_empty());
    Ok(program.map(|program| std::ffi::OsStr::from_bytes(program).into()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_scripts_interpreter_is_found() {
        fn check(content: &[u8], expected: Option<&str>) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("program");
            fs::write(&path, content).unwrap();
            assert_eq!(interpreter(&path).unwrap(), expected.map(PathBuf::from));
        }

        check(b"#!/bin/sh\nexec true\n", Some("/bin/sh"));
        check(b"#! /usr/bin/env -S sh -e\n", Some("/usr/bin/env"));
        check(b"#!", None);
        check(b"#!\n/bin/sh", None);
        check(b"\x7fELF\x02\x01", None);
        check(b"", None);
    }
}
