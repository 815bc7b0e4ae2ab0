//! [`GuestMemory`]: where a guest's memory comes from at a restore, and [`MemoryReading`], the proof that it came from
//! there.
//!
//! - [`Mapped`](GuestMemory::Mapped): the VMM maps an inherited immutable file privately, copy on write. The proof is
//!   `/proc/<pid>/maps`: it must list that file, mapped privately, with each region at its place.
//! - [`Copied`](GuestMemory::Copied): the VMM reads an inherited file whole before it answers. The proof is that the
//!   file is immutable, or that a read lease on it stood until the answer.
//! - [`ByPath`](GuestMemory::ByPath): the VMM reads the snapshot's own file by its path. There is no proof.
//!
//! The VMM opens an inherited file again as `/proc/self/fd/<number>`, so it opens the very file that was verified.

use std::fmt;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use serde::Serialize;

use super::{Error, Machine, MemoryRegion, Snapshot};
use crate::offload::blocking;
use crate::overlay::{ImmutableFile, LeaseTaken, LeasedFile, Protection, VerityDigest};
use crate::vmm::{MappedFile, Mapping, beyond_streams};

/// Where the memory of a restored guest comes from.
#[derive(Clone, Debug)]
pub enum GuestMemory {
    /// An immutable file that the VMM inherits and maps privately. A restore does not read it.
    Mapped(Arc<ImmutableFile>),
    /// A file that the VMM inherits and reads whole at each restore.
    Copied(CopySource),
    /// The snapshot's own `memory-ranges`, by its path. This is for a machine that has just taken the snapshot, and for
    /// a VMM that another program runs, which can't inherit descriptors from this process.
    ByPath,
}

/// A file that a VMM reads a guest's memory from.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum CopySource {
    /// A file that can't change.
    Immutable(Arc<ImmutableFile>),
    /// A file that is held under a read lease. It can change only after the lease is lost, which this process notices.
    Leased(Arc<LeasedFile>),
}

impl GuestMemory {
    /// The length of the memory file in bytes; `None` for a file that is read by path.
    pub(super) fn length(&self) -> Option<u64> {
        match self {
            GuestMemory::Mapped(file) => Some(file.length()),
            GuestMemory::Copied(file) => Some(file.length()),
            GuestMemory::ByPath => None,
        }
    }

    /// The file that a VMM must inherit at its start; `None` for a file that is read by path.
    pub fn inherited(&self) -> Option<BorrowedFd<'_>> {
        match self {
            GuestMemory::Mapped(file) => Some(file.as_fd()),
            GuestMemory::Copied(file) => Some(file.as_fd()),
            GuestMemory::ByPath => None,
        }
    }
}

impl CopySource {
    /// The file's length in bytes.
    pub fn length(&self) -> u64 {
        match self {
            CopySource::Immutable(file) => file.length(),
            CopySource::Leased(file) => file.length(),
        }
    }

    /// The fs-verity digest of the file's bytes.
    pub fn digest(&self) -> VerityDigest {
        match self {
            CopySource::Immutable(file) => file.digest(),
            CopySource::Leased(file) => file.digest(),
        }
    }

    /// How many bytes were hashed for that digest. Holes are not hashed; under fs-verity this is 0.
    pub(crate) fn hashed(&self) -> u64 {
        match self {
            CopySource::Immutable(file) => file.hashed(),
            CopySource::Leased(file) => file.hashed(),
        }
    }
}

impl AsFd for CopySource {
    /// The descriptor is open for reading only.
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            CopySource::Immutable(file) => file.as_fd(),
            CopySource::Leased(file) => file.as_fd(),
        }
    }
}

/// How a restored guest got its memory, as it was found after the restore.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MemoryReading {
    /// The VMM was told to map an immutable file.
    Mapped {
        /// The protection that keeps the file from changing.
        protection: Protection,
        /// The size of the guest's memory, in bytes.
        bytes: u64,
        /// Whether the VMM's mappings are as they should be, or how they differ.
        found: Result<(), NotMapped>,
    },
    /// The VMM copied the memory from a file that did not change before the copy was complete.
    Copied {
        /// The protection that keeps the file from changing; `None` for a lease, which stood until the copy was
        /// complete.
        protection: Option<Protection>,
    },
    /// The VMM read the memory by a path. There is no proof of the bytes that it read.
    ByPath,
}

