//! [`chain`]: finds the files of a qcow2 disk, which are the image and its chain of backing files.

use std::path::{Path, PathBuf};

use super::Problem;
use super::header::{Header, MAX_BACKING, has_magic, read_start};
use crate::overlay::file::open_regular;
use crate::overlay::{DiskFormat, Error, FileIdentity};

/// One file of the chain that makes a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its path: as the caller gave it for the image itself, absolute for a backing file.
    pub path: PathBuf,
    /// Its format: for a backing file, as the image above it states it.
    pub format: DiskFormat,
    /// Which file it was when the chain was followed.
    pub identity: FileIdentity,
    /// The length of the file in bytes, which is not the length of the disk.
    pub length: u64,
}

/// The files that make a qcow2 disk, beginning with the image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// At least the image itself.
    members: Vec<Member>,
    version: u32,
    disk_length: u64,
    cluster_length: u64,
}

/// Follows the qcow2 image at `path` down to the last of its backing files, reading headers only.
///
/// Every backing file must be a regular file, named by an absolute path, of a stated format (raw or qcow2), and must
/// not be in the chain already, even under another name. At most 8 backing files are accepted. A disk in such a chain
/// reads no other file.
///
/// # Errors
///
/// [`Error::Qcow2`] with the path of the image that can't be used and the [`Problem`]; [`Error::NotRegular`] for a file
/// that isn't a regular file; [`Error::Io`] for a file that can't be read.
pub fn chain(path: &Path) -> Result<Chain, Error> {
    let (mut members, mut headers) = (Vec::<Member>::new(), Vec::new());
    let mut next = Some((path.to_owned(), DiskFormat::Qcow2));
    while let Some((path, format)) = next {
        // A problem of a backing file's place in the chain is reported for the image that names it.
        let named_by = members.last().map_or(&path, |above| &above.path).clone();
        let refused = |problem| refuse(&named_by, problem);
        if members.len() > MAX_BACKING {
            return Err(refused(Problem::TooDeep));
        }
        let (file, status) = open_regular(&path)?;
        if members
            .iter()
            .any(|member| member.identity == status.identity)
        {
            return Err(refused(Problem::Cycle(path)));
        }
        next = match format {
            DiskFormat::Raw => {
                if has_magic(&file).map_err(Error::io("read", &path))? {
                    return Err(refused(Problem::NotRaw(path)));
                }
                None
            }
            DiskFormat::Qcow2 => {
                let start = read_start(&file).map_err(Error::io("read", &path))?;
                let header = Header::parse(&start).map_err(|problem| refuse(&path, problem))?;
                let below = header.backing.clone();
                headers.push(header);
                below
            }
        };
        members.push(Member {
            path,
            format,
            identity: status.identity,
            length: status.length,
        });
    }
    Ok(Chain {
        members,
        version: headers[0].version,
        disk_length: headers[0].disk_length,
        cluster_length: headers[0].cluster_length,
    })
}

fn refuse(path: &Path, problem: Problem) -> Error {
    Error::Qcow2 {
        path: path.to_owned(),
        problem,
    }
}

impl Chain {
    /// The image itself.
    pub fn image(&self) -> &Member {
        &self.members[0]
    }

    /// The backing files, beginning with the one that the image names. They are never written to.
    pub fn backing(&self) -> &[Member] {
        &self.members[1..]
    }

    /// The length of the disk, in bytes.
    pub fn disk_length(&self) -> u64 {
        self.disk_length
    }

    /// An upper bound in bytes for the length of the image's file after every cluster of the disk was written. It is
    /// the sum of the disk, a reference of 8 bytes and a count of 8 bytes for each cluster, the tables of those, and
    /// the image's present length, because freed clusters may not be used again.
    pub fn largest_file(&self) -> u64 {
        let clusters = self.disk_length.div_ceil(self.cluster_length);
        let tables = clusters.saturating_mul(16).saturating_mul(2);
        let some_clusters = self.cluster_length * 64;
        let added = tables.saturating_add(some_clusters);
        self.disk_length
            .saturating_add(added)
            .saturating_add(self.image().length)
    }

    /// Fails for an image of version 3, which a VMM changes by opening it for writing. See the [module](super).
    ///
    /// # Errors
    ///
    /// [`Error::Qcow2`] with [`Problem::ChangedByOpening`].
    pub fn check_writable(&self) -> Result<(), Error> {
        match self.version {
            2 => Ok(()),
            _ => Err(refuse(&self.image().path, Problem::ChangedByOpening)),
        }
    }
}
