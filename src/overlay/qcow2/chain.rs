//! The files that make a disk: an image, and what lies below it.

use std::path::{Path, PathBuf};

use super::Problem;
use super::header::{Header, MAX_BACKING, has_magic, read_start};
use crate::overlay::file::open_regular;
use crate::overlay::{DiskFormat, Error, FileIdentity};

/// A file of which a disk is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Where it lies: as given for the image itself, absolute for a backing file.
    pub path: PathBuf,
    /// What it is, as the one above it says.
    pub format: DiskFormat,
    /// Which file it was when the chain was followed.
    pub identity: FileIdentity,
    /// Its length in bytes. That of the disk is another matter.
    pub length: u64,
}

/// The files of which a qcow2 disk is made, from the image down.
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
/// Every backing file is a regular file, named by an absolute path, of a format that is said, raw or qcow2, and isn't
/// in the chain already, by whatever name; there are at most 8. A disk that is made of them reads nothing else.
///
/// # Errors
///
/// [`Error::Qcow2`] with the path of the image that can't be used and the [`Problem`]; [`Error::NotRegular`] and
/// [`Error::Io`] for a file that isn't one or can't be read.
pub fn chain(path: &Path) -> Result<Chain, Error> {
    let (mut members, mut headers) = (Vec::<Member>::new(), Vec::new());
    let mut next = Some((path.to_owned(), DiskFormat::Qcow2));
    while let Some((path, format)) = next {
        // What is wrong with a backing file's place in the chain is a matter of the image that names it.
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

    /// The files below it, from the upper to the lowest. None of them is ever written to.
    pub fn backing(&self) -> &[Member] {
        &self.members[1..]
    }

    /// The length of the disk, in bytes.
    pub fn disk_length(&self) -> u64 {
        self.disk_length
    }

    /// The length in bytes that the image's file has at most once every cluster of the disk was written: the disk, a
    /// reference of 8 bytes and a count of 8 for each cluster, the tables of those, and the image's present length, since
    /// what was freed isn't used again for certain.
    pub fn largest_file(&self) -> u64 {
        let clusters = self.disk_length.div_ceil(self.cluster_length);
        let tables = clusters.saturating_mul(16).saturating_mul(2);
        let some_clusters = self.cluster_length * 64;
        let added = tables.saturating_add(some_clusters);
        self.disk_length
            .saturating_add(added)
            .saturating_add(self.image().length)
    }

    /// Refuses an image that a VMM can't open for writing without changing it. See the [module](super).
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
