//! Verifying a golden snapshot at rest, in full.

use std::path::PathBuf;

use serde::Serialize;

use super::files::Expected;
use super::{Error, Golden};
use crate::overlay::{self, AccessPolicy, FileIdentity, Threads};

/// A golden snapshot all of whose files were digested.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Inspection {
    /// Each file, in the manifest's order.
    pub files: Vec<VerifiedFile>,
    /// What isn't what the manifest says. Empty: the golden snapshot is good.
    pub mismatches: Vec<Mismatch>,
}

/// A file that was digested.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct VerifiedFile {
    /// Where the manifest has it, as `snapshot.state`.
    pub field: String,
    /// The file.
    pub path: PathBuf,
    /// How many bytes it has.
    pub length: u64,
    /// Whether it is what the manifest says.
    pub good: bool,
}

/// Something that isn't what the manifest says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Mismatch {
    /// Where the manifest says it, as `snapshot.state.fsverity`.
    pub field: String,
    /// What the manifest says.
    pub expected: String,
    /// What was found.
    pub found: String,
}

impl Golden {
    /// Digests every file that the manifest names, kernel and initramfs too, and compares length and digests. Goes on
    /// after a mismatch, so that all of them are told. Blocks for as long as the files are large.
    ///
    /// # Errors
    ///
    /// Where it can't be decided: [`Error::Missing`] and [`Error::Digest`] for a file that can't be read or changes
    /// meanwhile. [`Error::Refused`] when two of the files are one.
    pub fn verify(&self) -> Result<Inspection, Error> {
        let mut files = Vec::new();
        let mut mismatches = Vec::new();
        let mut seen: Vec<(FileIdentity, PathBuf)> = Vec::new();
        for file in self.files().into_iter().chain(self.payload()) {
            let found = mismatches.len();
            let (length, identity) = file.digest(&mut mismatches)?;
            let same = seen.iter().find(|(other, _)| *other == identity);
            if let Some((_, other)) = same {
                return Err(self.same_file(&file.path, other));
            }
            seen.push((identity, file.path.clone()));
            files.push(VerifiedFile {
                field: file.field,
                path: file.path,
                length,
                good: mismatches.len() == found,
            });
        }
        Ok(Inspection { files, mismatches })
    }
}

impl Expected {
    /// Digests the file, and tells what isn't as the manifest says.
    fn digest(&self, mismatches: &mut Vec<Mismatch>) -> Result<(u64, FileIdentity), Error> {
        let policy = AccessPolicy::PreferMapped;
        let mut tell = |checked: Result<(), Error>| match checked {
            Err(Error::Mismatch {
                field,
                expected,
                found,
                ..
            }) => {
                mismatches.push(Mismatch {
                    field,
                    expected,
                    found,
                });
                Ok(())
            }
            checked => checked,
        };
        tell(self.check_length_on_disk())?;
        let (length, identity, fsverity) = match self.sha256 {
            Some(sha256) => {
                let found = overlay::digests(&self.path, policy).map_err(Error::Digest)?;
                tell(self.check("sha256", &sha256, &found.sha256))?;
                (found.length, found.identity, found.fsverity)
            }
            None => {
                let found = overlay::fsverity(&self.path, policy, Threads::default());
                let found = found.map_err(Error::Digest)?;
                (found.length, found.identity, found.digest)
            }
        };
        tell(self.check("fsverity", &self.fsverity, &fsverity))?;
        Ok((length, identity))
    }
}
