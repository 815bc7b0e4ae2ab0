//! Creates the guest's directory for files, into which and from which files are transferred.

use std::io;
use std::path::{Component, Path};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::Dispatcher;

impl Dispatcher {
    /// Creates the [directory for files](super::Toolbox::with_files_directory) unless it exists. A new directory
    /// belongs to the tools' user, and only this user may write to it.
    ///
    /// # Errors
    ///
    /// If the directory can't be created, for example because the root is read-only or because a component of the path
    /// is a symbolic link (`ELOOP`).
    pub fn create_files_directory(&self) -> io::Result<()> {
        let root = self.shared.root.as_deref().unwrap_or(Path::new("/"));
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
        let mut directory = rustix::fs::openat(CWD, root, flags, Mode::empty())?;
        let mut is_new = false;
        for component in Path::new(self.shared.files_directory()).components() {
            let Component::Normal(name) = component else {
                continue;
            };
            let made = rustix::fs::mkdirat(&directory, name, Mode::from_raw_mode(0o755));
            is_new = match made {
                Ok(()) => true,
                Err(Errno::EXIST) => false,
                Err(error) => return Err(error.into()),
            };
            let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
            directory = rustix::fs::openat2(&directory, name, flags, Mode::empty(), beneath)?;
        }
        match self.shared.confinement.user() {
            Some((user, group)) if is_new => {
                Ok(rustix::fs::fchown(&directory, Some(user), Some(group))?)
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, symlink};

    use super::super::{Confinement, LinuxSystem, Toolbox};
    use super::*;

    fn dispatcher(root: &Path, files: &str) -> Dispatcher {
        let toolbox = Toolbox::built_in().with_files_directory(files).unwrap();
        let is_root = rustix::process::geteuid().is_root();
        let confinement = Confinement {
            root: Some(root.to_owned()),
            user: is_root.then_some((1000, 1000)),
            ..Confinement::in_process()
        };
        Dispatcher::new(toolbox, &confinement, LinuxSystem::new()).unwrap()
    }

    #[test]
    fn the_directory_is_created_for_the_tools_user_and_an_existing_one_is_left_alone() {
        let root = tempfile::tempdir().unwrap();
        let dispatcher = dispatcher(root.path(), "/a/files");
        dispatcher.create_files_directory().unwrap();
        let made = fs::metadata(root.path().join("a/files")).unwrap();
        let parent = fs::metadata(root.path().join("a")).unwrap();
        let own = rustix::process::geteuid().as_raw();
        assert_eq!(parent.uid(), own);
        assert_eq!(made.uid(), if own == 0 { 1000 } else { own });
        assert_eq!(made.mode() & 0o022, 0);

        fs::write(root.path().join("a/files/kept"), "").unwrap();
        dispatcher.create_files_directory().unwrap();
        assert!(root.path().join("a/files/kept").exists());
    }

    #[test]
    fn a_symbolic_link_in_the_path_is_not_followed() {
        let root = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        for (link, files) in [("a", "/a/files"), ("b", "/b")] {
            symlink(outside.path(), root.path().join(link)).unwrap();
            let error = dispatcher(root.path(), files).create_files_directory();
            assert_eq!(
                error.unwrap_err().raw_os_error(),
                Some(libc::ELOOP),
                "{files}"
            );
        }
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    }
}
