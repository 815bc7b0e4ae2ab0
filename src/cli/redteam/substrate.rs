//! [`ChangedFiles`]: causes the false readings that need only a changed file, by changing a byte in a copy of the
//! golden snapshot.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use chv_sandbox::causes::Causes;
use chv_sandbox::golden::Golden;
use chv_sandbox::overlay;
use chv_sandbox::redteam::{Moment, StagedLie, Substrate};
use chv_sandbox::sandbox::{CheckSource, ChvSandbox, SandboxConfig, SandboxOrigin};
use tempfile::TempDir;

/// The probes whose false reading [`ChangedFiles`] can cause.
pub(super) const CAUSED: [&str; 2] = ["lie_fs_hash", "lie_guest_memory"];

/// Copies the golden snapshot for each false reading, and changes a byte of the copy.
pub(super) struct ChangedFiles {
    golden: PathBuf,
    config: SandboxConfig,
    /// Kept for as long as their sandboxes exist.
    copies: Mutex<Vec<TempDir>>,
}

impl ChangedFiles {
    pub(super) fn new(golden: &Path, config: SandboxConfig) -> ChangedFiles {
        ChangedFiles {
            golden: golden.to_owned(),
            config,
            copies: Mutex::default(),
        }
    }

    /// A private copy of the golden snapshot.
    async fn copy(&self) -> Result<PathBuf, String> {
        let from = self.golden.clone();
        let copied = tokio::task::spawn_blocking(move || {
            let directory = TempDir::with_prefix("chv-redteam-")?;
            let into = directory.path().join("golden");
            copy_tree(&from, &into)?;
            io::Result::Ok((directory, into))
        });
        let copied = copied.await.map_err(|error| error.to_string())?;
        let (directory, path) =
            copied.map_err(|error| format!("the golden snapshot can't be copied: {error}"))?;
        let mut copies = self.copies.lock().unwrap_or_else(PoisonError::into_inner);
        // The copies of earlier false readings are no longer used.
        copies.clear();
        copies.push(directory);
        Ok(path)
    }

    fn sandbox_of(&self, golden: &Path) -> Result<ChvSandbox, String> {
        let mut config = self.config.clone();
        if let SandboxOrigin::Golden(origin) = &mut config.origin {
            origin.directory = golden.to_owned();
        }
        ChvSandbox::new(config).map_err(|error| Causes(&error).to_string())
    }
}

#[async_trait]
impl Substrate for ChangedFiles {
    async fn stage(&self, source: CheckSource) -> Result<StagedLie, String> {
        let cannot = |what: &str| {
            Err(format!(
                "a changed file can't cause this false reading: {what}"
            ))
        };
        match source {
            CheckSource::FsHash => {
                let copy = self.copy().await?;
                let golden = Golden::open(&copy).map_err(|error| Causes(&error).to_string())?;
                let disks = golden.disks();
                let kept = disks.iter().find(|disk| disk.origin.starts_with(&copy));
                let disk = kept.ok_or("the golden snapshot has no disk of its own")?;
                let path = disk.origin.clone();
                Ok(StagedLie::new(
                    Arc::new(self.sandbox_of(&copy)?),
                    Moment::BeforeReset,
                    "a byte of the disk that a reset puts back was changed",
                    move || change_a_byte(&path),
                ))
            }
            CheckSource::GuestMemory => {
                let copy = self.copy().await?;
                let golden = Golden::open(&copy).map_err(|error| Causes(&error).to_string())?;
                let path = golden.snapshot().join("memory-ranges");
                Ok(StagedLie::new(
                    Arc::new(self.sandbox_of(&copy)?),
                    Moment::BeforeBoot,
                    "a byte of the snapshot's memory was changed",
                    move || change_a_byte(&path),
                ))
            }
            CheckSource::OpenFdCount
            | CheckSource::GuestNonce
            | CheckSource::GuestRandomness
            | CheckSource::GuestClock => cannot("it takes a guest that lies"),
            CheckSource::VmmApiState | CheckSource::DiskIdentity | CheckSource::VmmIdentity => {
                cannot("it takes a VMM that lies")
            }
            _ => cannot("no file is known that holds this source"),
        }
    }
}

/// Copies directories and files with permissions for this user only. Holes stay holes.
fn copy_tree(from: &Path, into: &Path) -> io::Result<()> {
    fs::DirBuilder::new().mode(0o700).create(into)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (path, target) = (entry.path(), into.join(entry.file_name()));
        let kind = entry.file_type()?;
        if kind.is_dir() {
            copy_tree(&path, &target)?;
        } else if kind.is_file() {
            overlay::copy_private(&path, &target).map_err(io::Error::other)?;
        }
    }
    Ok(())
}

/// Inverts all bits of the byte in the middle of the file.
fn change_a_byte(path: &Path) -> io::Result<()> {
    let file = File::options().read(true).write(true).open(path)?;
    let middle = file.metadata()?.len() / 2;
    let mut byte = [0];
    file.read_exact_at(&mut byte, middle)?;
    file.write_all_at(&[!byte[0]], middle)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use chv_sandbox::redteam::{Family, probes};

    use super::*;

    #[tokio::test]
    async fn the_probes_that_a_changed_file_serves_are_named() {
        let files = ChangedFiles::new(Path::new("/nowhere"), SandboxConfig::golden("/nowhere"));
        let sources = [
            CheckSource::FsHash,
            CheckSource::OpenFdCount,
            CheckSource::VmmApiState,
            CheckSource::DiskIdentity,
            CheckSource::GuestNonce,
            CheckSource::GuestRandomness,
            CheckSource::GuestClock,
            CheckSource::VmmIdentity,
            CheckSource::GuestMemory,
        ];
        let mut names: Vec<&str> = probes()
            .filter(|probe| probe.family == Family::Substrate)
            .map(|probe| probe.name)
            .collect();
        for source in sources {
            let source_name = serde_json::to_value(source).unwrap();
            let name = format!("lie_{}", source_name.as_str().unwrap());
            names.retain(|known| *known != name);
            // There is no golden snapshot, so no false reading can be caused. The reason tells the two cases apart.
            let refused = files.stage(source).await.err().unwrap();
            let is_caused = !refused.starts_with("a changed file can't cause");
            assert_eq!(is_caused, CAUSED.contains(&&name[..]), "{name}: {refused}");
        }
        assert_eq!(names, [""; 0], "probes whose source is not in the list");
    }

    #[test]
    fn a_copy_is_private_and_a_changed_byte_is_not_in_the_original() {
        let folder = tempfile::tempdir().unwrap();
        let (from, into) = (folder.path().join("from"), folder.path().join("into"));
        fs::create_dir_all(from.join("snapshot")).unwrap();
        fs::write(from.join("snapshot/memory-ranges"), [7; 9]).unwrap();
        copy_tree(&from, &into).unwrap();
        let copy = into.join("snapshot/memory-ranges");
        change_a_byte(&copy).unwrap();
        assert_eq!(fs::read(&copy).unwrap(), [7, 7, 7, 7, !7, 7, 7, 7, 7]);
        assert_eq!(
            fs::read(from.join("snapshot/memory-ranges")).unwrap(),
            [7; 9]
        );
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&into), mode(&copy)), (0o700, 0o600));
    }
}