/// How the mappings of a VMM differ from the memory that it was given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub enum NotMapped {
    /// The VMM maps the file shared instead of privately, so its guest's writes would go to the file.
    Shared,
    /// A region is not mapped, or not in one piece from its place in the file.
    Missing(MemoryRegion),
    /// The VMM maps more bytes of the file than the regions have.
    More {
        /// The number of mapped bytes.
        bytes: u64,
    },
}

impl fmt::Display for NotMapped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NotMapped::Shared => f.write_str("the VMM shares the mapping of the memory file"),
            NotMapped::Missing(region) => write!(
                f,
                "the VMM does not map bytes {} to {} of the memory file in one piece",
                region.offset,
                region.offset + region.length
            ),
            NotMapped::More { bytes } => {
                write!(
                    f,
                    "the VMM maps {bytes} bytes of the memory file, more than its guest's memory has"
                )
            }
        }
    }
}

/// The memory file as a machine's VMM has inherited it.
#[derive(Debug)]
pub(super) struct InheritedMemory {
    /// The path by which the VMM opens the file.
    pub(super) path: String,
    /// How the kernel identifies the file in the list of mappings; `None` if the file is copied.
    mapped: Option<MappedFile>,
}

impl InheritedMemory {
    /// Returns the descriptor that a VMM inherits for `memory`, with the path by which the VMM opens it.
    pub(super) fn of(memory: &GuestMemory) -> Result<Option<(OwnedFd, InheritedMemory)>, Error> {
        let failed = |action| Error::file(action, "the golden snapshot's memory");
        let Some(file) = memory.inherited() else {
            return Ok(None);
        };
        let file = file
            .try_clone_to_owned()
            .and_then(beyond_streams)
            .map_err(failed("duplicate the descriptor of"))?;
        let mapped = match memory {
            GuestMemory::Mapped(immutable) => {
                Some(MappedFile::of(immutable).map_err(failed("map"))?)
            }
            _ => None,
        };
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        Ok(Some((file, InheritedMemory { path, mapped })))
    }
}

impl GuestMemory {
    /// Ensures, before a restore, that a leased memory file still has the verified bytes, and returns its lease. The
    /// other sources need no check, and return `None`.
    pub(crate) async fn ensure(&self) -> Result<Option<LeaseTaken>, Error> {
        match self {
            GuestMemory::Copied(CopySource::Leased(file)) => {
                let file = Arc::clone(file);
                let ensured = blocking(move || file.ensure()).await;
                ensured.map(Some).map_err(Error::Memory)
            }
            _ => Ok(None),
        }
    }
}

impl Machine {
    /// Determines how the VM that was just restored got its memory. `lease` is the lease that was taken before the
    /// restore.
    pub(super) async fn read_memory(
        &self,
        snapshot: &Snapshot,
        lease: Option<LeaseTaken>,
    ) -> Result<MemoryReading, Error> {
        Ok(match snapshot.memory() {
            GuestMemory::ByPath => MemoryReading::ByPath,
            GuestMemory::Copied(CopySource::Immutable(file)) => MemoryReading::Copied {
                protection: Some(file.protection()),
            },
            GuestMemory::Copied(CopySource::Leased(file)) => {
                match lease.is_some_and(|lease| file.is_held_since(lease)) {
                    true => MemoryReading::Copied { protection: None },
                    false => return Err(Error::MemoryNotHeld),
                }
            }
            GuestMemory::Mapped(file) => self.read_mappings(snapshot, file).await?,
        })
    }

    /// Reads the mappings of a waiting VM again. Memory that was copied stays proved, so nothing is read for it.
    pub(super) async fn read_memory_again(
        &self,
        snapshot: &Snapshot,
        before: MemoryReading,
    ) -> Result<MemoryReading, Error> {
        match snapshot.memory() {
            GuestMemory::Mapped(file) => self.read_mappings(snapshot, file).await,
            GuestMemory::Copied(_) | GuestMemory::ByPath => Ok(before),
        }
    }

    async fn read_mappings(
        &self,
        snapshot: &Snapshot,
        file: &ImmutableFile,
    ) -> Result<MemoryReading, Error> {
        let inherited = self.memory.as_ref();
        let inherited = inherited.and_then(|memory| memory.mapped.clone());
        let (Some(process), Some(mapped)) = (self.vmm.process().cloned(), inherited) else {
            return Err(Error::NotInherited);
        };
        let mappings = blocking(move || process.mappings(&mapped)).await;
        let mappings = mappings.map_err(Error::OpenFiles)?;
        Ok(MemoryReading::Mapped {
            protection: file.protection(),
            bytes: file.length(),
            found: compare(mappings, snapshot.regions()),
        })
    }
}

/// Compares the mappings of the memory file with the regions. Each region must be mapped privately, in one piece and
/// from its place in the file, and no more bytes may be mapped.
fn compare(mut mappings: Vec<Mapping>, regions: &[MemoryRegion]) -> Result<(), NotMapped> {
    if mappings.iter().any(|mapping| !mapping.private) {
        return Err(NotMapped::Shared);
    }
    let bytes = mappings.iter().map(|mapping| mapping.end - mapping.start);
    let bytes: u64 = bytes.sum();
    // The kernel splits a mapping whose parts have different attributes, and joins neighbouring ones. So neighbours are
    // joined here before they are compared.
    mappings.sort_unstable_by_key(|mapping| mapping.start);
    let mut pieces: Vec<Mapping> = Vec::with_capacity(mappings.len());
    for mapping in mappings {
        match pieces.last_mut() {
            Some(last)
                if last.end == mapping.start
                    && last.offset + (last.end - last.start) == mapping.offset =>
            {
                last.end = mapping.end;
            }
            _ => pieces.push(mapping),
        }
    }
    for region in regions {
        let holds = |piece: &Mapping| {
            piece.offset <= region.offset
                && region.offset + region.length <= piece.offset + (piece.end - piece.start)
        };
        if !pieces.iter().any(holds) {
            return Err(NotMapped::Missing(*region));
        }
    }
    match bytes == regions.iter().map(|region| region.length).sum::<u64>() {
        true => Ok(()),
        false => Err(NotMapped::More { bytes }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REGIONS: [MemoryRegion; 2] = [
        MemoryRegion {
            gpa: 0,
            offset: 0,
            length: 0x3000,
        },
        MemoryRegion {
            gpa: 1 << 32,
            offset: 0x3000,
            length: 0x2000,
        },
    ];

    fn mapping(start: u64, length: u64, offset: u64) -> Mapping {
        Mapping {
            start,
            end: start + length,
            offset,
            private: true,
        }
    }

    #[test]
    fn every_region_must_be_mapped_privately_in_one_piece_at_its_place() {
        let check = |mappings: &[Mapping], expected: Result<(), NotMapped>| {
            assert_eq!(
                compare(mappings.to_vec(), &REGIONS),
                expected,
                "{mappings:?}"
            );
        };
        let low = mapping(0x9_0000, 0x3000, 0);
        let high = mapping(0x7_0000, 0x2000, 0x3000);
        check(&[low, high], Ok(()));
        check(&[high, low], Ok(()));
        // One region split in two, and both joined to one.
        check(
            &[
                mapping(0x9_0000, 0x1000, 0),
                high,
                mapping(0x9_1000, 0x2000, 0x1000),
            ],
            Ok(()),
        );
        check(&[mapping(0x9_0000, 0x5000, 0)], Ok(()));

        check(&[], Err(NotMapped::Missing(REGIONS[0])));
        check(&[low], Err(NotMapped::Missing(REGIONS[1])));
        // The upper region shows the lower one's bytes.
        let wrong = mapping(0x7_0000, 0x2000, 0);
        check(&[low, wrong], Err(NotMapped::Missing(REGIONS[1])));
        let apart = [
            mapping(0x9_0000, 0x1000, 0),
            mapping(0xa_0000, 0x2000, 0x1000),
            high,
        ];
        check(&apart, Err(NotMapped::Missing(REGIONS[0])));
        let shared = Mapping {
            private: false,
            ..low
        };
        check(&[shared, high], Err(NotMapped::Shared));
        let more = mapping(0xb_0000, 0x1000, 0);
        check(&[low, high, more], Err(NotMapped::More { bytes: 0x6000 }));
    }
}
